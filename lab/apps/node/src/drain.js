// Stops a server without losing a request: what was begun is finished, and clients that keep their
// connections are told to make new ones, elsewhere.
'use strict';
const net = require('net');
const { sleep } = require('./backends');

class Drain {
  constructor(server, { drainSeconds, lingerMilliseconds }) {
    this.server = server;
    this.limit = drainSeconds * 1000;
    this.linger = lingerMilliseconds;
    this.begun = false;
    this.connections = new Map();
    this.responses = new Set();
    this.sockets = new Set();
    server.on('connection', (connection) => {
      this.connections.set(connection, 0);
      connection.on('close', () => this.connections.delete(connection));
    });
    server.on('request', ({ socket }, response) => {
      this.connections.set(socket, (this.connections.get(socket) ?? 0) + 1);
      this.responses.add(response);
      if (this.begun) response.setHeader('connection', 'close');
      response.on('close', () => {
        this.responses.delete(response);
        if (this.connections.has(socket)) {
          this.connections.set(socket, this.connections.get(socket) - 1);
        }
      });
    });
  }

  // A WebSocket, which ends with "going away" (RFC 6455, 7.4.1).
  follow(socket) {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    if (this.begun) socket.close(1001, 'going away');
  }

  // Resolves to whether everything ended by itself.
  async run() {
    this.begun = true;
    // Not the HTTP server's own, which also closes idle connections: a request may be on its way on
    // one of them. For a moment each is answered once more, and told to close by that.
    net.Server.prototype.close.call(this.server);
    for (const response of this.responses) {
      if (!response.headersSent) response.setHeader('connection', 'close');
    }
    for (const socket of this.sockets) socket.close(1001, 'going away');
    const began = performance.now();
    await sleep(this.linger);
    while (performance.now() - began < this.limit) {
      // Those of WebSockets are closed by their clients, which have two seconds for it.
      const patient = performance.now() - began < 2000;
      if (!patient) this.sockets.forEach((socket) => socket.terminate());
      for (const [connection, busy] of this.connections) {
        if (busy === 0 && !(patient && connection.upgraded)) connection.destroySoon();
      }
      if (this.connections.size === 0) return true;
      await sleep(20);
    }
    for (const connection of this.connections.keys()) connection.destroy();
    return false;
  }
}

module.exports = { Drain };
