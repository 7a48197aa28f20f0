// Answers with what a test wants to know of it. Says that it is ready after a while if asked to.
'use strict';
const http = require('http');

http.createServer((request, response) => {
  response.end(JSON.stringify({
    pid: process.pid,
    name: process.env.name,
    greeting: process.env.GREETING,
    secret: process.env.SECRET,
    args: process.argv.slice(2),
    cwd: process.cwd(),
    root: process.env.SUDO_USER || process.env.INVOCATION_ID || '',
  }));
}).listen(Number(process.env.PORT), '127.0.0.1', () => {
  console.log('listening');
  if (process.env.READY_AFTER) {
    setTimeout(() => process.send('ready'), Number(process.env.READY_AFTER));
  }
});
process.on('SIGINT', () => process.exit(0));
