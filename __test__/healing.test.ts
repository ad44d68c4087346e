// A connection that is wedged, by what another process did to the files beside an intact database,
// is healed in place: nothing acknowledged is lost or doubled, objects of JavaScript stay valid,
// and what cannot be told is not reported as done.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, statSync, truncateSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { constants, DatabaseSync, type FusionSqliteError, HardenedDatabase } from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { Child, findings } from './children/start.ts'

type Failed = FusionSqliteError & { errcode: number }

/** Only the test's own checkpoints. */
const options = { checkpointIdle: 600_000, checkpointFrames: 1_000_000 }
const COUNT = 'SELECT count(*) AS rows FROM agentLogEntries WHERE length(text) > 0'
/** Windows forbids writing to a mapped index, and deleting what is open. */
const unix = process.platform === 'win32' ? test.skip : test.serial

function meddle(what: 'overwrite-index' | 'delete', file: string) {
  const script = fileURLToPath(new URL('children/meddle.mjs', import.meta.url))
  execFileSync(process.execPath, [script, what, file], { timeout: 60_000 })
}

/** A database with 300 rows in the file and 100 in the WAL. */
async function opened(t: ExecutionContext) {
  const file = path.join(await temporaryFolder(t), 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, options)
  await db.appendAgentLogs(entriesOf('checkpointed', 300, 'd'.repeat(300)))
  await db.checkpoint('truncate')
  for (let call = 0; call < 10; call++) await db.appendAgentLogs(entriesOf(`in the WAL ${call}`, 10, 'd'.repeat(300)))
  const healed: [Failed, string][] = []
  db.on('healed', (error, remedy) => healed.push([error as Failed, remedy]))
  for (const event of ['error', 'corrupt', 'replaced'] as const) {
    db.on(event, (error: FusionSqliteError) => {
      // On a busy machine connections may be waited for so long that it is told.
      if (error.code !== 'ERR_FUSION_WEDGED') t.fail(`${event}: ${error.message}`)
    })
  }
  return { file, db, healed }
}

/** What a fresh process finds: the database in order, and each row once. */
async function found(t: ExecutionContext, file: string, rows: number) {
  const { error, integrity, texts } = await findings(file)
  t.is(error, null)
  t.deepEqual(integrity, ['ok'])
  t.is(texts.length, rows)
  t.is(new Set(texts).size, rows)
}

unix('the log goes on with its batch where another process overwrote the WAL index', async (t) => {
  const { file, db, healed } = await opened(t)
  meddle('overwrite-index', file)
  const receipt = await db.appendAgentLogs(entriesOf('after', 50))
  t.is(receipt.committed, 50)
  t.is(receipt.firstId, 401)
  await db.flushAgentLogs()
  t.is(db.stats().healed, 1)
  t.is(healed.length, 1)
  t.is(healed[0]?.[0].errcode, 11)
  t.is(healed[0]?.[1], 'indexRebuilt')
  t.is(db.stats().state, 'writing')
  await db.closeAsync()
  await found(t, file, 450)
})

unix('a statement that failed before it had an effect is made again, and temporary tables stay', async (t) => {
  const { file, db } = await opened(t)
  db.exec("CREATE TEMP TABLE mine AS SELECT 'kept' AS word")
  const count = db.prepare(COUNT)
  t.is(count.get()?.rows, 400)
  const add = db.prepare("UPDATE __meta SET value = 'x' WHERE key = ?")
  meddle('overwrite-index', file)
  // Nobody goes on with what is cached: the index is asked.
  const other = new DatabaseSync(file)
  t.throws(() => other.prepare(COUNT).get(), { code: 'ERR_SQLITE_ERROR' }, 'a plain connection is not healed')
  t.is(db.prepare(COUNT).get()?.rows, 400)
  t.is(count.get()?.rows, 400)
  t.is(add.run('no such key').changes, 0)
  t.is(db.prepare('SELECT word FROM mine').get()?.word, 'kept')
  // Nor does it have to be: the index is the same for all.
  t.is(other.prepare(COUNT).get()?.rows, 400)
  other.close()
  await db.closeAsync()
  await found(t, file, 400)
})

unix('inside a transaction the error is thrown as it is, and the connection heals after it', async (t) => {
  const { file, db } = await opened(t)
  const fresh = new HardenedDatabase(file, options)
  meddle('overwrite-index', file)
  fresh.exec('BEGIN')
  const error = t.throws(() => fresh.prepare(COUNT).all(), { code: 'ERR_SQLITE_ERROR' }) as Failed
  t.is(error.errcode & 0xff, 11)
  t.true(fresh.isTransaction)
  fresh.exec('ROLLBACK')
  fresh.exec('BEGIN')
  t.is(fresh.prepare(COUNT).get()?.rows, 400)
  fresh.exec('COMMIT')
  fresh.close()
  await db.closeAsync()
  await found(t, file, 400)
})

