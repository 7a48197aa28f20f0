// Paths without a file of their own come here; so does the version of the release.
const version = document.querySelector('meta[name="version"]').content;
document.getElementById('view').textContent = `${location.pathname} of version ${version}`;
