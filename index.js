'use strict'

const { engineInfo, errorLog } = require('./binding.js')
const { appendAgentLogs } = require('./lib/append.js')
const { constants } = require('./lib/constants.js')
const { DatabaseSync } = require('./lib/database-sync.js')
const { HardenedDatabase } = require('./lib/hardened-database.js')
const { StatementSync } = require('./lib/statement-sync.js')

module.exports = {
  DatabaseSync,
  HardenedDatabase,
  StatementSync,
  appendAgentLogs,
  constants,
  engineInfo,
  errorLog,
}