unix('after -wal and -shm were deleted everything is there, and every object goes on', async (t) => {
  const { file, db, healed } = await opened(t)
  db.function('twice', (value) => Number(value) * 2)
  db.aggregate('total', { start: 0, step: (sum: number, value) => sum + Number(value) })
  db.exec('PRAGMA cache_size = 123')
  const inTransaction = async (name: string) => {
    db.exec('BEGIN IMMEDIATE')
    t.true(db.appendAgentLog(entriesOf(name, 1)[0]!))
    await db.flushAgentLogs()
    db.exec('COMMIT')
  }
  await inTransaction('written in a transaction')
  const count = db.prepare(COUNT)
  const computed = db.prepare('SELECT twice(total(id)) AS sum FROM agentLogEntries')
  const iterated = db.prepare('SELECT id FROM agentLogEntries ORDER BY id')
  t.is(count.get()?.rows, 401)
  const asked: number[] = []
  db.setAuthorizer((action) => {
    asked.push(action)
    return constants.SQLITE_OK
  })
  const worker = new Worker(new URL('children/healing-worker.mjs', import.meta.url), { workerData: file })
  t.deepEqual(await once(worker, 'message'), [401])
  const rows = iterated.iterate()
  t.is(rows.next().value?.id, 1)

  meddle('delete', file)
  // The worker's idle handle is closed for it, and this thread's, in the middle of an iteration.
  const receipt = await db.appendAgentLogs(entriesOf('after', 50))
  t.deepEqual([receipt.committed, receipt.firstId, receipt.lastId], [50, 402, 451])
  t.throws(() => rows.next(), { code: 'ERR_INVALID_STATE' })
  t.is(count.get()?.rows, 451)
  t.is(computed.get()?.sum, 451 * 452)
  t.is(iterated.all().length, 451)
  asked.length = 0
  t.is(db.prepare('PRAGMA cache_size').get()?.cache_size, 123)
  t.true(asked.includes(constants.SQLITE_PRAGMA))
  worker.postMessage('count')
  t.deepEqual(await once(worker, 'message'), [451])
  t.deepEqual(
    healed.map(([error, remedy]) => [error.code, remedy]),
    [['ERR_FUSION_STALE', 'reopened']],
  )
  t.is(db.stats().healed, 1)
  worker.postMessage('close')
  await once(worker, 'exit')
  db.setAuthorizer(null)
  await inTransaction('written in another transaction')
  await db.closeAsync()
  await found(t, file, 452)
})

unix('what only a handle without a log entry has open is saved through it', async (t) => {
  const file = path.join(await temporaryFolder(t), 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, options)
  const add = db.prepare("INSERT INTO __meta VALUES (?, 'kept')")
  add.run('first')
  meddle('delete', file)
  const lost: string[] = []
  db.on('error', (error) => lost.push(error.code))
  db.on('healed', (_, remedy) => lost.push(remedy))
  // The writer opens its connection only now.
  t.is((await db.appendAgentLogs(entriesOf('after', 5))).committed, 5)
  t.is(db.prepare("SELECT value FROM __meta WHERE key = 'first'").get()?.value, 'kept')
  t.is(lost.at(-1), 'reopened')
  add.run('second')
  await db.closeAsync()
  await found(t, file, 5)
})

unix('a thread that stands still lets its connection go', async (t) => {
  const { file, db } = await opened(t)
  meddle('delete', file)
  t.true(db.appendAgentLog(entriesOf('after', 1)[0]!))
  db.flushAgentLogsSync(30_000)
  t.is(db.prepare(COUNT).get()?.rows, 401)
  db.close()
  await found(t, file, 401)
})

