// What a user of agent logs relies on: receipts, order, barriers, a bounded queue, one writer a file.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase, appendAgentLogs } from '../index.js'
import {
  Other,
  changeCounter,
  child,
  count,
  createSchema,
  database,
  entries,
  entry,
  folder,
  foreignLock,
  nextEvent,
  open,
  openInMemory,
  run,
  seenByAnotherProcess,
  texts,
} from './support.ts'

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

// Receipts

test('a receipt says how many rows were committed, and their first and last id', async (t) => {
  const db = open(t)
  t.deepEqual(await db.appendAgentLogs(entries(3)), { committed: 3, rejected: [], firstId: 1, lastId: 3 })
  t.deepEqual(await db.appendAgentLogs(entries(2)), { committed: 2, rejected: [], firstId: 4, lastId: 5 })
  t.is(count(db), 5)
})

test('a resolved promise means committed: another process sees the rows at once', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  await db.appendAgentLogs(entries(100))
  const seen = await seenByAnotherProcess(t, file)
  t.is(seen.texts.length, 100)
  t.is(seen.integrity, 'ok')
})

test('every column is stored as given, absent ones as NULL', async (t) => {
  const db = open(t)
  await db.appendAgentLogs([
    { taskId: 'T', text: '', type: 'tool', timestamp: 'whenever', detail: '', agent: 'coder' },
    { taskId: 'T', text: 'x', type: 'thinking', timestamp: '2026-01-01T00:00:00.000Z', detail: null },
  ])
  t.deepEqual(
    db
      .prepare('SELECT * FROM agentLogEntries ORDER BY id')
      .all()
      .map((row: object) => Object.assign({}, row)),
    [
      { id: 1, taskId: 'T', timestamp: 'whenever', text: '', type: 'tool', detail: '', agent: 'coder' },
      {
        id: 2,
        taskId: 'T',
        timestamp: '2026-01-01T00:00:00.000Z',
        text: 'x',
        type: 'thinking',
        detail: null,
        agent: null,
      },
    ],
  )
})

test('singles and batches are committed in the order of their calls', async (t) => {
  const db = open(t, { batchRows: 7 })
  const expected: string[] = []
  const receipts = []
  for (let i = 0; i < 300; i++) {
    if (i % 3 === 0) {
      t.true(db.appendAgentLog(entry(`single ${i}`)))
      expected.push(`single ${i}`)
    } else {
      const batch = entries(i % 11, `batch ${i} `)
      receipts.push(db.appendAgentLogs(batch))
      expected.push(...batch.map(({ text }) => text))
    }
  }
  await db.flushAgentLogs()
  t.deepEqual(texts(db), expected)
  let last = 0
  for (const { firstId, lastId, committed } of await Promise.all(receipts)) {
    if (committed === 0) continue
    t.true(Number(firstId) > last)
    last = Number(lastId)
    t.is(last - Number(firstId) + 1, committed)
  }
})

test('a timestamp that is absent is that of the call, an entry each, not that of the commit', async (t) => {
  const db = open(t)
  const now = Date.now
  t.teardown(() => {
    Date.now = now
  })
  const at = Date.UTC(2026, 0, 2, 3, 4, 5, 678)
  let calls = 0
  Date.now = () => at + 1000 * calls++
  db.appendAgentLog(entry('a'))
  db.appendAgentLog(entry('b', { timestamp: undefined }))
  const receipt = db.appendAgentLogs([entry('c'), entry('d', { timestamp: null as never }), entry('e')])
  Date.now = now
  await receipt
  const stamps = db
    .prepare('SELECT timestamp FROM agentLogEntries ORDER BY id')
    .all()
    .map((row) => row.timestamp as string)
  t.is(stamps[0], '2026-01-02T03:04:05.678Z')
  t.is(stamps[4], '2026-01-02T03:04:09.678Z')
  t.is(new Set(stamps).size, 5)
  for (const stamp of stamps) t.regex(stamp, ISO)
  t.deepEqual(stamps.toSorted(), stamps)
})

// Group commit and the change counter

test('rows that arrive together share transactions', async (t) => {
  const db = open(t)
  for (const one of entries(5000)) t.true(db.appendAgentLog(one))
  await db.flushAgentLogs()
  const { rows, batches } = db.stats()
  t.is(rows, 5000)
  t.true(batches <= 50, `${batches} batches`)
})

test('the callers that one turn resumes share a transaction again', async (t) => {
  const db = open(t)
  const rounds = 50
  const before = db.stats().batches
  const caller = async () => {
    for (let i = 0; i < rounds; i++) await db.appendAgentLogs(entries(1))
  }
  await Promise.all(Array.from({ length: 20 }, caller))
  const batches = db.stats().batches - before
  // A turn that a busy machine stretches beyond the writer's patience makes two of them.
  t.true(batches >= rounds && batches < rounds * 1.8, `${batches} batches`)
})

test('an entry is written while the turn that appended it goes on', async (t) => {
  const file = database(t)
  const db = open(t, {}, file)
  const receipt = db.appendAgentLogs(entries(1))
  // Another process looks until it sees the row, and this turn lasts that long.
  const looks = `
    const { DatabaseSync } = require('node:sqlite')
    const count = new DatabaseSync(process.argv[1], { timeout: 10_000 }).prepare('SELECT count(*) AS n FROM agentLogEntries')
    while (count.get().n === 0);
    console.log('seen')`
  const seen = execFileSync(process.execPath, ['-e', looks, file], { encoding: 'utf8', timeout: 100_000 })
  t.is(seen.trim(), 'seen')
  t.is(db.stats().rows, 1)
  t.is((await receipt).committed, 1)
})

