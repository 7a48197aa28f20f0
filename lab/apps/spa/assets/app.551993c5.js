"use strict";
// A router in three lines: every path is a page, none of them is a file on the server.
const view = document.getElementById("view");
const show = () => { view.textContent = `This is the page ${location.pathname}`; };
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-page]");
  if (!link) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  show();
});
addEventListener("popstate", show);
show();
