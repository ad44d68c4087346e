// What happens before a file is opened: it is looked at, and nothing is written to it if it is
// damaged. Two processes, real damage, files compared byte by byte.

import { copyFileSync, existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type FusionSqliteError, type Health, HardenedDatabase } from '../index.js'
import { filled, leaves, leftInWal, sql, withIndexOutOfStep, withStaleWal, writePage } from './helpers/damage.ts'
import { count, database, entries, nextEvent, open, openInMemory, Other } from './support.ts'

/** A database whose log table lost pages. */
async function damagedTable(t: ExecutionContext): Promise<string> {
  const file = await filled(t, 2000)
  for (const page of leaves(file, 'agentLogEntries').slice(-20)) writePage(file, page)
  return file
}

/** Opens `file`, which is to be refused. */
function refused(t: ExecutionContext, file: string, options: object = {}): FusionSqliteError {
  const error = t.throws(() => new HardenedDatabase(file, options)) as FusionSqliteError
  t.is(error.code, 'ERR_FUSION_DAMAGED', error.message)
  t.is(error.path, file)
  return error
}

const types = (health: Health | null | undefined) => health?.findings.map((finding) => finding.type)

test('a small file is checked before it is opened, and once', async (t) => {
  const file = await filled(t, 100)
  const first = open(t, undefined, file)
  const { health } = first.stats()
  t.like(health, { ok: true, kind: 'quick', path: file })
  const second = open(t, { startupCheck: 'full' }, file)
  t.deepEqual(second.stats().health, health)
  t.is((await first.appendAgentLogs(entries(1))).committed, 1)
})

test('a damaged table is refused by a typed error, and no byte is written', async (t) => {
  const file = await damagedTable(t)
  const before = readFileSync(file)
  const error = refused(t, file, { onCorruption: 'throw' })
  t.like(error, { errcode: 11, errstr: 'database disk image is malformed' })
  t.true(types(error.health)?.includes('tableDamage'))
  t.regex(
    error.message,
    /the table agentLogEntries is damaged on 20 pages .*nothing was written|nothing was written.*agentLogEntries/,
  )
  t.true(readFileSync(file).equals(before))
})

test('open() refuses it likewise, off the event loop', async (t) => {
  const file = await damagedTable(t)
  const error = (await t.throwsAsync(HardenedDatabase.open(file, { onCorruption: 'throw' }))) as FusionSqliteError
  t.is(error.code, 'ERR_FUSION_DAMAGED')
  t.true(types(error.health)?.includes('tableDamage'))
})