if (process.platform === 'linux') {
  test('a writer without work has no connection', async (t) => {
    const file = database(t)
    const db = open(t, { checkpointIdle: 10 }, file)
    const descriptors = () =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith(file)
        } catch {
          return false
        }
      }).length
    for (let i = 0; i < 3; i++) {
      await db.appendAgentLogs(entries(1))
      // One that SQLite keeps for the next connection is among them.
      while (descriptors() > 6) await new Promise(setImmediate)
      t.is(db.stats().wal.bytes, 0)
    }
    t.is(count(db), 3)
  })
}

test('a batch closes at batchRows rows and at batchBytes bytes', async (t) => {
  const byRows = open(t, { batchRows: 10 })
  await byRows.appendAgentLogs(entries(100))
  t.is(byRows.stats().batches, 10)
  const byBytes = open(t, { batchBytes: 1000 })
  await byBytes.appendAgentLogs(Array.from({ length: 5 }, () => entry('x'.repeat(1000))))
  t.is(byBytes.stats().batches, 5)
})

test('the change counter moves with the rows, once a transaction, and never back', async (t) => {
  const file = database(t)
  const db = open(t, { batchRows: 10 }, file)
  const second = open(t, undefined, file)
  const ahead = Date.now() + 3_600_000
  db.exec(`UPDATE __meta SET value = '${ahead}' WHERE key = 'lastModified'`)
  const seen = second.prepare(
    `SELECT (SELECT count(*) FROM agentLogEntries) AS rows, CAST(value AS INTEGER) AS counter FROM __meta WHERE key = 'lastModified'`,
  )
  const appended = db.appendAgentLogs(entries(500))
  while (db.stats().queue.rows > 0) {
    const { rows, counter } = seen.get() as { rows: number; counter: number }
    t.is(counter, ahead + rows / 10)
    await new Promise(setImmediate)
  }
  await appended
  t.is(changeCounter(second), ahead + 50)
})

test('the change counter is the time where the time is ahead of it', async (t) => {
  const db = open(t)
  const before = Date.now()
  await db.appendAgentLogs(entries(1))
  t.true(changeCounter(db) >= before && changeCounter(db) <= Date.now())
})

test('a transaction whose rows were all rejected does not move the change counter', async (t) => {
  const db = open(t)
  const before = changeCounter(db)
  await db.appendAgentLogs([entry('x', { taskId: 'gone' })])
  t.is(changeCounter(db), before)
})

test('changeCounter: null leaves __meta alone, which then need not exist', async (t) => {
  const db = open(t, { changeCounter: null })
  db.exec('DROP TABLE __meta')
  t.is((await db.appendAgentLogs(entries(2))).committed, 2)
})

// Rejected rows

test('a row of a deleted task is rejected alone, and the receipt says which and why', async (t) => {
  const db = open(t)
  const receipt = await db.appendAgentLogs([entry('a'), entry('b', { taskId: 'gone' }), entry('c')])
  t.is(receipt.committed, 2)
  t.deepEqual([receipt.firstId, receipt.lastId], [1, 2])
  t.deepEqual(receipt.rejected, [
    { index: 1, code: 'ERR_SQLITE_ERROR', errcode: 787, message: 'FOREIGN KEY constraint failed' },
  ])
  t.deepEqual(texts(db), ['a', 'c'])
  t.is(db.stats().rejected, 1)
})

test('a rejected row poisons neither its batch nor later ones', async (t) => {
  const db = open(t, { batchRows: 10 })
  const batch = entries(100)
  for (let i = 0; i < 100; i += 7) batch[i]!.taskId = 'gone'
  const first = await db.appendAgentLogs(batch)
  t.is(first.committed, 85)
  t.deepEqual(
    first.rejected.map(({ index }) => index),
    Array.from({ length: 15 }, (_, i) => 7 * i),
  )
  t.is((await db.appendAgentLogs(entries(10))).committed, 10)
})

test('a rejected entry that nobody waits for is told as an event, with its values', async (t) => {
  const db = open(t)
  const told = nextEvent(db, 'rejected')
  db.appendAgentLog(entry('kept'))
  db.appendAgentLog(entry('b', { taskId: 'gone', timestamp: 'now', agent: 'a' }))
  await db.flushAgentLogs()
  const [error, rejected] = (await told) as [Error & { code: string; errcode: number }, object]
  t.is(error.code, 'ERR_SQLITE_ERROR')
  t.is(error.errcode, 787)
  t.deepEqual({ ...rejected }, { taskId: 'gone', timestamp: 'now', text: 'b', type: 'text', detail: null, agent: 'a' })
  t.deepEqual(texts(db), ['kept'])
})

test('a trigger that rolls the whole transaction back costs only its own row', async (t) => {
  const db = open(t)
  db.exec(
    `CREATE TRIGGER no BEFORE INSERT ON agentLogEntries WHEN new.text = 'no' BEGIN SELECT RAISE(ROLLBACK, 'no!'); END`,
  )
  const receipt = await db.appendAgentLogs([entry('a'), entry('no'), entry('b')])
  t.is(receipt.committed, 2)
  t.is(receipt.rejected[0]?.message, 'no!')
  t.deepEqual(texts(db), ['a', 'b'])
})

