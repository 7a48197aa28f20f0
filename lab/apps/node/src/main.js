// Stands in for a service of a platform, and really uses what it is given; see README.md.
'use strict';
const crypto = require('crypto');
const http = require('http');
const { Backends, sleep } = require('./backends');
const { Drain } = require('./drain');
const { forward, relay } = require('./gateway');
const { log, short } = require('./log');
const { read } = require('./settings');

const settings = read(process.env);
const backends = new Backends(settings);
const server = http.createServer({ keepAliveTimeout: 75000 });
const drain = new Drain(server, settings);
const self = {
  name: settings.name,
  version: settings.version,
  host: settings.host,
  port: settings.port,
  pid: process.pid,
};

function reply(response, status, body) {
  const data = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(data),
  });
  response.end(data);
}

// ------------------------------------------------------------------------------------- pages

function index(response) {
  reply(response, 200, { ...self, uses: Object.keys(backends.all) });
}

async function ready(response) {
  const { failing, checks } = await backends.use(`ready.${settings.host}.${settings.port}`);
  if (drain.begun) failing.push('draining');
  if (settings.failReady) failing.push('told to fail');
  const status = failing.length ? 'failed' : 'ok';
  reply(response, failing.length ? 503 : 200, { status, failing, checks });
}

async function work(response) {
  const { failing, checks } = await backends.use(crypto.randomUUID());
  reply(response, failing.length ? 500 : 200, { ...self, failing, saw: checks });
}

async function slow(response, query) {
  const seconds = Math.max(0, Math.min(60, Number(query.get('seconds') ?? 1) || 0));
  await sleep(seconds * 1000);
  reply(response, 200, { ...self, slept: seconds });
}

async function body(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
    if (text.length > 64 * 1024) throw new Error('the body is too long');
  }
  return text;
}

async function items(response, query, request) {
  const database = backends.all.postgresql;
  if (!database) {
    reply(response, 404, { error: 'this service has no database' });
  } else if (request.method === 'POST') {
    const { name } = JSON.parse((await body(request)) || '{}');
    reply(response, 201, await database.add(String(name || crypto.randomUUID())));
  } else {
    reply(response, 200, { items: await database.items() });
  }
}

const alive = (response) => reply(response, 200, { status: 'ok' });
const PAGES = {
  '/': index,
  '/health': alive,
  '/health/live': alive,
  '/health/ready': ready,
  '/version': (response) => reply(response, 200, self),
  '/work': work,
  '/items': items,
  '/slow': slow,
  '/ws': (response) => reply(response, 426, { error: 'a WebSocket is expected here' }),
};

// Where a request goes: the address of another service, or a page of this one. The proxy in front
// leaves its own prefix before the path, and probes come without one.
function route(url) {
  const address = new URL(url, 'http://here');
  let path = address.pathname;
  if (path === settings.base || path.startsWith(`${settings.base}/`)) {
    path = path.slice(settings.base.length) || '/';
    const [, peer, ...rest] = path.split('/');
    if (Object.hasOwn(settings.peers, peer)) {
      return { target: `${settings.peers[peer]}/${rest.join('/')}${address.search}` };
    }
  }
  return { page: Object.hasOwn(PAGES, path) ? path : '', query: address.searchParams };
}

server.on('request', async (request, response) => {
  const began = performance.now();
  response.on('close', () => {
    if (settings.logRequests || response.statusCode >= 500) {
      const milliseconds = Math.round(performance.now() - began);
      const path = request.url.split('?')[0];
      log('info', 'request', { method: request.method, path, status: response.statusCode, milliseconds });
    }
  });
  const { target, page, query } = route(request.url);
  if (target) {
    forward(request, response, target, reply);
    return;
  }
  // What nobody reads has to be taken all the same.
  if (page !== '/items') request.resume();
  try {
    if (page) await PAGES[page](response, query, request);
    else reply(response, 404, { error: 'there is no such page' });
  } catch (error) {
    log('error', 'request failed', { path: page, error: short(error) });
    if (!response.headersSent) reply(response, 500, { error: short(error) });
  }
});

// -------------------------------------------------------------------------------- WebSockets

let sockets;

function accept(request, socket, head, opened) {
  const { WebSocketServer } = require('ws');
  sockets ??= new WebSocketServer({
    noServer: true,
    maxPayload: 64 * 1024,
    perMessageDeflate: false,
  });
  sockets.handleUpgrade(request, socket, head, (found) => {
    found.on('error', () => found.terminate());
    drain.follow(found);
    opened(found);
  });
}

// Sends back what it gets, and a tick each second.
function echo(socket) {
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
    socket.send(JSON.stringify({ tick: ticks, version: settings.version }));
  }, 1000);
  socket.on('message', (data, binary) => socket.send(data, { binary }));
  socket.on('close', () => clearInterval(timer));
}

server.on('upgrade', (request, socket, head) => {
  socket.upgraded = true;
  socket.on('error', () => socket.destroy());
  const { target, page } = route(request.url);
  if (target) {
    relay(request, socket, head, target, accept);
  } else if (page === '/ws') {
    accept(request, socket, head, echo);
  } else {
    socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  }
});

// --------------------------------------------------------------------------- start and stop

async function stop(signal) {
  if (drain.begun) return;
  log('info', 'stopping', { signal });
  const orderly = await drain.run();
  await backends.close();
  log(orderly ? 'info' : 'error', orderly ? 'stopped' : 'stopped, and cut what did not end');
  process.exit(orderly ? 0 : 1);
}

// Whoever started it is told once all that it needs has answered.
async function start() {
  if (settings.failStart) throw new Error('the start fails as told');
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(settings.port, settings.bind, resolve);
  });
  log('info', 'listening', { ...self, bind: settings.bind, uses: Object.keys(backends.all) });
  let told = '';
  while (!drain.begun) {
    const { failing, checks } = await backends.use(`start.${settings.host}.${settings.port}`);
    if (!failing.length && !settings.failReady) break;
    if (told !== String(failing)) log('warning', 'waiting', { failing, checks });
    told = String(failing);
    await sleep(200);
  }
  if (drain.begun) return;
  log('info', 'ready');
  if (process.send) process.send('ready');
}

function fail(error) {
  log('error', 'it ends', { error: short(error) });
  process.exit(1);
}

process.on('SIGINT', () => stop('SIGINT'));
process.on('SIGTERM', () => stop('SIGTERM'));
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
start().catch(fail);
