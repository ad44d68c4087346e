'use strict';

const { DatabaseSync } = require('./lib/database-sync.js');
const { StatementSync } = require('./lib/statement-sync.js');

module.exports = { DatabaseSync, StatementSync };