// Barriers

test('flushAgentLogs resolves once everything handed over is committed', async (t) => {
  const db = open(t, { linger: 60_000 })
  for (const one of entries(10)) db.appendAgentLog(one)
  await db.flushAgentLogs()
  t.is(count(db), 10)
  await t.notThrowsAsync(db.flushAgentLogs())
})

test('flushAgentLogsSync returns once everything handed over is committed', (t) => {
  const db = open(t, { linger: 60_000 })
  for (const one of entries(10)) db.appendAgentLog(one)
  db.flushAgentLogsSync()
  t.is(count(db), 10)
  t.throws(() => db.flushAgentLogsSync(-1), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => db.flushAgentLogsSync('1' as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

test('a task is deleted together with the rows that were handed over before', async (t) => {
  const db = open(t, { linger: 60_000 })
  for (const one of entries(10)) db.appendAgentLog(one)
  db.flushAgentLogsSync()
  db.exec(`DELETE FROM tasks WHERE id = 'T'`)
  t.is(count(db), 0)
  t.is(db.stats().rejected, 0)
})

for (const [name, begin] of [
  ['BEGIN IMMEDIATE', 'BEGIN IMMEDIATE'],
  ['a deferred BEGIN that has written', `BEGIN; UPDATE tasks SET title = 'x'`],
] as const) {
  test(`a flush inside ${name} writes the rows in that transaction, and does not deadlock`, async (t) => {
    const file = database(t)
    // Only a flush writes: a deferred BEGIN in whose way the log is cannot take the write lock.
    const db = open(t, { awaitedLinger: 60_000 }, file)
    const second = open(t, undefined, file)
    const receipt = db.appendAgentLogs(entries(3))
    db.exec(begin)
    db.flushAgentLogsSync()
    t.is(count(db), 3)
    t.is(count(second), 0)
    db.appendAgentLog(entry('later'))
    await db.flushAgentLogs()
    t.deepEqual(texts(db), ['row 0', 'row 1', 'row 2', 'later'])
    t.is(count(second), 0)
    t.is(db.stats().queue.rows, 4)
    db.exec('COMMIT')
    t.is(count(second), 4)
    t.deepEqual(await receipt, { committed: 3, rejected: [], firstId: 1, lastId: 3 })
    t.is(db.stats().queue.rows, 0)
  })
}

test('rows that were flushed into a transaction come later when it is rolled back', async (t) => {
  const db = open(t)
  const receipt = db.appendAgentLogs(entries(3))
  db.exec('BEGIN IMMEDIATE')
  db.flushAgentLogsSync()
  db.appendAgentLog(entry('after'))
  db.exec('ROLLBACK')
  t.is((await receipt).committed, 3)
  await db.flushAgentLogs()
  t.deepEqual(texts(db), ['row 0', 'row 1', 'row 2', 'after'])
})

test('order survives many rollbacks with a busy writer', async (t) => {
  const db = open(t, { linger: 0, awaitedLinger: 0 })
  const expected: string[] = []
  for (let i = 0; i < 200; i++) {
    const text = `row ${i}`
    expected.push(text, `${text}+`)
    db.exec('BEGIN IMMEDIATE')
    db.appendAgentLog(entry(text))
    db.flushAgentLogsSync()
    db.appendAgentLog(entry(`${text}+`))
    db.exec('ROLLBACK')
  }
  await db.flushAgentLogs()
  t.deepEqual(texts(db), expected)
})

test('ROLLBACK TO gives back exactly the rows flushed after that savepoint', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  db.exec('BEGIN IMMEDIATE; SAVEPOINT a')
  const first = db.appendAgentLogs([entry('in a')])
  db.flushAgentLogsSync()
  db.exec('SAVEPOINT b')
  const second = db.appendAgentLogs([entry('in b')])
  db.flushAgentLogsSync()
  t.deepEqual(texts(db), ['in a', 'in b'])
  db.exec('ROLLBACK TO b')
  t.deepEqual(texts(db), ['in a'])
  db.exec('RELEASE b; RELEASE a; COMMIT')
  t.is((await first).committed, 1)
  t.is((await second).committed, 1)
  t.deepEqual(texts(db), ['in a', 'in b'])
})

test('a released savepoint hands its rows to the one around it', async (t) => {
  const db = open(t)
  db.exec('BEGIN IMMEDIATE; SAVEPOINT a; SAVEPOINT b')
  const receipt = db.appendAgentLogs([entry('x')])
  db.flushAgentLogsSync()
  db.exec('RELEASE b; ROLLBACK TO a')
  t.is(count(db), 0)
  db.flushAgentLogsSync()
  t.is(count(db), 1)
  db.exec('RELEASE a; COMMIT')
  t.is((await receipt).committed, 1)
  t.is(count(db), 1)
})

test('a savepoint as the outermost transaction works like BEGIN', async (t) => {
  const db = open(t)
  const receipt = db.appendAgentLogs([entry('x')])
  db.exec(`SAVEPOINT s; UPDATE tasks SET title = 'x'`)
  db.flushAgentLogsSync()
  t.is(count(db), 1)
  db.exec('ROLLBACK TO s; RELEASE s')
  t.is((await receipt).committed, 1)
  t.is(count(db), 1)
})

test('a row rejected inside a transaction is told, and the transaction goes on', async (t) => {
  const db = open(t)
  db.exec('BEGIN IMMEDIATE')
  const receipt = db.appendAgentLogs([entry('a'), entry('b', { taskId: 'gone' })])
  db.flushAgentLogsSync()
  t.true(db.isTransaction)
  db.exec('COMMIT')
  t.is((await receipt).rejected[0]?.index, 1)
  t.deepEqual(texts(db), ['a'])
})

// The queue's bound

test('a full queue takes nothing, says so, and drops nothing', async (t) => {
  const file = database(t)
  const db = open(t, { queueBytes: 4096, linger: 0 }, file)
  const lock = await foreignLock(t, file)
  const events: boolean[] = []
  const relieved = new Promise<void>((resolve) => {
    db.on('backpressure', (full: boolean) => {
      events.push(full)
      if (!full) resolve()
    })
  })
  let taken = 0
  while (db.appendAgentLog(entry(`row ${taken}`))) taken++
  t.true(taken > 10)
  const error = await t.throwsAsync(db.appendAgentLogs([entry('y'.repeat(500))]), { code: 'ERR_FUSION_QUEUE_FULL' })
  t.regex(error.message, /Nothing was taken.*queueBytes/)
  t.false(db.appendAgentLog(entry('also refused')))
  const { queue } = db.stats()
  t.is(queue.rows, taken)
  t.is(queue.refused, 3)
  t.true(queue.bytes <= queue.limitBytes && queue.limitBytes === 4096)
  await lock.release()
  await db.flushAgentLogs()
  await relieved
  t.deepEqual(events, [true, false])
  t.is(count(db), taken)
  t.true(db.appendAgentLog(entry('room again')))
})

// Failures

test('a missing table is told, keeps the rows, and they are committed once it exists', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  const db = open(t, undefined, file)
  db.exec('CREATE TABLE mine (x)')
  const told = nextEvent(db, 'error')
  db.appendAgentLog(entry('early'))
  const receipt = t.throwsAsync(db.appendAgentLogs([entry('awaited')]), { code: 'ERR_FUSION_SCHEMA' })
  const [error] = (await told) as [Error & { code: string; errcode: number; path: string }]
  t.is(error.code, 'ERR_FUSION_SCHEMA')
  t.is(error.errcode, 1)
  t.is(error.path, file)
  t.regex(error.message, /no table agentLogEntries.*AGENT_LOG_SCHEMA/)
  await receipt
  t.is(db.stats().state, 'retrying')
  t.is(db.stats().error?.code, 'ERR_FUSION_SCHEMA')
  t.is(db.stats().queue.rows, 2)
  // At once: with the table and without its task the writer would reject the row.
  db.exec('BEGIN')
  createSchema(db)
  db.exec('COMMIT')
  await db.flushAgentLogs()
  t.is(db.stats().state, 'writing')
  t.deepEqual(texts(db), ['early', 'awaited'])
})

test('takePending hands back what is not committed, in order, and tells who waited', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  const lock = await foreignLock(t, file)
  db.appendAgentLog(entry('single', { timestamp: 't', agent: 'a' }))
  const promise = db.appendAgentLogs([entry('x', { timestamp: 't', detail: 'd' }), entry('y', { timestamp: 't' })])
  const pending = db.takePending()
  await t.throwsAsync(promise, { code: 'ERR_FUSION_TAKEN_BACK' })
  t.deepEqual(
    pending.map((one) => ({ ...one })),
    [
      { taskId: 'T', timestamp: 't', text: 'single', type: 'text', detail: null, agent: 'a' },
      { taskId: 'T', timestamp: 't', text: 'x', type: 'text', detail: 'd', agent: null },
      { taskId: 'T', timestamp: 't', text: 'y', type: 'text', detail: null, agent: null },
    ],
  )
  t.deepEqual(db.takePending(), [])
  t.is(db.stats().takenBack, 3)
  await lock.release()
  t.is((await db.appendAgentLogs(pending)).committed, 3)
  t.deepEqual(texts(db), ['single', 'x', 'y'])
})

test('takePending on a full disk knows that nothing was stored', async (t) => {
  if (process.platform !== 'linux') return t.pass()
  for (const room of [0, 100, 8192, 20_000]) {
    const file = database(t)
    const { code, output } = await run(t, 'full-commit.mjs', [file, String(room)])
    t.is(code, 0, output)
    t.deepEqual(JSON.parse(output), [200, 'ERR_FUSION_TAKEN_BACK', 'retrying'])
    t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['0'])
  }
})

