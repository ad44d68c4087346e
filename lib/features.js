'use strict'

// Where the versions of Node disagree: which way the node:sqlite of the Node that runs goes. It is
// asked itself, when the answer is first needed. Without one, the newest way is right.
//
// | property | node:sqlite has it since |
// |---|---|
// | `undefinedIsNull` | 26.10 |
// | `exactResults` | 26.8 |
// | `persistentOption` | 26.8 |

const { realNodeSqlite } = require('./builtin.js')

/** Whether `probe` finds what it looks for in an empty database in memory. */
function found(probe) {
  const sqlite = realNodeSqlite()
  if (sqlite === undefined) return true
  const db = new sqlite.DatabaseSync(':memory:')
  try {
    return probe(db)
  } finally {
    db.close()
  }
}

function throws(body) {
  try {
    body()
    return false
  } catch {
    return true
  }
}

const probes = {
  /** `undefined` binds NULL; before, it could not be bound. */
  undefinedIsNull: (db) => !throws(() => db.prepare('SELECT ?').get(undefined)),
  /** `run()` throws where a result is no safe integer; before, it rounded. */
  exactResults(db) {
    db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY)')
    return throws(() => db.prepare('INSERT INTO t VALUES (9007199254740993)').run())
  },
  /** `prepare()` reads the option `persistent`. */
  persistentOption(db) {
    let isRead = false
    db.prepare('SELECT 1', {
      get persistent() {
        isRead = true
        return false
      },
    })
    return isRead
  },
}

const answers = {}
const features = {}
for (const [name, probe] of Object.entries(probes)) {
  Object.defineProperty(features, name, { get: () => (answers[name] ??= found(probe)) })
}

module.exports = { features }
