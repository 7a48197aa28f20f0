// Written by berth.platform.pm2; changes are overwritten.
// Loaded before the application: its secrets become variables of its environment, which neither PM2
// nor its list of processes ever sees.
'use strict';
const fs = require('fs');
// In cluster mode PM2 hands over the environment as one variable, and unpacks it later.
const given = process.env.pm2_env ? JSON.parse(process.env.pm2_env) : process.env;
if (given.BERTH_SECRETS) {
  Object.assign(process.env, JSON.parse(fs.readFileSync(given.BERTH_SECRETS, 'utf8')));
}
