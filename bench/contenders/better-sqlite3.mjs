// (c) better-sqlite3 in transactions of 1,000 rows on the event loop, at synchronous = NORMAL.

import Database from 'better-sqlite3'
import { bumpSql, insertSql, values } from '../rows.mjs'

export const chunkSize = 1000

export function open(file, setup) {
  const db = new Database(file)
  db.pragma('busy_timeout = 5000')
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = NORMAL')
  db.pragma('foreign_keys = ON')
  db.exec(setup)
  db.pragma('wal_checkpoint(TRUNCATE)')
  const insert = db.prepare(insertSql)
  const bump = db.prepare(bumpSql)
  const appendMany = db.transaction((rows) => {
    for (const row of rows) insert.run(...values(row))
    bump.run(Date.now())
  }).immediate

  return {
    append: (row) => appendMany([row]),
    appendMany,
    drain() {},
    count: () => db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n,
    close: () => db.close(),
  }
}
