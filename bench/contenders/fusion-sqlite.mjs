// (d) This package with its defaults: entries go to the writer thread. `appendMany` awaits the
// commit; `append` is fire and forget, and waits for room when the queue is full.

import { HardenedDatabase } from '../../index.mjs'

export const chunkSize = 1000

export function open(file, setup) {
  const db = new HardenedDatabase(file)
  db.exec(setup)

  const append = (row) => {
    if (db.appendAgentLog(row)) return undefined
    return db.flushAgentLogs().then(() => append(row))
  }
  return {
    append,
    appendMany: async (rows) => {
      const { committed } = await db.appendAgentLogs(rows)
      if (committed !== rows.length) throw new Error(`${rows.length - committed} rows were rejected`)
    },
    start: () => db.checkpoint('truncate'),
    drain: () => db.flushAgentLogs(),
    count: () => db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n,
    close: () => db.closeAsync(),
    database: db,
  }
}