test("another process's lock only delays", async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  const lock = await foreignLock(t, file)
  const receipt = db.appendAgentLogs(entries(5))
  while (db.stats().retries === 0) await new Promise(setImmediate)
  t.is(count(db), 0)
  await lock.release()
  t.is((await receipt).committed, 5)
  t.is(db.stats().failures, 0)
})

test('past retryDeadline the promise rejects; the rows are kept and committed later', async (t) => {
  const file = database(t)
  const db = open(t, { retryDeadline: 50 }, file)
  const lock = await foreignLock(t, file)
  const told = nextEvent(db, 'error')
  const error = (await t.throwsAsync(db.appendAgentLogs(entries(2)), { code: 'ERR_SQLITE_ERROR' })) as Error & {
    errcode: number
    path: string
    receipt: object
  }
  t.is(error.errcode, 5)
  t.is(error.path, file)
  t.deepEqual(error.receipt, { committed: 0, rejected: [], firstId: null, lastId: null })
  t.is(((await told)[0] as { errcode: number }).errcode, 5)
  t.is(db.stats().queue.rows, 2)
  await lock.release()
  await db.flushAgentLogs()
  t.deepEqual(texts(db), ['row 0', 'row 1'])
})

test("an 'error' that nobody listens to becomes a process warning, and the process goes on", async (t) => {
  const { code, output } = await run(t, 'no-listener.mjs', [path.join(folder(t), 'fusion.db'), database(t)])
  t.is(code, 0, output)
  t.regex(output, /ERR_FUSION_SCHEMA/)
  t.regex(output, /FUSION_LOG_ENTRY_REJECTED/)
  t.regex(output, /still alive/)
})

