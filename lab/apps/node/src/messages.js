// Kafka: a message is sent, and has arrived when this very process has read it again.
'use strict';
const os = require('os');
const { log, short } = require('./log');

const PATIENCE = 3000;

class Messages {
  constructor({ brokers, user, password, mechanism, topics, group }, service, registry) {
    const { Kafka, Partitioners, logLevel } = require('kafkajs');
    const client = new Kafka({
      clientId: service,
      brokers,
      ...(user ? { sasl: { mechanism, username: user, password } } : {}),
      connectionTimeout: PATIENCE,
      requestTimeout: 10000,
      retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 8 },
      logLevel: logLevel.ERROR,
      logCreator: () => (entry) => {
        log('warning', 'kafka', { detail: entry.log.message, error: entry.log.error });
      },
    });
    this.service = service;
    this.registry = registry;
    this.topics = topics;
    this.expected = new Map();
    this.seen = 0;
    this.trouble = 'it is not connected yet';
    this.closed = false;
    this.producer = client.producer({
      createPartitioner: Partitioners.DefaultPartitioner,
      allowAutoTopicCreation: false,
    });
    // Each process has a group of its own. In one for all of them a process would not read what it
    // sent, and would wait whenever another one starts or stops.
    this.unique = `${os.hostname()}.${process.pid}.${Date.now().toString(36)}`;
    this.sent = 0;
    this.consumer = client.consumer({
      groupId: `${group}.${this.unique}`,
      allowAutoTopicCreation: false,
      sessionTimeout: 10000,
      heartbeatInterval: 2000,
      maxWaitTimeInMs: 500,
    });
    this.consumer.on('consumer.crash', ({ payload }) => {
      this.trouble = short(payload.error);
      if (!payload.restart) this.start();
    });
    this.consumer.on('consumer.group_join', () => {
      this.trouble = '';
    });
    this.start();
  }

  // Until it works: Kafka may start after its services do.
  async start() {
    while (!this.closed) {
      try {
        await this.producer.connect();
        await this.consumer.connect();
        await this.consumer.subscribe({ topics: this.topics });
        await this.consumer.run({ autoCommit: false, eachMessage: (each) => this.read(each) });
        return;
      } catch (error) {
        this.trouble = short(error);
        log('warning', 'kafka', { error: this.trouble });
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  }

  async read({ message }) {
    this.seen += 1;
    const framed = this.registry && message.value?.[0] === 0;
    try {
      const body = framed
        ? await this.registry.decode(message.value)
        : JSON.parse(message.value.toString());
      this.expected.get(body.id)?.(body);
    } catch (error) {
      log('warning', 'a message cannot be read', { error: short(error) });
    }
  }

  async use(given) {
    if (this.trouble) throw new Error(this.trouble);
    this.sent += 1;
    const id = `${given}.${this.unique}.${this.sent}`;
    const message = { service: this.service, id };
    const value = this.registry
      ? await this.registry.encode(message)
      : JSON.stringify(message);
    let timer;
    const arrived = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('a message has not come back')), PATIENCE);
      this.expected.set(id, resolve);
    });
    arrived.catch(() => {});
    try {
      const topic = this.topics[0];
      const [sent] = await this.producer.send({ topic, messages: [{ key: id, value }] });
      await arrived;
      return { topic, message: id, partition: sent.partition, offset: sent.baseOffset };
    } finally {
      clearTimeout(timer);
      this.expected.delete(id);
    }
  }

  async close() {
    this.closed = true;
    await Promise.all([this.consumer.disconnect(), this.producer.disconnect()]);
  }
}

module.exports = { Messages };
