'use strict'

require('./lib/supported-node.js')

const { appendAgentLogs } = require('./lib/append.js')
const { backup } = require('./lib/backup.js')
const { backupFile, restore } = require('./lib/backups.js')
const { check } = require('./lib/check.js')
const { constants } = require('./lib/constants.js')
const { DatabaseSync } = require('./lib/database-sync.js')
const { fileInfo } = require('./lib/file-info.js')
const { HardenedDatabase } = require('./lib/hardened-database.js')
const { pageMapSvg } = require('./lib/doctor/svg.js')
const {
  binding: { engineInfo, errorLog },
} = require('./lib/native.js')
const { pageMap } = require('./lib/page-map.js')
const { protectNodeSqlite } = require('./lib/protect.js')
const { recover } = require('./lib/repair.js')
const { AGENT_LOG_SCHEMA } = require('./lib/schema.js')
const { Session } = require('./lib/session.js')
const { StatementSync } = require('./lib/statement-sync.js')

module.exports = {
  AGENT_LOG_SCHEMA,
  DatabaseSync,
  HardenedDatabase,
  Session,
  StatementSync,
  appendAgentLogs,
  backup,
  backupFile,
  check,
  constants,
  engineInfo,
  errorLog,
  fileInfo,
  pageMap,
  pageMapSvg,
  protectNodeSqlite,
  recover,
  restore,
}
