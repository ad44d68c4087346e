// The package for `import`; index.js is the same for `require`.
import fusionSqlite from './index.js'

export const {
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
} = fusionSqlite
export default fusionSqlite
