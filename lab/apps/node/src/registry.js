// A schema registry, by the REST interface that Confluent's and those compatible with it have, and
// messages as Avro in its framing: a zero, the schema's number, the record.
'use strict';

const PATIENCE = 3000;
const KIND = 'application/vnd.schemaregistry.v1+json';
const SCHEMA = {
  type: 'record',
  name: 'Work',
  fields: [
    { name: 'service', type: 'string' },
    { name: 'id', type: 'string' },
  ],
};

// An Avro string: its length, doubled and seven bits a byte, and its text.
function string(text) {
  const data = Buffer.from(text);
  const size = [];
  let rest = data.length * 2;
  for (; rest > 127; rest >>>= 7) size.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...size, rest]), data]);
}

function strings(data, count) {
  const found = [];
  let at = 0;
  while (found.length < count) {
    let doubled = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data[at];
      at += 1;
      doubled |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    const end = at + doubled / 2;
    found.push(data.toString('utf8', at, end));
    at = end;
  }
  return found;
}

class Registry {
  constructor(url, subject) {
    const address = new URL(url);
    this.headers = { accept: KIND, 'content-type': KIND };
    if (address.username) {
      const pair = `${decodeURIComponent(address.username)}:${decodeURIComponent(address.password)}`;
      this.headers.authorization = `Basic ${Buffer.from(pair).toString('base64')}`;
    }
    this.url = `${address.origin}${address.pathname.replace(/\/+$/, '')}`;
    this.subject = subject;
    this.known = new Map();
    this.number = null;
  }

  async ask(path, options = {}) {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(this.url + path, { headers: this.headers, signal, ...options });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.message || `it answers ${answer.status}`);
    return body;
  }

  // The number of the schema, which is registered if it is not.
  async register() {
    const body = JSON.stringify({ schema: JSON.stringify(SCHEMA) });
    const path = `/subjects/${encodeURIComponent(this.subject)}/versions`;
    this.number = (await this.ask(path, { method: 'POST', body })).id;
    return this.number;
  }

  async schema(number) {
    const schema = JSON.parse((await this.ask(`/schemas/ids/${number}`)).schema);
    this.known.set(number, schema);
    return schema;
  }

  async use() {
    const number = await this.register();
    const schema = await this.schema(number);
    if (schema.name !== SCHEMA.name) throw new Error(`schema ${number} is another one`);
    return { subject: this.subject, schema: number };
  }

  async encode({ service, id }) {
    const number = this.number ?? (await this.register());
    const head = Buffer.alloc(5);
    head.writeUInt32BE(number, 1);
    return Buffer.concat([head, string(service), string(id)]);
  }

  // By the schema that the message names, which its writer has registered.
  async decode(data) {
    const number = data.readUInt32BE(1);
    const { fields } = this.known.get(number) ?? (await this.schema(number));
    const values = strings(data.subarray(5), fields.length);
    return Object.fromEntries(fields.map((field, index) => [field.name, values[index]]));
  }

  async close() {}
}

module.exports = { Registry };
