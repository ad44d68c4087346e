// DatabaseSync against node:sqlite, call by call.
//
// Both run in this process, in turn, for REPEATS rounds of each case; the table shows the median
// time of a call and the ratio of the medians. Below 1, this package is faster.
//
// Usage: node bench/sqlite.mjs [name of a case]

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as node from 'node:sqlite'
import ours from '../index.js'

const REPEATS = 31
const ROUND_MS = 8

const directory = mkdtempSync(join(tmpdir(), 'fusion-sqlite-bench-'))

const INSERT = 'INSERT INTO agentLogEntries (taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)'
const SELECT_ONE = 'SELECT id, taskId, timestamp, type FROM agentLogEntries WHERE id = ?'
const SELECT_WIDE = 'SELECT * FROM agentLogEntries WHERE id > ? ORDER BY id LIMIT ?'
const SELECT_NARROW = 'SELECT id, type FROM agentLogEntries ORDER BY id LIMIT ?'
const ENTRY = [
  'FN-042',
  '2026-11-23T12:00:00.000Z',
  'Read src/store.ts and found three callers of the function that has to change.',
  'text',
  null,
  'executor',
]

function open({ DatabaseSync }, path = ':memory:') {
  const db = new DatabaseSync(path)
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    CREATE TABLE agentLogEntries (id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL,
      timestamp TEXT NOT NULL, text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT);
    CREATE INDEX idxTask ON agentLogEntries (taskId)`)
  return db
}

function filled(api) {
  const db = open(api)
  db.exec('BEGIN')
  for (let i = 0; i < 2000; i++) db.prepare(INSERT).run(...ENTRY)
  db.exec('COMMIT')
  return db
}

/** Each makes the function that is timed. */
const cases = {
  'run, autocommit, :memory:': (api) => {
    const insert = open(api).prepare(INSERT)
    return () => insert.run(...ENTRY)
  },
  'run, in a transaction, file': (api, name) => {
    const db = open(api, join(directory, `${name}.db`))
    db.exec('BEGIN')
    const insert = db.prepare(INSERT)
    return () => insert.run(...ENTRY)
  },
  'get, 4 columns': (api) => {
    const select = filled(api).prepare(SELECT_ONE)
    let id = 0
    return () => select.get((id++ % 2000) + 1)
  },
  'get, nothing found': (api) => {
    const select = filled(api).prepare(SELECT_ONE)
    return () => select.get(-1)
  },
  'get, named parameter': (api) => {
    const select = filled(api).prepare(SELECT_ONE.replace('?', '$id'))
    let id = 0
    return () => select.get({ id: (id++ % 2000) + 1 })
  },
  'all, 10 rows, 7 columns': (api) => {
    const select = filled(api).prepare(SELECT_WIDE)
    return () => select.all(500, 10)
  },
  'all, 1000 rows, 7 columns': (api) => {
    const select = filled(api).prepare(SELECT_WIDE)
    return () => select.all(500, 1000)
  },
  'all, 1000 rows, 2 columns': (api) => {
    const select = filled(api).prepare(SELECT_NARROW)
    return () => select.all(1000)
  },
  'iterate, 100 rows, 7 columns': (api) => {
    const select = filled(api).prepare(SELECT_WIDE)
    return () => {
      let rows = 0
      for (const _ of select.iterate(500, 100)) rows++
      return rows
    }
  },
  'prepare + get': (api) => {
    const db = filled(api)
    let id = 0
    return () => db.prepare(SELECT_ONE).get((id++ % 2000) + 1)
  },
  'prepare + run': (api) => {
    const db = open(api)
    return () => db.prepare(INSERT).run(...ENTRY)
  },
  'prepare + all, 10 rows': (api) => {
    const db = filled(api)
    return () => db.prepare(SELECT_WIDE).all(500, 10)
  },
  'prepare, text never seen before': (api) => {
    const db = filled(api)
    let i = 0
    return () => db.prepare(`${SELECT_ONE} -- ${i++}`)
  },
  'function of 2 numbers, 1000 rows': (api) => {
    const db = filled(api)
    db.function('plus', (a, b) => a + b)
    const select = db.prepare('SELECT sum(plus(id, 1.5)) s FROM (SELECT id FROM agentLogEntries LIMIT 1000)')
    return () => select.get()
  },
  'function of a text, 1000 rows': (api) => {
    const db = filled(api)
    db.function('shout', (text) => text.toUpperCase())
    const select = db.prepare('SELECT count(shout(type)) n FROM (SELECT type FROM agentLogEntries LIMIT 1000)')
    return () => select.get()
  },
  'aggregate, 1000 rows': (api) => {
    const db = filled(api)
    db.aggregate('total_of', { start: 0, step: (total, value) => total + value })
    const select = db.prepare('SELECT total_of(id) n FROM (SELECT id FROM agentLogEntries LIMIT 1000)')
    return () => select.get()
  },
  'exec BEGIN + COMMIT, :memory:': (api) => {
    const db = open(api)
    return () => {
      db.exec('BEGIN')
      db.exec('COMMIT')
    }
  },
}

function time(body, calls) {
  const start = process.hrtime.bigint()
  for (let i = 0; i < calls; i++) body()
  return Number(process.hrtime.bigint() - start) / calls
}

/** How many calls take a round's time, found while the code warms up. */
function calibrate(body) {
  let calls = 1
  let each = time(body, calls)
  while (each * calls < ROUND_MS * 1e6) {
    calls *= 2
    each = time(body, calls)
  }
  return calls
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1]
}

function nanoseconds(value) {
  return value < 1e4 ? `${value.toFixed(0)} ns` : `${(value / 1e3).toFixed(1)} µs`
}

console.log(`Node ${process.versions.node}, its SQLite ${process.versions.sqlite}; fusion-sqlite on`)
console.log(
  `SQLite ${ours.DatabaseSync ? new ours.DatabaseSync(':memory:').prepare('SELECT sqlite_version() v').get().v : ''}\n`,
)
console.log('| call | node:sqlite | fusion-sqlite | ratio |')
console.log('|---|---:|---:|---:|')
try {
  for (const [name, make] of Object.entries(cases)) {
    if (process.argv[2] && !name.includes(process.argv[2])) continue
    const bodies = [make(node, 'node'), make(ours, 'ours')]
    const calls = Math.min(...bodies.map(calibrate))
    const times = [[], []]
    for (let round = 0; round < REPEATS; round++) {
      const order = round % 2 === 0 ? [0, 1] : [1, 0]
      for (const which of order) times[which].push(time(bodies[which], calls))
    }
    const [theirs, here] = times.map(median)
    console.log(`| ${name} | ${nanoseconds(theirs)} | ${nanoseconds(here)} | ${(here / theirs).toFixed(2)} |`)
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}