// Closing

test('close flushes', async (t) => {
  const file = database(t)
  const db = open(t, { linger: 60_000 }, file)
  const receipt = db.appendAgentLogs(entries(10))
  db.appendAgentLog(entry('last'))
  db.close()
  t.is((await receipt).committed, 10)
  t.is((await seenByAnotherProcess(t, file)).texts.length, 11)
})

test('closeAsync flushes, and settles what was awaited before it resolves', async (t) => {
  const file = database(t)
  const db = open(t, { linger: 60_000 }, file)
  const settled: string[] = []
  const receipt = db.appendAgentLogs(entries(10)).then(() => settled.push('rows'))
  db.appendAgentLog(entry('last'))
  await db.closeAsync().then(() => settled.push('database'))
  await receipt
  t.deepEqual(settled, ['rows', 'database'])
  t.false(db.isOpen)
  t.is((await seenByAnotherProcess(t, file)).texts.length, 11)
})

test('closing twice at once is no error', async (t) => {
  const db = open(t)
  db.appendAgentLog(entry('x'))
  await t.notThrowsAsync(Promise.all([db.closeAsync(), db.closeAsync()]))
  const other = open(t)
  const closing = other.closeAsync()
  other.close()
  await t.notThrowsAsync(closing)
})

for (const how of ['close', 'closeAsync'] as const) {
  test(`${how} inside a transaction rolls it back and keeps the rows`, async (t) => {
    const file = database(t)
    const db = open(t, undefined, file)
    db.exec(`BEGIN IMMEDIATE; UPDATE tasks SET title = 'undone'`)
    const receipt = db.appendAgentLogs(entries(2))
    db.flushAgentLogsSync()
    await db[how]()
    t.false(db.isOpen)
    t.is((await receipt).committed, 2)
    const again = open(t, undefined, file)
    t.is(count(again), 2)
    t.is(again.prepare('SELECT title FROM tasks').get()?.title, null)
  })
}

test('close gives up after closeTimeout; the database stays open and nothing is lost', async (t) => {
  const file = database(t)
  const db = open(t, { closeTimeout: 1 }, file)
  const lock = await foreignLock(t, file)
  db.appendAgentLog(entry('kept', { timestamp: 't' }))
  const error = t.throws(() => db.close(), { code: 'ERR_FUSION_FLUSH_TIMEOUT' })
  t.regex(error.message, /1 log entries .* kept .*takePending\(\)/)
  t.true(db.isOpen)
  t.is(db.stats().queue.rows, 1)
  const pending = db.takePending()
  t.is(pending[0]?.text, 'kept')
  t.true(db.appendAgentLog(pending[0]!))
  await lock.release()
  await db.flushAgentLogs()
  db.close()
  t.false(db.isOpen)
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['kept'])
})

test('closeAsync gives up after closeTimeout, too; what waits is handed back, and then it closes', async (t) => {
  const file = database(t)
  const db = open(t, { closeTimeout: 1 }, file)
  const lock = await foreignLock(t, file)
  db.appendAgentLog(entry('kept', { timestamp: 't' }))
  const awaited = db.appendAgentLogs([entry('awaited')])
  const error = await t.throwsAsync(db.closeAsync(), { code: 'ERR_FUSION_FLUSH_TIMEOUT' })
  t.regex(error!.message, /2 log entries .* kept .*takePending\(\)/)
  t.true(db.isOpen)
  t.deepEqual(
    db.takePending().map(({ text }) => text),
    ['kept', 'awaited'],
  )
  await t.throwsAsync(awaited, { code: 'ERR_FUSION_TAKEN_BACK' })
  await db.closeAsync()
  t.false(db.isOpen)
  await lock.release()
})

test('a closed database says so, and can be opened again', async (t) => {
  const db = open(t)
  db.close()
  const closed = { code: 'ERR_INVALID_STATE', message: 'database is not open' }
  await t.throwsAsync(db.appendAgentLogs([entry('x')]), closed)
  await t.throwsAsync(db.flushAgentLogs(), closed)
  await t.throwsAsync(db.checkpoint(), closed)
  await t.throwsAsync(db.closeAsync(), closed)
  t.throws(() => db.appendAgentLog(entry('x')), closed)
  t.throws(() => db.flushAgentLogsSync(), closed)
  t.throws(() => db.takePending(), closed)
  t.throws(() => db.stats(), closed)
  t.throws(() => db.close(), closed)
  db.open()
  t.is((await db.appendAgentLogs([entry('x')])).committed, 1)
})

