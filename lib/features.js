'use strict'

// Where the versions of Node disagree: which way the node:sqlite of the Node that runs goes. It is
// asked itself, when the answer is first needed. Without one, the newest way is right. No question
// runs SQL, which subscribers to `sqlite.db.query` would see.
//
// | property | node:sqlite has it since |
// |---|---|
// | `exactResults` | 26.8 |
// | `persistentOption` | 26.8 |
// | `undefinedIsNull`, `integerLengths`, `resizeRefused`, `sessionNeedsOpen` | 26.10 |
// | `aggregateNeedsOptions` | 26.12 |

const { binding } = require('./native.js')
const { realNodeSqlite } = require('./original-node-sqlite.js')

/** Whether `probe` finds what it looks for in an empty database in memory. */
function found(probe) {
  const sqlite = realNodeSqlite()
  if (sqlite === undefined) return true
  const db = new sqlite.DatabaseSync(':memory:')
  try {
    return probe(db)
  } finally {
    if (db.isOpen !== false) db.close()
  }
}

/** What `body` throws. */
function thrown(body) {
  try {
    body()
    return undefined
  } catch (error) {
    return error
  }
}

const probes = {
  /** `undefined` binds NULL; before, it could not be bound. */
  undefinedIsNull(db) {
    let isBound = false
    const values = {
      a: undefined,
      get b() {
        isBound = true
        throw new Error('nothing is to be run')
      },
    }
    thrown(() => db.prepare('SELECT $a, $b').get(values))
    return isBound
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
  /** A function's `length` that is no integer is refused; before, it was taken for some number. */
  integerLengths: (db) =>
    thrown(() =>
      db.function(
        'f',
        Object.defineProperty(() => 1, 'length', { value: '1' }),
      ),
    ) !== undefined,
  /** `aggregate()` checks its name and options first; before, any name would do, and reading the options failed. */
  aggregateNeedsOptions: (db) => thrown(() => db.aggregate?.('f'))?.code === 'ERR_INVALID_ARG_TYPE',
  /** `deserialize()` refuses a buffer that its options' getters resize or detach. */
  resizeRefused(db) {
    if (typeof db.deserialize !== 'function') return false
    const buffer = new Uint8Array(8)
    const options = {
      get dbName() {
        structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
        return 'main'
      },
    }
    return thrown(() => db.deserialize(buffer, options))?.code === 'ERR_INVALID_STATE'
  },
  /** `createSession()` looks whether the database is open before it looks at its arguments. */
  sessionNeedsOpen(db) {
    db.close()
    return thrown(() => db.createSession(1))?.code === 'ERR_INVALID_STATE'
  },
}

/** Whether this is Node `major`.`minor` or newer. */
function isSince(major, minor) {
  const [ownMajor, ownMinor] = process.versions.node.split('.').map(Number)
  return ownMajor > major || (ownMajor === major && ownMinor >= minor)
}

const features = {
  /**
   * An integer that is not safe is refused where -2^63 and results of `run()` were rounded before.
   * By version, because the native side has to know beforehand.
   */
  exactResults: isSince(26, 8),
}
if (features.exactResults) binding.refuseSmallest()

const answers = {}
for (const [name, probe] of Object.entries(probes)) {
  Object.defineProperty(features, name, { get: () => (answers[name] ??= found(probe)) })
}

module.exports = { features }
