'use strict'

// What stands in for node:sqlite: its names alone, in its order, on this package's classes.

const fusionSqlite = require('../index.js')
const { realNodeSqlite } = require('./original-node-sqlite.js')

/** This package's names, and second names of newer Nodes, which are here where node:sqlite has them. */
const NAMES = {
  Database: 'DatabaseSync',
  DatabaseSync: 'DatabaseSync',
  Statement: 'StatementSync',
  StatementSync: 'StatementSync',
  Session: 'Session',
  constants: 'constants',
  backup: 'backup',
}

const real = realNodeSqlite()
for (const [name, ours] of Object.entries(NAMES)) {
  if (name === ours || (real !== undefined && name in real)) exports[name] = fusionSqlite[ours]
}
