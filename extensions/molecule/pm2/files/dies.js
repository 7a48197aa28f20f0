'use strict';
console.error('last words: the database is on fire');
process.exit(3);
