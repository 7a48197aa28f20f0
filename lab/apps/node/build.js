// Builds a release into dist/: the sources, once they parse, with the release's version, and the site.
//
// The version is RELEASE_VERSION, else the file VERSION, else the package's. Fails with BUILD_FAIL=1.
'use strict';
const fs = require('fs');
const Module = require('module');
const path = require('path');
const vm = require('vm');

const from = (...parts) => path.join(__dirname, ...parts);

function version() {
  if (process.env.RELEASE_VERSION) return process.env.RELEASE_VERSION;
  if (fs.existsSync(from('VERSION'))) return fs.readFileSync(from('VERSION'), 'utf8').trim();
  return require('./package.json').version;
}

if (process.env.BUILD_FAIL === '1') {
  console.error('the build fails as told');
  process.exit(1);
}
for (const name of fs.readdirSync(from('src'))) {
  const source = fs.readFileSync(from('src', name), 'utf8');
  new vm.Script(Module.wrap(source), { filename: name });
}
fs.rmSync(from('dist'), { recursive: true, force: true });
fs.cpSync(from('src'), from('dist'), { recursive: true });
fs.cpSync(from('site'), from('dist', 'site'), { recursive: true });
fs.writeFileSync(from('dist', 'VERSION'), `${version()}\n`);
const index = from('dist', 'site', 'index.html');
const page = fs.readFileSync(index, 'utf8');
fs.writeFileSync(index, page.replace('content="development"', `content="${version()}"`));
console.log(`dist/ is version ${version()}`);
