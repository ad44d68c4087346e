// The option journalMode: a database that is kept in rollback mode, and what works there.

import { closeSync, openSync, readdirSync, writeSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync as NodeDatabase } from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase, type RecoveryReport, appendAgentLogs, check, recover } from '../index.js'
import {
  Other,
  changeCounter,
  count,
  createSchema,
  entries,
  entry,
  folder,
  nextEvent,
  open,
  seenByAnotherProcess,
  texts,
} from './support.ts'

const KEEP = { journalMode: 'keep' as const }
const BIG = `CREATE TABLE big (a); WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 3000)
  INSERT INTO big SELECT randomblob(3500) FROM c`

const mode = (db: HardenedDatabase) => db.prepare('PRAGMA journal_mode').get()?.journal_mode

/** A database of rollback mode with Fusion's schema, made by node:sqlite, and closed. */
function rollback(t: ExecutionContext, more = ''): string {
  const file = path.join(folder(t), 'fusion.db')
  const db = new NodeDatabase(file)
  createSchema(db)
  db.exec(more)
  db.close()
  return file
}

test('a new file and one in rollback mode stay so: SQL, log, change counter, closing', async (t) => {
  for (const file of [rollback(t), path.join(folder(t), 'new.db')]) {
    const db = open(t, KEEP, file)
    createSchema(db)
    t.is(mode(db), 'delete')
    const before = changeCounter(db)
    t.is((await db.appendAgentLogs(entries(10))).committed, 10)
    t.true(db.appendAgentLog(entry('single')))
    db.flushAgentLogsSync()
    t.is(count(db), 11)
    t.true(changeCounter(db) > before)
    t.is((await appendAgentLogs(file, entries(1))).committed, 1)
    const outcome = await db.checkpoint('truncate')
    t.deepEqual([outcome.busy, outcome.frames, outcome.backfilled], [false, 0, 0])
    t.is(db.stats().wal.bytes, 0)
    db.exec('BEGIN IMMEDIATE')
    db.appendAgentLog(entry('inside'))
    await db.flushAgentLogs()
    db.exec('COMMIT')
    await db.closeAsync()
    t.deepEqual(
      readdirSync(path.dirname(file)).filter((name) => /-(wal|shm|journal)$/.test(name)),
      [],
    )
    const again = await HardenedDatabase.open(file, KEEP)
    t.is(mode(again), 'delete')
    t.is(count(again), 13)
    again.close()
  }
})

test('a file in WAL mode stays in WAL mode, with everything as usual', async (t) => {
  const file = rollback(t, 'PRAGMA journal_mode = WAL')
  const db = open(t, { ...KEEP, checkpointIdle: 60_000 }, file)
  t.is(mode(db), 'wal')
  await db.appendAgentLogs(entries(10))
  t.true((await db.checkpoint()).frames > 0)
})

test('handles of one process agree: the default follows, and wal is a conflict', async (t) => {
  const file = rollback(t)
  const kept = open(t, KEEP, file)
  const follows = open(t, undefined, file)
  t.is(mode(follows), 'delete')
  t.is((await follows.appendAgentLogs(entries(3))).committed, 3)
  t.throws(() => new HardenedDatabase(file, { journalMode: 'wal' }), { code: 'ERR_FUSION_OPTIONS_CONFLICT' })
  t.is(mode(kept), 'delete')
  await kept.closeAsync()
  await follows.closeAsync()
  const wal = open(t, { journalMode: 'wal' }, file)
  t.is(mode(wal), 'wal')
  t.throws(() => new HardenedDatabase(file, KEEP), { code: 'ERR_FUSION_OPTIONS_CONFLICT' })
})

test('a program that changes the mode by PRAGMA is obeyed by every later open of the process', async (t) => {
  const file = path.join(folder(t), 'central.db')
  const db = open(t, undefined, file)
  t.is(db.prepare('PRAGMA journal_mode = DELETE').get()?.journal_mode, 'delete')
  createSchema(db)
  t.is((await db.appendAgentLogs(entries(5))).committed, 5)
  t.is(mode(db), 'delete')
  await db.closeAsync()
  const again = open(t, undefined, file)
  t.is(mode(again), 'delete')
  t.is(again.prepare('PRAGMA journal_mode = WAL').get()?.journal_mode, 'wal')
  t.is((await again.appendAgentLogs(entries(5))).committed, 5)
  await again.closeAsync()
  const last = open(t, undefined, file)
  t.is(mode(last), 'wal')
  t.is(count(last), 10)
})

test('a handle that only reads leaves the mode, unless it insists', (t) => {
  const file = rollback(t)
  t.is(mode(open(t, { readOnly: true }, file)), 'delete')
  t.throws(() => new HardenedDatabase(file, { readOnly: true, journalMode: 'wal' }), { code: 'ERR_FUSION_NOT_WAL' })
  for (const journalMode of ['delete', 'WAL', true, 1]) {
    t.throws(() => new HardenedDatabase(file, { journalMode: journalMode as never }), { code: 'ERR_OUT_OF_RANGE' })
  }
})

test('processes that append to one file wait for one another, and nothing is lost', async (t) => {
  const file = rollback(t)
  const others = ['a', 'b'].map((name) => new Other(t, 'keeps.mjs', [file, name, '20']))
  const db = open(t, KEEP, file)
  for (let i = 0; i < 20; i++) await db.appendAgentLogs(entries(5, `here ${i}.`))
  for (const other of others) {
    const { code, output } = await other.ended
    t.is(code, 0, output)
    t.regex(output, /mode delete/)
  }
  t.is(count(db), 300)
  await db.closeAsync()
  t.is((await seenByAnotherProcess(t, file)).integrity, 'ok')
})

