// What a service depends on. Each has `use(id)`, which really uses it and tells what it saw, and
// `close()`. The drivers are loaded only where there is something to drive.
'use strict';
const { log, short } = require('./log');
const { Messages } = require('./messages');
const { Registry } = require('./registry');

const PATIENCE = 3000;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function within(milliseconds, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} takes too long`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// A row that counts how often it was written.
class Database {
  constructor(url, table) {
    const { Pool } = require('pg');
    this.table = table;
    this.pool = new Pool({
      connectionString: url,
      max: 5,
      connectionTimeoutMillis: PATIENCE,
      query_timeout: PATIENCE,
      keepAlive: true,
    });
    // A connection that breaks while nobody uses it: the next query makes another one.
    this.pool.on('error', (error) => log('warning', 'postgresql', { error: short(error) }));
  }

  async use(id) {
    const written = await this.pool.query(
      `INSERT INTO ${this.table} (id, times, made) VALUES ($1, 1, now())
       ON CONFLICT (id) DO UPDATE SET times = ${this.table}.times + 1, made = now()
       RETURNING times`,
      [id],
    );
    const read = await this.pool.query(`SELECT times FROM ${this.table} WHERE id = $1`, [id]);
    const times = Number(read.rows[0]?.times ?? 0);
    if (times < Number(written.rows[0].times)) throw new Error('a written row cannot be read');
    return { row: id, times };
  }

  async add(name) {
    const { rows } = await this.pool.query(
      `INSERT INTO ${this.table} (id, times, made) VALUES ($1, 1, now()) RETURNING made`,
      [`item.${name}`],
    );
    return { name, made: rows[0].made };
  }

  // The latest first.
  async items() {
    const { rows } = await this.pool.query(
      `SELECT substr(id, 6) AS name, made FROM ${this.table} WHERE id LIKE 'item.%'
       ORDER BY made DESC LIMIT 1000`,
    );
    return rows;
  }

  async close() {
    await this.pool.end();
  }
}

// A key below the service's own prefix.
class Cache {
  constructor(url, prefix) {
    const Redis = require('ioredis');
    this.prefix = prefix;
    this.trouble = '';
    this.client = new Redis(url, {
      connectTimeout: PATIENCE,
      commandTimeout: PATIENCE,
      maxRetriesPerRequest: 1,
      // It asks for INFO, which services are not allowed.
      enableReadyCheck: false,
      retryStrategy: (times) => Math.min(times * 100, 1000),
    });
    this.client.on('error', (error) => {
      if (this.trouble !== short(error)) log('warning', 'redis', { error: short(error) });
      this.trouble = short(error);
    });
    this.client.on('ready', () => {
      this.trouble = '';
    });
  }

  async use(id) {
    const key = `${this.prefix}${id}`;
    try {
      await this.client.set(key, id, 'EX', 600);
      const value = await this.client.get(key);
      if (value !== id) throw new Error('a key that was set has another value');
      return { key, value };
    } catch (error) {
      // The driver would say that it has tried often enough, and not what.
      throw this.trouble ? new Error(this.trouble) : error;
    }
  }

  async close() {
    await this.client.quit().catch(() => this.client.disconnect());
  }
}

// Another service.
class Peer {
  constructor(url) {
    this.url = url;
  }

  async use() {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(`${this.url}/health/live`, { signal });
    const body = await answer.json();
    if (answer.status !== 200 || body.status !== 'ok') throw new Error('it is not alive');
    return { alive: true };
  }

  async close() {}
}

class Backends {
  constructor(settings) {
    this.all = {};
    if (settings.databaseUrl) {
      this.all.postgresql = new Database(settings.databaseUrl, settings.table);
    }
    if (settings.redisUrl) this.all.redis = new Cache(settings.redisUrl, settings.redisPrefix);
    if (settings.registryUrl) {
      const subject = `${settings.kafka.topics[0]}-value`;
      this.all['schema-registry'] = new Registry(settings.registryUrl, subject);
    }
    if (settings.kafka.brokers.length) {
      this.all.kafka = new Messages(settings.kafka, settings.name, this.all['schema-registry']);
    }
    for (const [name, url] of Object.entries(settings.peers)) this.all[name] = new Peer(url);
  }

  // Uses all of them at once, so that one that hangs does not hide the others.
  async use(id) {
    const checks = {};
    const failing = [];
    const look = async ([name, backend]) => {
      const began = performance.now();
      try {
        const saw = await within(2 * PATIENCE, backend.use(id), name);
        checks[name] = { status: 'ok', ...saw };
      } catch (error) {
        checks[name] = { status: 'failed', error: short(error) };
        failing.push(name);
      }
      checks[name].milliseconds = Math.round(performance.now() - began);
    };
    await Promise.all(Object.entries(this.all).map(look));
    return { failing: failing.sort(), checks };
  }

  async close() {
    const closing = Object.values(this.all).map((backend) => backend.close().catch(() => {}));
    await Promise.race([Promise.all(closing), sleep(PATIENCE)]);
  }
}

module.exports = { Backends, sleep };
