// One process of `bench/await.mjs`: opens its contender, reports that it is ready, and appends when
// it is told to go.

import { difference, readCounters } from './io-counters.mjs'
import { bumpSql, insertSql, setupSql, values } from './rows.mjs'

const job = JSON.parse(process.argv[2])
const row = { taskId: 'FN-1', timestamp: '2026-01-01T00:00:00.000Z', text: 'x'.repeat(200), type: 'text' }
const batch = Array.from({ length: job.size }, () => row)
const profile = ['busy_timeout = 60000', 'journal_mode = WAL', 'synchronous = NORMAL', 'foreign_keys = ON']

const openers = {
  async 'fusion-sqlite'() {
    const { HardenedDatabase } = await import('../index.mjs')
    const db = new HardenedDatabase(job.file, job.contender.endsWith('5') ? { awaitedLinger: 5 } : {})
    return { db, append: () => db.appendAgentLogs(batch), close: () => db.closeAsync() }
  },

  async 'node:sqlite'() {
    const { DatabaseSync } = await import('node:sqlite')
    const db = new DatabaseSync(job.file)
    for (const pragma of profile) db.exec(`PRAGMA ${pragma}`)
    return synchronous(db)
  },

  async 'better-sqlite3'() {
    const { default: Database } = await import('better-sqlite3')
    const db = new Database(job.file)
    for (const pragma of profile) db.pragma(pragma)
    return synchronous(db)
  },
}

/** A transaction a call, as the package's writer has one a batch. */
function synchronous(db) {
  let insert, bump
  const append = async () => {
    insert ??= db.prepare(insertSql)
    bump ??= db.prepare(bumpSql)
    db.exec('BEGIN IMMEDIATE')
    for (const one of batch) insert.run(...values(one))
    bump.run(Date.now())
    db.exec('COMMIT')
  }
  return { db, append, close: () => db.close() }
}

const { db, append, close } = await openers[job.contender.split(',')[0]]()
if (job.creates) db.exec(setupSql([row]))
process.send({ kind: 'ready' })
await new Promise((resolve) => process.once('message', resolve))

const waits = []
let done = 0
const before = readCounters()
const started = performance.now()
const caller = async () => {
  for (let i = 0; i < job.each; i++) {
    const asked = performance.now()
    await append()
    waits.push(performance.now() - asked)
    if (++done % 10 === 0 && job.processes > 1) process.send({ kind: 'progress', value: done })
  }
}
await Promise.all(Array.from({ length: job.callers }, caller))
const seconds = (performance.now() - started) / 1000
waits.sort((a, b) => a - b)
const quantile = (part) => waits[Math.floor(waits.length * part)]
const walBytes = difference(readCounters(), before)?.walBytes ?? 0
await new Promise((resolve) => {
  process.send({ kind: 'end', value: { seconds, p50: quantile(0.5), p99: quantile(0.99), walBytes } }, resolve)
})
await close()
process.disconnect()
