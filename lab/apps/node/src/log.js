// One line of JSON on the standard output for each event, without the secrets of the environment.
'use strict';
const { secrets } = require('./settings');

const HIDDEN = secrets(process.env);

function hide(text) {
  return HIDDEN.reduce((shown, secret) => shown.replaceAll(secret, '***'), String(text));
}

// What went wrong, in one line; several addresses may each have failed in their own way.
function short(error) {
  const inner = (error.errors || []).map((each) => each.message).join(', ');
  const text = error.message || inner || error.code || error.name || String(error);
  return hide(text).replace(/\s+/g, ' ').slice(0, 200);
}

function log(level, message, fields = {}) {
  const line = JSON.stringify({ time: new Date().toISOString(), level, message, ...fields });
  process.stdout.write(`${hide(line)}\n`);
}

module.exports = { hide, log, short };
