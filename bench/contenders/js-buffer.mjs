// (b) A JavaScript buffer: 50 entries or 2 s, then one transaction on the event loop, through
// node:sqlite at synchronous = NORMAL. Statements are prepared once.

import { DatabaseSync } from 'node:sqlite'
import { bumpSql, insertSql, values } from '../rows.mjs'

const capacity = 50
const delayMs = 2000

export const chunkSize = capacity

export function open(file, setup, timed) {
  const db = new DatabaseSync(file)
  db.exec('PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
  db.exec('PRAGMA foreign_keys = ON')
  db.exec(setup)
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  const insert = db.prepare(insertSql)
  const bump = db.prepare(bumpSql)

  let buffer = []
  let timer = null
  const flush = () => {
    clearTimeout(timer)
    timer = null
    if (buffer.length === 0) return
    db.exec('BEGIN IMMEDIATE')
    for (const row of buffer) insert.run(...values(row))
    bump.run(Date.now())
    db.exec('COMMIT')
    buffer = []
  }
  const append = (row) => {
    buffer.push(row)
    if (buffer.length >= capacity) flush()
    else timer ??= setTimeout(() => timed(flush), delayMs)
  }
  return {
    append,
    appendMany: (rows) => rows.forEach(append),
    drain: () => timed(flush),
    count: () => db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n,
    close: () => db.close(),
  }
}
