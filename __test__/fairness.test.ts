// Synchronous writes and the background writer take turns. Counted in batches, never in time.

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { child, count, database, entries, entry, open } from './support.ts'

/**
 * Batches that take the writer longer than a busy machine keeps a thread from running, so that a
 * batch that passed during a call means that the call waited for it.
 */
const options = { batchRows: 4000, batchBytes: 16 * 1024 * 1024, queueBytes: 8 * 1024 * 1024 }

/** That `write` waits for one batch at most. One may be under way when it begins and one end after it. */
async function takesItsTurn(t: ExecutionContext, db: ReturnType<typeof open>, write: () => void): Promise<number> {
  // The writer is at work again after the previous call.
  const { batches } = db.stats()
  while (db.stats().batches === batches) await new Promise(setImmediate)
  const before = db.stats().batches
  write()
  const passed = db.stats().batches - before
  t.true(passed <= 2, `${passed} batches passed`)
  return passed
}

/** A worker that keeps the log of `file` full. */
async function saturate(t: ExecutionContext, file: string): Promise<() => Promise<number>> {
  const worker = new Worker(child('saturate.mjs'), { workerData: { file, options } })
  t.teardown(() => worker.terminate())
  await once(worker, 'message')
  return async () => {
    worker.postMessage('stop')
    const [{ accepted }] = (await once(worker, 'message')) as [{ accepted: number }]
    return accepted
  }
}

test('run() waits for at most one batch, however full the log is', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const stop = await saturate(t, file)
  const update = db.prepare('UPDATE tasks SET title = ? WHERE id = ?')
  let waited = 0
  for (let i = 0; i < 60; i++) waited += await takesItsTurn(t, db, () => update.run(`title ${i}`, 'T'))
  t.true(waited > 2, `the log was too quiet to say anything: ${waited} batches`)
  t.is(await stop(), count(db))
})

test('every kind of synchronous write takes its turn: exec, a transaction, a statement with RETURNING', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const stop = await saturate(t, file)
  const returning = db.prepare(`UPDATE tasks SET title = 'x' RETURNING id`)
  const writes = [
    () => db.exec(`UPDATE tasks SET title = 'exec'`),
    () => db.exec('BEGIN IMMEDIATE; COMMIT'),
    () => returning.all(),
    () => returning.get(),
  ]
  for (let i = 0; i < 60; i++) await takesItsTurn(t, db, writes[i % writes.length]!)
  t.is(await stop(), count(db))
})

test('synchronous writes never meet SQLITE_BUSY while the log is full', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const second = open(t, options, file)
  const stop = await saturate(t, file)
  const write = (on: typeof db, i: number) => on.prepare('UPDATE tasks SET title = ?').run(`${i}`)
  t.notThrows(() => {
    for (let i = 0; i < 60; i++) write(i % 2 === 0 ? db : second, i)
  })
  t.is(await stop(), count(db))
})

test('the writer gets its turn while synchronous writes never pause', async (t) => {
  const db = open(t, { linger: 0, awaitedLinger: 0 })
  const update = db.prepare('UPDATE tasks SET title = ?')
  const receipt = db.appendAgentLogs(entries(100))
  // Bounded by the test's time limit only: without a turn the rows are never committed.
  while (db.stats().queue.rows > 0) update.run('x')
  t.is((await receipt).committed, 100)
  t.is(count(db), 100)
})

test('the end of a long transaction wakes the writer', async (t) => {
  const db = open(t, { linger: 0, awaitedLinger: 0 })
  for (const end of ['COMMIT', 'ROLLBACK']) {
    db.exec('BEGIN IMMEDIATE')
    const { retries } = db.stats()
    const receipt = db.appendAgentLogs(entries(10))
    while (db.stats().retries === retries) await new Promise(setImmediate)
    t.is(db.stats().queue.rows, 10)
    db.exec(end)
    t.is((await receipt).committed, 10)
  }
})

test('statement by statement, a transaction of JavaScript keeps the lock until its end', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const stop = await saturate(t, file)
  const read = db.prepare('SELECT count(*) AS n FROM agentLogEntries')
  for (let i = 0; i < 20; i++) {
    db.exec('BEGIN IMMEDIATE')
    const { n } = read.get() as { n: number }
    db.prepare('UPDATE tasks SET title = ?').run(`${n}`)
    t.is((read.get() as { n: number }).n, n, 'no row came in between')
    db.exec('COMMIT')
  }
  t.is(await stop(), count(db))
})

test('a synchronous write does not wait for the checkpoints between batches either', async (t) => {
  const file = database(t)
  const db = open(t, { ...options, checkpointFrames: 10, journalSizeLimit: 65_536 }, file)
  const update = db.prepare('UPDATE tasks SET title = ?')
  for (let i = 0; i < 20; i++) {
    for (let j = 0; j < 12_000; j++) db.appendAgentLog(entry('x'))
    await takesItsTurn(t, db, () => update.run(`${i}`))
  }
  await db.flushAgentLogs()
  t.is(count(db), 240_000)
  const { passive, restart, truncate } = db.stats().checkpoints
  t.true(passive + restart + truncate > 0)
})