test('using closes, and await using closes off the thread', async (t) => {
  const file = database(t)
  {
    using db = new HardenedDatabase(file)
    db.appendAgentLog(entry('a'))
  }
  {
    await using db = new HardenedDatabase(file)
    db.appendAgentLog(entry('b'))
  }
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['a', 'b'])
})

// One writer a file

test('handles on one file share its writer, symbolic links included', async (t) => {
  const file = database(t)
  const link = path.join(folder(t), 'link.db')
  symlinkSync(file, link)
  const [one, two] = [open(t, undefined, file), open(t, undefined, link)]
  const [a, b] = await Promise.all([one.appendAgentLogs(entries(10)), two.appendAgentLogs(entries(10))])
  t.is(a.committed + b.committed, 20)
  t.is(one.stats().rows, 20)
  t.is(two.stats().rows, 20)
  t.is(one.stats().batches, two.stats().batches)
})

test('four worker threads share a writer; every row is there once, in order', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  const workers = ['a', 'b', 'c', 'd'].map(
    (name) => new Worker(child('worker.mjs'), { workerData: { file, name, rows: 200 } }),
  )
  t.teardown(() => Promise.all(workers.map((worker) => worker.terminate())))
  await Promise.all(workers.map((worker) => once(worker, 'message')))
  for (const worker of workers) worker.postMessage('append')
  const answers = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]))
  const ended = workers.map((worker) => once(worker, 'exit'))
  for (const worker of workers) worker.postMessage('close')
  await Promise.all(ended)
  t.is(db.stats().rows, 800)
  t.is(Math.max(...answers.map(({ rows }) => rows)), 800)
  const ids = new Set<number>()
  for (const { receipts } of answers) {
    for (const { firstId, lastId } of receipts) for (let id = firstId; id <= lastId; id++) ids.add(id)
  }
  t.is(ids.size, 800)
  const all = texts(db)
  t.is(all.length, 800)
  for (const name of ['a', 'b', 'c', 'd']) {
    t.deepEqual(
      all.filter((text) => text.startsWith(name)),
      Array.from({ length: 200 }, (_, i) => `${name} ${i}`),
    )
  }
})

test('a second handle that insists on other options for the writer is refused', async (t) => {
  const file = database(t)
  const db = open(t, { linger: 100 }, file)
  const error = t.throws(() => new HardenedDatabase(file, { linger: 200 }), { code: 'ERR_FUSION_OPTIONS_CONFLICT' })
  t.regex(error.message, /use the same options everywhere/)
  t.is((error as { path?: string }).path, file)
  t.notThrows(() => open(t, { linger: 100 }, file))
  t.notThrows(() => open(t, undefined, file))
  t.notThrows(() => open(t, { busyTimeout: 1 }, file), 'an option of the connection alone')
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
})

test('the writer stays while any handle is open', async (t) => {
  const file = database(t)
  const [one, two] = [open(t, undefined, file), open(t, undefined, file)]
  one.appendAgentLog(entry('by one'))
  one.close()
  t.is((await two.appendAgentLogs([entry('by two')])).firstId, 2)
  two.close()
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['by one', 'by two'])
})

// Databases without a file, and for reading

test('a database in memory has receipts, rejections and the change counter', async (t) => {
  const db = openInMemory(t)
  const receipt = await db.appendAgentLogs([entry('a'), entry('b', { taskId: 'gone' }), entry('c')])
  t.is(receipt.committed, 2)
  t.is(receipt.rejected[0]?.errcode, 787)
  t.true(changeCounter(db) > 0)
  const told = nextEvent(db, 'rejected')
  t.true(db.appendAgentLog(entry('d', { taskId: 'gone' })))
  t.is(((await told)[1] as { text: string }).text, 'd')
  t.true(db.appendAgentLog(entry('e')))
  t.deepEqual(texts(db), ['a', 'c', 'e'])
  t.is(db.stats().batches, 3)
  t.deepEqual(await db.checkpoint('truncate'), { mode: 'truncate', busy: false, frames: 0, backfilled: 0 })
  await db.flushAgentLogs()
  db.flushAgentLogsSync()
  await db.closeAsync()
})

test('in memory, rows of a transaction are settled by its COMMIT and come later after its ROLLBACK', async (t) => {
  const db = openInMemory(t)
  db.exec('BEGIN')
  const committed = db.appendAgentLogs([entry('a')])
  t.is(count(db), 1)
  db.exec('COMMIT')
  t.is((await committed).firstId, 1)
  db.exec('BEGIN')
  const late = db.appendAgentLogs([entry('b')])
  db.exec('ROLLBACK')
  t.is((await late).committed, 1)
  t.deepEqual(texts(db), ['a', 'b'])
})

test('in memory, a missing table is told to who waits and as an event; rows are kept', async (t) => {
  const db = open(t, undefined, ':memory:')
  db.exec('CREATE TABLE mine (x)')
  const told = nextEvent(db, 'error')
  await t.throwsAsync(db.appendAgentLogs([entry('a')]), { code: 'ERR_FUSION_SCHEMA' })
  t.is(((await told)[0] as { code: string }).code, 'ERR_FUSION_SCHEMA')
  db.on('error', () => {})
  t.true(db.appendAgentLog(entry('b')))
  createSchema(db)
  await db.flushAgentLogs()
  t.deepEqual(texts(db), ['a', 'b'])
})

