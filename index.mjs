// The package for `import`; index.js is the same for `require`.
import fusionSqlite from './index.js'

export const { DatabaseSync, HardenedDatabase, StatementSync, appendAgentLogs, constants, engineInfo, errorLog } =
  fusionSqlite
export default fusionSqlite
