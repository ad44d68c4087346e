// A contender of `npm run bench -- sqlite` in a process of its own, which holds one SQLite. Does
// what its parent asks, one thing at a time.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import path from 'node:path'
import { cases } from './sqlite-cases.mjs'

const require = createRequire(import.meta.url)
const [contender, folder, roundMs] = process.argv.slice(2)

const Database = {
  'fusion-sqlite': () => require('../index.js').DatabaseSync,
  'node:sqlite': () => process.getBuiltinModule('node:sqlite').DatabaseSync,
  'better-sqlite3': () => require('better-sqlite3'),
}[contender]()

let files = 0
let databases = []
const open = (file = ':memory:') => {
  const db = new Database(file)
  databases.push(db)
  return db
}

let body
let calls

/** Nanoseconds a call. */
function time(count) {
  const start = process.hrtime.bigint()
  for (let i = 0; i < count; i++) body()
  return Number(process.hrtime.bigint() - start) / count
}

/** A hash of a result, the same for results that a program cannot tell apart. */
function digest(result) {
  const plain = (value) => {
    if (ArrayBuffer.isView(value))
      return `hex:${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex')}`
    if (Array.isArray(value)) return value.map(plain)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)]))
  }
  return createHash('sha256')
    .update(JSON.stringify(plain(result)) ?? 'undefined')
    .digest('hex')
}

const answers = {
  about() {
    const db = new Database(':memory:')
    const { version } = db.prepare('SELECT sqlite_version() AS version').get()
    db.close()
    return { version, functions: typeof Database.prototype.function === 'function' }
  },

  /** Sets a line up and warms it up. */
  start(name) {
    const [, make] = cases.find(([known]) => known === name)
    body = make(open, path.join(folder, `${contender.replace(':', '-')}-${process.pid}-${files++}.db`))
    const result = digest(body())
    calls = 1
    let each = time(calls)
    // Until V8 has optimised what is called: some time, and some calls.
    const end = performance.now() + 4 * roundMs
    for (let warm = 1; performance.now() < end || warm < 100; warm += calls) {
      if (each * calls < roundMs * 1e6) calls *= 2
      each = time(calls)
    }
    calls = Math.max(1, Math.round((roundMs * 1e6) / each))
    return result
  },

  /** Measures a round. */
  round() {
    time(Math.max(1, calls >> 3))
    return time(calls)
  },

  end() {
    body = undefined
    for (const db of databases) db.close()
    databases = []
    globalThis.gc?.()
  },
}

process.on('message', ([question, argument]) => {
  try {
    process.send({ answer: answers[question](argument) })
  } catch (error) {
    process.send({ error: error.stack })
  }
})
process.on('disconnect', () => process.exit())