test('what was acknowledged survives a SIGKILL, hot journal or not', async (t) => {
  const file = rollback(t)
  for (let round = 0; round < 4; round++) {
    const other = new Other(t, 'keeps.mjs', [file, `${round}`, '1000'])
    await other.says(`kept ${round} ${3 + round}`)
    other.process.kill('SIGKILL')
    const { output } = await other.ended
    const kept = [...output.matchAll(/^kept (.*)$/gm)].map(([, name]) => name)
    const db = open(t, KEEP, file)
    t.is(mode(db), 'delete')
    const stored = new Set(texts(db))
    for (const name of kept) for (let row = 0; row < 5; row++) t.true(stored.has(`${name}.${row}`))
    t.true((await db.check()).ok)
    await db.closeAsync()
  }
})

test('a flush in the middle of a read is not a wait for oneself', async (t) => {
  const db = open(t, { ...KEEP, closeTimeout: 10_000, linger: 60_000 }, rollback(t))
  await db.appendAgentLogs(entries(3))
  let rows = 0
  for (const row of db.prepare('SELECT id FROM agentLogEntries').iterate()) {
    t.truthy(row)
    if (++rows > 3) break
    db.appendAgentLog(entry('while it reads'))
    db.flushAgentLogsSync()
  }
  db.exec('BEGIN')
  t.is(count(db), 6)
  db.appendAgentLog(entry('in a transaction'))
  await db.flushAgentLogs()
  db.exec('COMMIT')
  t.is(count(db), 7)
})

test('a backup lets others commit between its steps', async (t) => {
  const file = rollback(t, BIG)
  const db = open(t, KEEP, file)
  let commits = 0
  const made = await db.backup(`${file}.copy`, {
    // Thousands of steps: the copy is far from its end when the first is reported.
    rate: 1,
    progress({ stage, done, total }) {
      if (stage !== 'copying') return
      if (commits === 0 && done < total / 2) {
        db.exec("INSERT INTO big VALUES ('meanwhile')")
        commits++
      }
    },
  })
  t.is(commits, 1)
  // It was made in the middle: the copy has begun again, and has it.
  t.true(made.health?.ok)
  t.is(mode(db), 'delete')
  const copy = new NodeDatabase(made.path, { readOnly: true })
  t.is(copy.prepare("SELECT count(*) AS n FROM big WHERE a = 'meanwhile'").get()?.n, 1)
  copy.close()
})

test('a backup of a file that is written to all the time comes to an end', async (t) => {
  const file = rollback(t, BIG)
  const db = open(t, KEEP, file)
  const other = new Other(t, 'keeps.mjs', [file, 'busy', '100000'])
  await other.says('kept busy 1')
  const made = await db.backup(`${file}.copy`, { rate: 50 })
  t.true(made.health?.ok)
  other.process.kill('SIGKILL')
  await other.ended
})

test('other connections commit during a check', async (t) => {
  const file = rollback(t, BIG)
  const db = open(t, { ...KEEP, busyTimeout: 0 }, file)
  let commits = 0
  let over = false
  const health = check(file, {
    kind: 'full',
    progress() {
      if (over) return
      db.exec("INSERT INTO big VALUES ('meanwhile')")
      commits++
    },
  }).finally(() => (over = true))
  t.true((await health).ok)
  t.true(commits > 0)
  t.is((await health).path, file)
})

test('a backup is restored, and the mode stays', async (t) => {
  const file = rollback(t, BIG)
  const db = open(t, { ...KEEP, onCorruption: 'report' }, file)
  await db.appendAgentLogs(entries(50))
  await db.backup()
  await db.appendAgentLogs(entries(1, 'later '))
  await db.restore(`${file}.backup`)
  t.is(count(db), 50)
  t.is(mode(db), 'delete')
  t.is((await db.appendAgentLogs(entries(2))).committed, 2)
  t.is((await recover(file)).outcome, 'healthy')
  await db.closeAsync()
  t.is(mode(open(t, KEEP, file)), 'delete')
})

test('a damaged file is repaired when it is opened and by its writer, and the mode stays', async (t) => {
  const file = rollback(t)
  const filled = open(t, KEEP, file)
  await filled.appendAgentLogs(entries(2000, `${'x'.repeat(100)} `))
  await filled.closeAsync()
  const damage = (page: number) => {
    const descriptor = openSync(file, 'r+')
    writeSync(descriptor, Buffer.alloc(4096, 0x5a), 0, 4096, 4096 * page)
    closeSync(descriptor)
  }
  damage(40)
  const db = open(t, KEEP, file)
  t.is(((await nextEvent(db, 'recovered')) as [RecoveryReport])[0].outcome, 'salvaged')
  t.is(mode(db), 'delete')
  t.is((await db.appendAgentLogs([entry('after')])).committed, 1)
  damage(30)
  const again = nextEvent(db, 'recovered')
  t.throws(() => db.prepare('SELECT sum(length(text)) FROM agentLogEntries').get(), { message: /malformed/ })
  t.is((await db.appendAgentLogs([entry('later')])).committed, 1)
  t.is(((await again) as [RecoveryReport])[0].outcome, 'salvaged')
  t.is(mode(db), 'delete')
  t.true((await db.check()).ok)
})
