'use strict'

require('./lib/supported-node.js')

/** Loads what draws when it draws: an `import` takes every export. */
function pageMapSvg(map, options) {
  return require('./lib/doctor/svg.js').pageMapSvg(map, options)
}

/** The exports, each loaded when it is first used: a process pays for what it uses. */
const exported = {
  AGENT_LOG_SCHEMA: () => require('./lib/schema.js').AGENT_LOG_SCHEMA,
  DatabaseSync: () => require('./lib/database-sync.js').DatabaseSync,
  HardenedDatabase: () => require('./lib/hardened-database.js').HardenedDatabase,
  Session: () => require('./lib/session.js').Session,
  StatementSync: () => require('./lib/statement-sync.js').StatementSync,
  appendAgentLogs: () => require('./lib/append-by-path.js').appendAgentLogs,
  backup: () => require('./lib/backup-api.js').backup,
  backupFile: () => require('./lib/backup-files.js').backupFile,
  check: () => require('./lib/check.js').check,
  constants: () => require('./lib/constants.js').constants,
  engineInfo: () => require('./lib/native.js').binding.engineInfo,
  errorLog: () => require('./lib/native.js').binding.errorLog,
  fileInfo: () => require('./lib/file-info.js').fileInfo,
  pageMap: () => require('./lib/page-map.js').pageMap,
  pageMapSvg: () => pageMapSvg,
  protectNodeSqlite: () => require('./lib/node-sqlite-locks.js').protectNodeSqlite,
  recover: () => require('./lib/repair.js').recover,
  restore: () => require('./lib/backup-files.js').restore,
}

for (const [name, load] of Object.entries(exported)) {
  const replace = (value) => {
    Object.defineProperty(exports, name, { value, configurable: true, enumerable: true, writable: true })
    return value
  }
  Object.defineProperty(exports, name, {
    configurable: true,
    enumerable: true,
    get: () => replace(load()),
    set: replace,
  })
}

// Never runs: an `import` of this file reads the names from it.
if (exports === undefined) {
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
}
