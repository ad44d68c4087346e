import fusionSqlite = require('fusion-sqlite')
import withBinding = require('fusion-sqlite/with-binding')
require('fusion-sqlite/register')

const { HardenedDatabase, engineInfo } = fusionSqlite
const db = new HardenedDatabase('unused.db')
const receipt: Promise<{ committed: number }> = db.appendAgentLogs([{ taskId: 'T', text: 'typed', type: 'text' }])
const lock: 'ofd' | 'posix' | 'windows' = engineInfo().lockKind
export const used = [receipt, lock, withBinding]