unix('what cannot be carried over is not dropped silently', async (t) => {
  const { file, db } = await opened(t)
  const mine = new HardenedDatabase(file, options)
  mine.exec("CREATE TEMP TABLE mine AS SELECT 'kept' AS word")
  meddle('delete', file)
  const appended = db.appendAgentLogs(entriesOf('after', 5))
  const wedged = async () => {
    for (;;) {
      try {
        mine.prepare('SELECT word FROM mine').get()
      } catch (error) {
        return error as Failed
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const error = await wedged()
  t.is(error.code, 'ERR_FUSION_WEDGED')
  t.regex(error.message, /temporary tables/)
  // It would use the deleted files, too, and be one more that the log has to wait for.
  t.throws(() => new DatabaseSync(file), { code: 'ERR_FUSION_WEDGED' })
  mine.close()
  t.is((await appended).committed, 5)
  mine.open()
  t.is(mine.prepare(COUNT).get()?.rows, 405)
  mine.close()
  await db.closeAsync()
  await found(t, file, 405)
})

unix('a transaction on files that were left behind reads on, and writes nothing', async (t) => {
  const { file, db } = await opened(t)
  const before = statSync(file).mtimeMs
  const other = new HardenedDatabase(file, options)
  other.exec('BEGIN; SELECT count(*) FROM tasks')
  meddle('delete', file)
  // Reading, it does not keep the log from leaving the files behind; it is waited for, however.
  const appended = db.appendAgentLogs(entriesOf('after', 5))
  const insert = () => other.exec("INSERT INTO tasks (id, createdAt, updatedAt) VALUES ('T-99', '', '')")
  // What was in the old WAL only is saved first, and no transaction writes there any more: SQLite says
  // that the snapshot is not the newest one.
  while (statSync(file).mtimeMs === before) await new Promise((resolve) => setImmediate(resolve))
  for (;;) {
    const { errcode } = t.throws(insert) as unknown as Failed
    if (errcode === 517) break
    t.is(errcode, 5)
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.is(other.prepare('SELECT count(*) AS rows FROM agentLogEntries').get()?.rows, 400)
  other.exec('ROLLBACK')
  t.false(other.isTransaction)
  t.is((await appended).committed, 5)
  t.is(other.prepare("SELECT count(*) AS rows FROM tasks WHERE id = 'T-99'").get()?.rows, 0)
  insert()
  other.close()
  await db.closeAsync()
  await found(t, file, 405)
})

// The file size that a process may reach ends in the middle of a COMMIT: it fails after SQLite has
// begun to write it down.
unix('a COMMIT that fails half way is not reported as done, nor made twice', async (t) => {
  const file = path.join(await temporaryFolder(t), 'fusion.db')
  await createDatabase(file)
  try {
    execFileSync('prlimit', ['--version'], { stdio: 'pipe' })
  } catch {
    t.log('skipped: no prlimit here')
    return t.pass()
  }
  const child = new Child('half-commit.mjs', [file])
  const { committed, appended, error, events, again } = await child.hear('done')
  t.deepEqual(committed, ['ERR_FUSION_COMMIT_UNKNOWN', 778, false])
  t.deepEqual(appended, ['ERR_FUSION_COMMIT_UNKNOWN', 778, false])
  t.is(error, 778)
  t.deepEqual(events, ['error'])
  t.deepEqual(again, [30, 1])
  t.is((await child.ended).code, 0)
  await found(t, file, 40)
})

unix('damage is reported to a handle that cannot be opened any more, and it has figures', async (t) => {
  const file = path.join(await temporaryFolder(t), 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { ...options, onCorruption: 'report' })
  const corrupt: Failed[] = []
  db.on('corrupt', (error) => corrupt.push(error as Failed))
  await db.appendAgentLogs(entriesOf('before', 1))
  await db.checkpoint('truncate')
  truncateSync(file, 0)
  while (corrupt.length === 0) {
    // One that is written with the pages that SQLite remembers leaves a WAL to an empty file.
    await db.appendAgentLogs(entriesOf('after', 1)).catch(() => {})
    t.throws(() => db.prepare(COUNT).all())
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.is(corrupt[0]?.path, file)
  t.is(db.stats().state, 'stopped')
  db.takePending()
  t.notThrows(() => db.close())
})

unix('files that are deleted again and again cost no row of a DatabaseSync next to the log', async (t) => {
  const file = path.join(await temporaryFolder(t), 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, options)
  t.teardown(() => db.close())
  db.exec('CREATE TABLE plain (n INTEGER)')
  await db.appendAgentLogs(entriesOf('first', 1, 'd'))
  const reopened = () => new DatabaseSync(file, { timeout: 10_000 })
  let plain = reopened()
  t.teardown(() => plain.close())
  let rows = 0
  // A program that opens the database again after each failure, and reads only with its next call.
  const insert = () => {
    try {
      plain.exec(`INSERT INTO plain VALUES (${rows})`)
      rows++
    } catch {
      plain.close()
      plain = reopened()
    }
  }
  insert()
  for (let round = 0; round < 6; round++) {
    for (const ending of ['-wal', '-shm']) rmSync(file + ending, { force: true })
    const append = db.appendAgentLogs(entriesOf(`round ${round}`, 1, 'd')).then(() => 'appended')
    const turn = () => new Promise((resolve) => setImmediate(resolve))
    do insert()
    while ((await Promise.race([append, turn()])) !== 'appended')
  }
  t.is(db.prepare(COUNT).get()?.rows, 7)
  t.is(db.prepare('SELECT count(*) AS rows FROM plain').get()?.rows, rows)
  t.true(rows > 0)
})
