'use strict'

const { engineInfo, errorLog } = require('./binding.js')
const { appendAgentLogs } = require('./lib/append.js')
const { DatabaseSync } = require('./lib/database-sync.js')
const { HardenedDatabase } = require('./lib/hardened-database.js')
const { protectNodeSqlite } = require('./lib/protect.js')
const { StatementSync } = require('./lib/statement-sync.js')

module.exports = {
  DatabaseSync,
  HardenedDatabase,
  StatementSync,
  appendAgentLogs,
  engineInfo,
  errorLog,
  protectNodeSqlite,
}