test('a database opened to be read only reads, and has no log', async (t) => {
  const file = database(t)
  const db = open(t, { readOnly: true }, file)
  t.is(count(db), 0)
  t.throws(() => db.appendAgentLog(entry('x')), { code: 'ERR_INVALID_STATE', message: /read only/ })
  await t.throwsAsync(db.appendAgentLogs([entry('x')]), { code: 'ERR_INVALID_STATE', message: /read only/ })
  t.throws(() => db.exec('DELETE FROM tasks'), { code: 'ERR_SQLITE_ERROR', message: /readonly/ })
})

// appendAgentLogs(path, …)

test('appendAgentLogs by path needs no handle, and shares the writer with those there are', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  t.is((await appendAgentLogs(file, entries(3))).committed, 3)
  const [a, b] = await Promise.all([appendAgentLogs(file, entries(2)), appendAgentLogs(file, entries(2))])
  t.deepEqual([a.firstId, b.firstId], [4, 6])
  t.is(db.stats().rows, 7)
})

test('appendAgentLogs by path refuses other options than those the path was first used with', async (t) => {
  const file = database(t)
  await appendAgentLogs(file, entries(1), { linger: 10 })
  await t.notThrowsAsync(appendAgentLogs(file, entries(1), { linger: 10 }))
  await t.notThrowsAsync(appendAgentLogs(file, entries(1)))
  await t.throwsAsync(appendAgentLogs(file, entries(1), { linger: 20 }), { code: 'ERR_FUSION_OPTIONS_CONFLICT' })
  await t.throwsAsync(appendAgentLogs(file, entries(1), { lingr: 20 } as never), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const ofAHandle of [{ backups: {} }, { startupCheck: 'full' }, { readOnly: false }, { closeTimeout: 1 }]) {
    await t.throwsAsync(appendAgentLogs(file, entries(1), ofAHandle as never), {
      code: 'ERR_INVALID_ARG_TYPE',
      message: /no option of appendAgentLogs/,
    })
  }
  await t.notThrowsAsync(appendAgentLogs(file, entries(1), { onCorruption: 'throw' }))
})

test('appendAgentLogs by path does not keep the process alive', async (t) => {
  const file = database(t)
  const { code, output } = await run(t, 'by-path.mjs', [file])
  t.is(code, 0, output)
  t.is((await seenByAnotherProcess(t, file)).texts.length, 1)
})

// Figures, checkpoints, events

test('stats has a stable shape', async (t) => {
  const db = open(t)
  await db.appendAgentLogs(entries(3))
  const stats = db.stats()
  const kinds = (value: object): object =>
    Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [
        key,
        typeof inner === 'object' && inner !== null ? kinds(inner) : inner === null ? 'null' : typeof inner,
      ]),
    )
  const latency = { p50: 'number', p99: 'number', max: 'number' }
  t.deepEqual(kinds(stats), {
    state: 'string',
    error: 'null',
    queue: { rows: 'number', bytes: 'number', limitBytes: 'number', refused: 'number' },
    batches: 'number',
    rows: 'number',
    rejected: 'number',
    takenBack: 'number',
    bytes: 'number',
    retries: 'number',
    failures: 'number',
    healed: 'number',
    commitMs: latency,
    appendMs: latency,
    wal: { frames: 'number', backfilled: 'number', bytes: 'number', peakBytes: 'number' },
    checkpoints: {
      passive: 'number',
      full: 'number',
      restart: 'number',
      truncate: 'number',
      busy: 'number',
      busySince: 'null',
      failed: 'number',
    },
    health: {
      path: 'string',
      kind: 'string',
      ok: 'boolean',
      findings: {},
      pages: 'number',
      pageSize: 'number',
      elapsedMs: 'number',
      text: 'string',
    },
  })
  t.is(stats.rows, 3)
  t.is(stats.queue.rows, 0)
  t.true(stats.commitMs.max > 0 && stats.appendMs.max >= stats.commitMs.p50)
})

for (const mode of ['passive', 'full', 'restart', 'truncate'] as const) {
  test(`checkpoint('${mode}') moves the WAL into the database`, async (t) => {
    const file = database(t)
    const db = open(t, { checkpointFrames: 1_000_000 }, file)
    await db.appendAgentLogs(entries(100))
    const result = await db.checkpoint(mode)
    t.is(result.mode, mode)
    t.false(result.busy)
    t.is(result.backfilled, result.frames)
    t.true(db.stats().checkpoints[mode] >= 1)
    if (mode === 'truncate') t.is(readFileSync(`${file}-wal`).length, 0)
  })
}

test('a checkpoint that a reader prevents says so, and can be asked for again', async (t) => {
  const file = database(t)
  const db = open(t, { checkpointFrames: 1_000_000, checkpointIdle: 600_000 }, file)
  const reader = open(t, undefined, file)
  await db.appendAgentLogs(entries(1))
  reader.exec('BEGIN')
  t.is(count(reader), 1)
  await db.appendAgentLogs(entries(1))
  const told = nextEvent(db, 'checkpoint')
  t.true((await db.checkpoint('truncate')).busy)
  t.true(((await told)[0] as { busy: boolean }).busy)
  t.is(db.stats().checkpoints.busy, 1)
  t.true((db.stats().checkpoints.busySince as Date | null) instanceof Date)
  reader.exec('COMMIT')
  t.false((await db.checkpoint('truncate')).busy)
  t.is(db.stats().checkpoints.busySince, null)
})

