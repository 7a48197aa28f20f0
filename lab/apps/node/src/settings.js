// What the process is told, by its environment and nothing else. What is not there is not used.
'use strict';
const fs = require('fs');
const os = require('os');
const path = require('path');

// Addresses that are not those of other services.
const NOT_PEERS = ['SCHEMA_REGISTRY_URL', 'S3_URL'];

const list = (text) => (text || '').split(',').map((each) => each.trim()).filter(Boolean);

// As the build has stamped it; sources that were not built have their package's.
function version() {
  const stamp = path.join(__dirname, 'VERSION');
  if (fs.existsSync(stamp)) return fs.readFileSync(stamp, 'utf8').trim();
  return require('../package.json').version;
}

function read(env) {
  const name = env.SERVICE_NAME || 'service';
  const peers = {};
  for (const [key, value] of Object.entries(env)) {
    if (key.endsWith('_URL') && !NOT_PEERS.includes(key) && value.startsWith('http://')) {
      peers[key.slice(0, -4).toLowerCase().replaceAll('_', '-')] = value.replace(/\/+$/, '');
    }
  }
  return {
    name,
    version: version(),
    host: os.hostname(),
    bind: env.BIND || '127.0.0.1',
    port: Number(env.PORT || 3000),
    // What the proxy in front leaves before the paths.
    base: env.BASE_PATH || '/api',
    databaseUrl: env.DATABASE_URL,
    // Services that share a database have a table each.
    table: `${name.replace(/\W/g, '_')}_work`,
    redisUrl: env.REDIS_URL,
    redisPrefix: env.REDIS_PREFIX || `${name}:`,
    kafka: {
      brokers: list(env.KAFKA_BROKERS),
      user: env.KAFKA_USER,
      password: env.KAFKA_PASSWORD,
      mechanism: env.KAFKA_MECHANISM || 'scram-sha-512',
      // It sends to the first, and reads all of them.
      topics: list(env.KAFKA_TOPICS || `${name}.events`),
      group: env.KAFKA_GROUP || name,
    },
    registryUrl: env.SCHEMA_REGISTRY_URL,
    peers,
    drainSeconds: Number(env.DRAIN_SECONDS || 20),
    lingerMilliseconds: Number(env.LINGER_MILLISECONDS || 500),
    logRequests: env.LOG_REQUESTS === '1',
    failStart: env.START_FAIL === '1',
    failReady: env.READY_FAIL === '1',
    failMigration: env.MIGRATE_FAIL === '1',
  };
}

// Every value that must not be told to anybody.
function secrets(env) {
  const found = [env.KAFKA_PASSWORD];
  for (const value of [env.DATABASE_URL, env.REDIS_URL, env.SCHEMA_REGISTRY_URL]) {
    try {
      const { password } = new URL(value);
      found.push(password, decodeURIComponent(password));
    } catch {
      found.push(value);
    }
  }
  return found.filter(Boolean);
}

module.exports = { read, secrets };
