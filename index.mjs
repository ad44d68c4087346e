// The package for `import`; index.js is the same for `require`.
import fusionSqlite from './index.js'

export const {
  DatabaseSync,
  HardenedDatabase,
  Session,
  StatementSync,
  appendAgentLogs,
  backup,
  check,
  constants,
  engineInfo,
  errorLog,
  protectNodeSqlite,
  recover,
  restore,
} = fusionSqlite
export default fusionSqlite
