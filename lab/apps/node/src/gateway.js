// Hands requests and WebSockets on to other services.
'use strict';
const http = require('http');
const { pipeline } = require('stream');
const { log, short } = require('./log');

// Of one connection, and not of what is handed on (RFC 9110, 7.6.1).
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade'];
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 64 });

const without = (headers, names) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));

function forwarded(request) {
  const before = request.headers['x-forwarded-for'];
  const client = request.socket.remoteAddress;
  return before ? `${before}, ${client}` : client;
}

function forward(request, response, target, reply) {
  const hasBody = Number(request.headers['content-length'] || 0) > 0
    || 'transfer-encoding' in request.headers;
  const headers = {
    ...without(request.headers, HOP_BY_HOP),
    'x-forwarded-for': forwarded(request),
  };
  let onward;
  const attempt = (again) => {
    onward = http.request(target, { method: request.method, headers, agent });
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode, without(answer.headers, HOP_BY_HOP));
      pipeline(answer, response, () => {});
    });
    onward.on('error', (error) => {
      // The other side had closed the connection before it saw the request.
      const stale = onward.reusedSocket && error.code === 'ECONNRESET';
      if (stale && again && !hasBody && request.method !== 'POST') {
        attempt(false);
      } else if (response.headersSent || response.destroyed) {
        response.destroy();
      } else {
        log('warning', 'a service does not answer', { target, error: short(error) });
        reply(response, 502, { error: `the service does not answer: ${short(error)}` });
      }
    });
    if (hasBody) request.pipe(onward);
    else onward.end();
  };
  response.on('close', () => onward.destroy());
  if (!hasBody) request.resume();
  attempt(true);
}

// What a close code may be handed on as: two of them are never sent (RFC 6455, 7.4.1).
const code = (received) => ({ 1005: 1000, 1006: 1011 })[received] ?? received;

function relay(request, socket, head, target, accept) {
  const WebSocket = require('ws');
  const far = new WebSocket(target.replace(/^http/, 'ws'), { perMessageDeflate: false });
  let near;
  far.on('open', () => {
    accept(request, socket, head, (opened) => {
      near = opened;
      near.on('message', (data, binary) => {
        if (far.readyState === WebSocket.OPEN) far.send(data, { binary });
      });
      near.on('close', (received) => far.close(code(received)));
    });
  });
  far.on('message', (data, binary) => near?.send(data, { binary }));
  far.on('close', (received) => near?.close(code(received)));
  far.on('error', (error) => {
    log('warning', 'a service takes no WebSocket', { target, error: short(error) });
    if (near) near.close(1011);
    else socket.end('HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });
  socket.on('error', () => far.terminate());
}

module.exports = { forward, relay };
