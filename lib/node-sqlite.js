'use strict'

// What stands in for node:sqlite: its names alone, in its order, on this package's classes.

const fusionSqlite = require('../index.js')

const NAMES = ['DatabaseSync', 'StatementSync', 'Session', 'constants', 'backup']

for (const name of NAMES) {
  if (Object.hasOwn(fusionSqlite, name)) exports[name] = fusionSqlite[name]
}
