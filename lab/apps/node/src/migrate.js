// Brings the database to the service's schema. It may be run again, and by several at once.
// Fails with MIGRATE_FAIL=1, which is how tests get a release whose migration fails.
'use strict';
const { log, short } = require('./log');
const { read } = require('./settings');

async function migrate({ databaseUrl, table, failMigration }) {
  if (failMigration) throw new Error('the migration fails as told');
  if (!databaseUrl) {
    log('info', 'there is no database to migrate');
    return;
  }
  const { Client } = require('pg');
  const client = new Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10000 });
  await client.connect();
  try {
    await client.query('BEGIN');
    // CREATE … IF NOT EXISTS races with itself.
    await client.query('SELECT pg_advisory_xact_lock(72617)');
    await client.query(
      `CREATE TABLE IF NOT EXISTS ${table}
       (id text PRIMARY KEY, times bigint NOT NULL, made timestamptz NOT NULL)`,
    );
    await client.query(`CREATE INDEX IF NOT EXISTS ${table}_made ON ${table} (made)`);
    await client.query('COMMIT');
    log('info', 'migrated', { table });
  } finally {
    await client.end();
  }
}

migrate(read(process.env)).catch((error) => {
  log('error', 'migration failed', { error: short(error) });
  process.exitCode = 1;
});