test('open() opens a sound file, and a class of its own', async (t) => {
  class Own extends HardenedDatabase {}
  const file = await filled(t, 10)
  const db = await Own.open(file)
  t.teardown(() => db.close())
  t.true(db instanceof Own)
  t.like(db.stats().health, { ok: true, kind: 'quick' })
  t.is(count(db), 10)
  const fresh = await HardenedDatabase.open(path.join(path.dirname(file), 'new.db'))
  t.is(fresh.stats().health, null)
  fresh.close()
  const memory = await HardenedDatabase.open(':memory:')
  t.true(memory.isOpen)
  memory.close()
  await t.throwsAsync(HardenedDatabase.open(file, { startupCheck: 'deep' as never }), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(HardenedDatabase.open(7 as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

test("with 'report' a damaged file is opened, the writer writes nothing, and both events tell", async (t) => {
  const file = await damagedTable(t)
  const before = readFileSync(file)
  const db = new HardenedDatabase(file, { onCorruption: 'report' })
  t.teardown(() => {
    db.takePending()
    db[Symbol.dispose]()
  })
  const [[corrupt], [health]] = (await Promise.all([nextEvent(db, 'corrupt'), nextEvent(db, 'check')])) as [
    [FusionSqliteError],
    [Health],
  ]
  t.is(corrupt.code, 'ERR_FUSION_DAMAGED')
  t.true(types(corrupt.health)?.includes('tableDamage'))
  t.true(types(health)?.includes('tableDamage'))
  await t.throwsAsync(db.appendAgentLogs(entries(1)))
  t.is(db.stats().state, 'stopped')
  t.true(readFileSync(file).equals(before))
  t.is((db.prepare('SELECT count(*) AS n FROM tasks').get() as { n: number }).n, 1, 'what is whole can be read')
})

test("an index out of step is refused by a 'quick' check too, where its entries do not add up", async (t) => {
  const { file } = await withIndexOutOfStep(t)
  t.deepEqual(types(refused(t, file, { onCorruption: 'throw' }).health), ['indexDamage'])
})

test('a check that is off lets the first read tell, by the same error', async (t) => {
  const file = await filled(t, 10)
  writePage(file, 1)
  const error = refused(t, file, { startupCheck: 'off', onCorruption: 'throw' })
  t.like(error, { errcode: 26, errstr: 'file is not a database' })
  t.deepEqual(types(error.health), ['notADatabase'])
})

test('a schema format that no SQLite knows is damage, whoever meets it first', async (t) => {
  for (const startupCheck of ['off', 'quick'] as const) {
    const file = await filled(t, 200)
    const bytes = readFileSync(file)
    bytes.writeUInt32BE(5, 44)
    writeFileSync(file, bytes)
    const error = refused(t, file, { startupCheck, onCorruption: 'throw' })
    t.deepEqual(types(error.health) ?? ['header'], ['header'])
    t.true(readFileSync(file).equals(bytes))
    const db = open(t, {}, file)
    t.is(count(db), 200)
  }
})

test('a stale WAL is put aside whole, by open() and by the constructor, and the file is used as it is', async (t) => {
  for (const opens of [
    (file: string) => new HardenedDatabase(file, { onCorruption: 'recover' }),
    (file: string) => HardenedDatabase.open(file),
  ]) {
    const file = await withStaleWal(t)
    const [main, wal] = [readFileSync(file), readFileSync(`${file}-wal`)]
    const warned = new Promise<Error & { code?: string }>((resolve) => process.once('warning', resolve))
    const db = await opens(file)
    const health = (await nextEvent(db, 'check'))[0] as Health
    t.deepEqual(types(health), ['staleWal'], 'what was found')
    t.like(await warned, { code: 'FUSION_STALE_WAL' })
    t.true(db.stats().health?.ok)
    t.true(readFileSync(file).equals(main), 'nothing of it was applied')
    const aside = readdirSync(path.dirname(file)).find((name) => name.startsWith('fusion.db-wal.stale-'))
    t.regex(aside ?? '', /^fusion\.db-wal\.stale-\d{8}T\d{6}Z$/)
    t.true(readFileSync(path.join(path.dirname(file), aside ?? '')).equals(wal), 'nothing of it was lost')
    t.is((await db.appendAgentLogs(entries(1))).committed, 1)
    db.close()
  }
})

test('a stale WAL stays where it is while another process has the file open', async (t) => {
  const file = await withStaleWal(t)
  const other = new Other(t, 'leaves-wal.mjs', [file, 'PRAGMA schema_version'])
  await other.says('done')
  const error = t.throws(() => new HardenedDatabase(file)) as FusionSqliteError
  t.regex(error.message, /no other connection.*has the database open/)
  t.true(existsSync(`${file}-wal`))
  other.process.kill('SIGKILL')
  await other.ended
  const db = open(t, undefined, file)
  t.true(db.stats().health?.ok)
})

test("with 'throw' a stale WAL is told and left alone", async (t) => {
  const file = await withStaleWal(t)
  const wal = readFileSync(`${file}-wal`)
  t.deepEqual(types(refused(t, file, { onCorruption: 'throw' }).health), ['staleWal'])
  t.true(readFileSync(`${file}-wal`).equals(wal))
})

test('what a killed process committed is checked and kept', async (t) => {
  const file = await filled(t, 500)
  await leftInWal(t, file, `UPDATE agentLogEntries SET text = 'kept'`)
  const db = open(t, undefined, file)
  t.like(db.stats().health, { ok: true })
  t.is((db.prepare(`SELECT count(*) AS n FROM agentLogEntries WHERE text = 'kept'`).get() as { n: number }).n, 500)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
})

test('a deleted WAL is told when the file is opened, with what it had', async (t) => {
  const file = await filled(t, 10)
  await leftInWal(t, file, `UPDATE __meta SET value = '1'`)
  rmSync(`${file}-wal`)
  const db = open(t, undefined, file)
  const [health] = (await nextEvent(db, 'check')) as [Health]
  t.deepEqual(health.findings, [{ type: 'walDeleted', frames: 1 }])
  t.true(health.ok)
})

test('a large file is checked in the background, and its event tells', async (t) => {
  const file = database(t)
  sql(
    file,
    `CREATE TABLE bulk (text); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
     INSERT INTO bulk SELECT hex(randomblob(250)) FROM n`,
  )
  const db = open(t, undefined, file)
  t.is(db.stats().health, null, 'not yet')
  const [health] = (await nextEvent(db, 'check')) as [Health]
  t.like(health, { ok: true, kind: 'quick' })
  t.deepEqual(db.stats().health, health)
  const again = open(t, undefined, file)
  t.deepEqual(again.stats().health, health)
})

test('damage that the check in the background finds stops the writer, and nothing is written', async (t) => {
  const file = await damagedTable(t)
  const db = new HardenedDatabase(file, { startupCheck: 'background', onCorruption: 'throw' })
  t.teardown(() => {
    db.takePending()
    db[Symbol.dispose]()
  })
  const [[corrupt], [health]] = (await Promise.all([nextEvent(db, 'corrupt'), nextEvent(db, 'check')])) as [
    [FusionSqliteError],
    [Health],
  ]
  t.is(corrupt.code, 'ERR_FUSION_DAMAGED')
  t.true(types(health)?.includes('tableDamage'))
  await t.throwsAsync(db.appendAgentLogs(entries(1)))
})

test('damage that a statement meets is noticed at once, without anything being appended', async (t) => {
  const file = await damagedTable(t)
  const db = new HardenedDatabase(file, { startupCheck: 'off', onCorruption: 'throw' })
  t.teardown(() => {
    db.takePending()
    db[Symbol.dispose]()
  })
  const told = nextEvent(db, 'corrupt')
  t.throws(() => db.prepare('SELECT max(length(text)) FROM agentLogEntries').get(), { message: /malformed/ })
  const [corrupt] = (await told) as [FusionSqliteError]
  t.is(corrupt.code, 'ERR_FUSION_DAMAGED')
  t.is(db.stats().state, 'stopped')
})

test('a file that somebody holds is not taken for damaged: the constructor waits its timeout and says busy', async (t) => {
  const file = await filled(t, 10)
  sql(file, 'PRAGMA journal_mode = DELETE')
  const other = new Other(t, 'leaves-wal.mjs', [file, 'BEGIN EXCLUSIVE'])
  await other.says('done')
  const error = t.throws(() => new HardenedDatabase(file, { busyTimeout: 0 })) as FusionSqliteError
  t.is((error.errcode ?? 0) & 0xff, 5, error.message)
  t.not(error.code, 'ERR_FUSION_DAMAGED')
})

test('a file that replaced one that is open is refused while that one is', async (t) => {
  const file = await filled(t, 10)
  const old = open(t, undefined, file)
  const copy = path.join(path.dirname(file), 'copy.db')
  copyFileSync(file, copy)
  renameSync(copy, file)
  t.true(types(refused(t, file).health)?.includes('replaced'))
  t.true(old.isOpen)
})

test('a read-only handle is refused a damaged file, or told of it', async (t) => {
  const file = await damagedTable(t)
  refused(t, file, { readOnly: true })
  const db = open(t, { readOnly: true, onCorruption: 'report' }, file)
  const [corrupt] = (await nextEvent(db, 'corrupt')) as [FusionSqliteError]
  t.is(corrupt.code, 'ERR_FUSION_DAMAGED')
})

test('what is new, empty or in memory is opened without a check', async (t) => {
  const file = database(t)
  const empty = path.join(path.dirname(file), 'empty.db')
  writeFileSync(empty, '')
  for (const name of [empty, path.join(path.dirname(file), 'new.db')]) {
    t.is(open(t, { startupCheck: 'full' }, name).stats().health, null)
  }
  t.is(openInMemory(t, { startupCheck: 'full' }).stats().health, null)
})

test('the options are checked', (t) => {
  const file = database(t)
  for (const bad of [
    { startupCheck: 'deep' },
    { startupCheck: true },
    { onCorruption: 'ignore' },
    { onCorruption: 1 },
  ]) {
    t.throws(() => new HardenedDatabase(file, bad as never), { code: 'ERR_OUT_OF_RANGE' })
  }
})

test('a damaged file that somebody else has locked is refused with what to do', async (t) => {
  const { file } = await withIndexOutOfStep(t)
  const holder = open(t, { startupCheck: 'off', onCorruption: 'report' }, file)
  holder.exec('BEGIN IMMEDIATE')
  // Waits for a minute for others.
  const binding = createRequire(import.meta.url)('../binding.js') as {
    recoverNow(path: string, patience: number, keepCopies: number): string
  }
  const { recoverNow } = binding
  binding.recoverNow = (path, _, keepCopies) => recoverNow(path, 1, keepCopies)
  try {
    const error = t.throws(() => new HardenedDatabase(file, { startupCheck: 'full' })) as FusionSqliteError
    t.is(error.errcode, 5)
    t.regex(error.message, /damaged.*in use; nothing was changed.*fusion-sqlite info .*fusion-sqlite doctor /)
    t.is(error.path, file)
  } finally {
    binding.recoverNow = recoverNow
  }
  holder.exec('COMMIT')
  holder.close()
  t.notThrows(() => open(t, { startupCheck: 'full' }, file).close())
})
