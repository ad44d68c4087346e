// (a) Fusion 0.13's way: every entry prepares and autocommits an INSERT, then reads and autocommits
// the change counter, on the event loop, through node:sqlite with its defaults.

import { DatabaseSync } from 'node:sqlite'
import { insertSql, values } from '../rows.mjs'

export const chunkSize = 1

export function open(file, setup) {
  const db = new DatabaseSync(file)
  db.exec('PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON')
  db.exec(setup)
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')

  const append = (row) => {
    db.prepare(insertSql).run(...values(row))
    const { value } = db.prepare("SELECT value FROM __meta WHERE key = 'lastModified'").get()
    const next = Math.max(Date.now(), Number(value) + 1)
    db.prepare("UPDATE __meta SET value = ? WHERE key = 'lastModified'").run(String(next))
  }
  return {
    append,
    appendMany: (rows) => rows.forEach(append),
    drain() {},
    count: () => db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n,
    close: () => db.close(),
  }
}