test('checkpoint refuses a mode it does not know, by name', async (t) => {
  const error = await t.throwsAsync(open(t).checkpoint('fast' as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.regex(error.message, /passive, full, restart, truncate/)
})

test('listeners: on, once and off chain', async (t) => {
  const db = open(t)
  const heard: string[] = []
  const always = () => heard.push('always')
  const never = () => heard.push('never')
  t.is(
    db
      .on('rejected', always)
      .once('rejected', () => heard.push('once'))
      .on('rejected', never)
      .off('rejected', never),
    db,
  )
  const gone = entry('x', { taskId: 'gone' })
  for (let i = 0; i < 2; i++) {
    const told = nextEvent(db, 'rejected')
    db.appendAgentLog(gone)
    await db.flushAgentLogs()
    await told
  }
  t.deepEqual(heard, ['always', 'once', 'always'])
})

// Callers that misbehave

test('a listener that throws is an uncaught exception, and loses nothing', async (t) => {
  const file = database(t)
  const { code, output } = await run(t, 'throwing-listener.mjs', [file])
  t.is(code, 0, output)
  t.regex(output, /caught 3/)
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['a', 'b', 'c', 'd'])
})

/** An entry whose property `name` throws. */
const bomb = (name: string) => ({
  ...entry('x'),
  get [name](): string {
    throw new RangeError(`${name}!`)
  },
})

test('a getter of an entry that throws takes nothing of its call, and loses nothing else', async (t) => {
  const db = open(t)
  const before = db.appendAgentLogs(entries(2, 'before '))
  for (const name of ['taskId', 'timestamp', 'text', 'type', 'detail', 'agent']) {
    await t.throwsAsync(db.appendAgentLogs([entry('not taken'), bomb(name)]), { instanceOf: RangeError })
    t.throws(() => db.appendAgentLog(bomb(name)), { instanceOf: RangeError })
  }
  const after = db.appendAgentLogs(entries(2, 'after '))
  await Promise.all([before, after])
  t.deepEqual(texts(db), ['before 0', 'before 1', 'after 0', 'after 1'])
})

test('a getter that itself appends keeps both batches right', async (t) => {
  const db = open(t)
  const inner: Promise<unknown>[] = []
  const reentrant = {
    ...entry(''),
    get text() {
      inner.push(db.appendAgentLogs([entry('inner 1'), entry('inner 2')]))
      db.appendAgentLog(entry('inner single'))
      inner.push(db.appendAgentLogs([{ taskId: 'T', text: 'bad' } as never]).catch(() => 'refused'))
      return 'outer 2'
    },
  }
  const receipt = await db.appendAgentLogs([entry('outer 1'), reentrant, entry('outer 3')])
  t.is(receipt.committed, 3)
  t.deepEqual(await Promise.all(inner), [{ committed: 2, rejected: [], firstId: 1, lastId: 2 }, 'refused'])
  t.deepEqual(texts(db), ['inner 1', 'inner 2', 'inner single', 'outer 1', 'outer 2', 'outer 3'])
})

test('a getter that closes the database makes the call fail, nothing else', async (t) => {
  const file = database(t)
  const db = open(t, undefined, file)
  const closing = {
    ...entry('x'),
    get agent() {
      db.close()
      // Takes the number that the closed log had.
      open(t, undefined, database(t))
      return null
    },
  }
  db.appendAgentLog(entry('before'))
  await t.throwsAsync(db.appendAgentLogs([closing]), { code: 'ERR_INVALID_STATE', message: 'database is not open' })
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['before'])
})

test('a database left to the garbage collector commits its rows and ends its writer', async (t) => {
  const file = database(t)
  const other = new Other(t, 'forgotten.mjs', [file], ['--expose-gc'])
  await other.says('closed')
  t.is((await other.ended).code, 0)
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['forgotten'])
})

test('methods refuse other receivers', (t: ExecutionContext) => {
  const { appendAgentLog, stats } = HardenedDatabase.prototype
  t.throws(() => appendAgentLog.call({} as never, entry('x')), { instanceOf: TypeError })
  t.throws(() => stats.call({} as never), { instanceOf: TypeError })
})

test('a flush that resolves has told of every rejected entry before it', async (t) => {
  const db = open(t)
  let told = 0
  db.on('rejected', () => told++)
  for (let i = 1; i <= 50; i++) {
    db.appendAgentLog(entry('x', { taskId: 'gone' }))
    await db.flushAgentLogs()
    t.is(told, i)
  }
})

test('a database without the tables of a log is closed and flushed like any other', async (t) => {
  for (const file of [':memory:', path.join(folder(t), 'other.db')]) {
    const db = open(t, undefined, file)
    db.exec('CREATE TABLE mine (x); BEGIN IMMEDIATE')
    db.flushAgentLogsSync()
    await db.flushAgentLogs()
    db.exec('COMMIT')
    t.notThrows(() => db.close())
    db.open()
    await t.notThrowsAsync(db.closeAsync())
  }
})
