// A contender of `npm run bench -- open` in a process of its own. Does what its parent asks; with a
// file as third argument opens that, prints the milliseconds and ends; as `make` makes the databases.

import { copyFileSync, existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(import.meta.url)
const [contender, folder, argument] = process.argv.slice(2)

const node = () => process.getBuiltinModule('node:sqlite').DatabaseSync
const ours = (name) => require('../index.js')[name]
const openers = {
  'node:sqlite': () => (file) => new (node())(file),
  'better-sqlite3': () => {
    const Database = require('better-sqlite3')
    return (file) => new Database(file)
  },
  DatabaseSync: () => {
    const Database = ours('DatabaseSync')
    return (file) => new Database(file)
  },
  HardenedDatabase: () => {
    const Database = ours('HardenedDatabase')
    return (file) => new Database(file)
  },
  'HardenedDatabase, no check': () => {
    const Database = ours('HardenedDatabase')
    return (file) => new Database(file, { startupCheck: 'off' })
  },
}

const read = (db) => db.prepare('SELECT count(*) AS n FROM t').get()

function make() {
  const schema = `PRAGMA journal_mode = WAL; CREATE TABLE t (x);
    CREATE TABLE agentLogEntries (id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT);
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT)`
  const small = new (node())(path.join(folder, 'small.db'))
  small.exec(schema)
  small.close()
  const large = new (node())(path.join(folder, 'large.db'))
  large.exec(schema)
  large.exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${Number(argument) / 1024})
    INSERT INTO agentLogEntries (taskId, timestamp, text, type) SELECT 'FN-' || i, 'now', hex(randomblob(450)), 'text' FROM n`)
  large.close()
}

const descriptors = () => readdirSync('/dev/fd').length

/** A database of this contender's own. */
function copy(name) {
  const to = path.join(folder, `${contender.replaceAll(/\W/g, '')}-${name}.db`)
  if (!existsSync(to)) copyFileSync(path.join(folder, 'small.db'), to)
  return to
}

const held = []
let open
const answers = {
  /** Has so many databases open. */
  hold(count) {
    while (held.length < count) {
      const db = open(copy(held.length))
      read(db)
      held.push(db)
    }
  },

  /** Opens one more, reads and closes it. */
  cycle() {
    const file = copy('more')
    const times = [performance.now()]
    const db = open(file)
    times.push(performance.now())
    read(db)
    times.push(performance.now())
    db.close()
    times.push(performance.now())
    const [began, opened, queried, closed] = times
    return { open: opened - began, query: queried - opened, close: closed - queried }
  },

  /** Counts the descriptors of a database among `count`, and with entries being written. */
  async count(count) {
    const before = descriptors()
    answers.hold(count)
    // The writers have looked at their files.
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const idle = (descriptors() - before) / count
    if (typeof held[0].appendAgentLogs !== 'function') return { idle, atWork: null }
    const entry = { taskId: 'FN-1', text: 'text', type: 'text' }
    await Promise.all(held.map((db) => db.appendAgentLogs([entry])))
    return { idle, atWork: (descriptors() - before) / count }
  },
}

if (contender === 'make') {
  make()
} else {
  open = openers[contender]()
  if (argument === undefined) {
    process.on('message', async ([question, value]) => {
      try {
        process.send({ answer: (await answers[question](value)) ?? null })
      } catch (error) {
        process.send({ error: error.stack })
      }
    })
    process.on('disconnect', () => process.exit())
  } else {
    const started = performance.now()
    const db = open(argument)
    read(db)
    db.close()
    console.log(performance.now() - started)
  }
}
