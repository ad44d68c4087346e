// Backups and restores of a database that is in use: what is in them, who notices, and what stays
// as it was. What happens between processes down to SIGKILL is in tests/backups.rs.

import { randomBytes } from 'node:crypto'
import { open, readFile, readdir, writeFile } from 'node:fs/promises'
import { DatabaseSync as NodeDatabase } from 'node:sqlite'
import path from 'node:path'
import test from 'ava'
import {
  type BackupResult,
  type FusionSqliteError,
  HardenedDatabase,
  type HardenedDatabaseOptions,
  restore,
} from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { Child, findings } from './children/start.ts'

/** Rows of the log at `file`, as a fresh process finds them, and that the file is in order. */
async function rowsOf(t: Parameters<typeof temporaryFolder>[0], file: string) {
  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  return found.texts.length
}

/** Rows of the log in a backup, read so that nothing is left beside it. */
function countIn(file: string) {
  const reader = new NodeDatabase(file, { readOnly: true })
  try {
    return reader.prepare('SELECT count(*) AS n FROM agentLogEntries').get()?.['n']
  } finally {
    reader.close()
  }
}

async function filled(t: Parameters<typeof temporaryFolder>[0], options?: HardenedDatabaseOptions) {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, options)
  t.teardown(() => db[Symbol.dispose]())
  await db.appendAgentLogs(entriesOf('first', 200, 'd'.repeat(500)))
  return { folder, file, db }
}

/** Scribbles over the pages of the log table, but for its root. */
async function damage(db: HardenedDatabase, file: string) {
  await db.checkpoint('truncate')
  const pages = db
    .prepare(
      `SELECT pageno FROM dbstat WHERE name = 'agentLogEntries' AND pagetype = 'leaf' ORDER BY pageno DESC LIMIT 5`,
    )
    .all() as { pageno: number }[]
  const handle = await open(file, 'r+')
  for (const { pageno } of pages) await handle.write(randomBytes(4096), 0, 4096, (pageno - 1) * 4096)
  await handle.close()
}

test('a backup holds what was committed, in one file that any SQLite reads', async (t) => {
  const { folder, file, db } = await filled(t)
  const stages = new Set<string>()
  const result = await db.backup(undefined, { rate: 5, progress: ({ stage }) => stages.add(stage) })
  t.is(result.path, `${file}.backup`)
  t.true(result.verified)
  t.true(result.health?.ok)
  t.deepEqual(result.kept, [])
  t.is(result.bytes, result.pages * 4096)
  t.true(stages.has('copying') && stages.size > 1)
  t.is(countIn(result.path), 200)
  const reader = new NodeDatabase(result.path, { readOnly: true })
  t.is(reader.prepare('PRAGMA journal_mode').get()?.['journal_mode'], 'delete')
  reader.close()
  const beside = (await readdir(folder)).filter((name) => name.includes('.backup'))
  t.deepEqual(beside, ['fusion.db.backup'])
})

test('generations rotate, and none is lost to a database that is damaged', async (t) => {
  const { file, db } = await filled(t, { onCorruption: 'report' })
  db.on('corrupt', () => {})
  await db.backup()
  await db.appendAgentLogs(entriesOf('second', 10))
  await db.backup()
  await db.appendAgentLogs(entriesOf('third', 10))
  const third = await db.backup(undefined, { keep: 3, verify: 'quick' })
  t.deepEqual(third.kept, [`${file}.backup.1`, `${file}.backup.2`])
  await damage(db, file)
  const before = await Promise.all([third.path, ...third.kept].map((name) => readFile(name)))
  const error = (await t.throwsAsync(db.backup(), { code: 'ERR_FUSION_BACKUP_DAMAGED' })) as FusionSqliteError
  t.is(error.path, file)
  t.false(error.health?.ok)
  t.true((error.health?.findings.length ?? 0) > 0)
  t.deepEqual(await Promise.all([third.path, ...third.kept].map((name) => readFile(name))), before)
  t.is(await rowsOf(t, third.path), 220)
  t.is(await rowsOf(t, `${file}.backup.1`), 210)
  t.is(await rowsOf(t, `${file}.backup.2`), 200)
})

test('a restore brings rows back under the handles that are open, and keeps what it replaces', async (t) => {
  const { file, db } = await filled(t)
  const other = new NodeDatabase(file)
  const count = other.prepare('SELECT count(*) AS n FROM agentLogEntries')
  const own = db.prepare('SELECT count(*) AS n FROM agentLogEntries')
  const { path: from } = await db.backup()
  // Pending when the restore is asked for: committed before it, and so among what is kept.
  db.appendAgentLog({ taskId: 'T-1', type: 'text', text: 'pending' })
  db.exec('CREATE TABLE since (x)')
  const result = await db.restore(from)
  t.is(result.path, file)
  t.is(result.from, from)
  t.is(own.get()?.['n'], 200)
  t.is(count.get()?.['n'], 200)
  other.close()
  t.throws(() => db.prepare('SELECT * FROM since'), { code: 'ERR_SQLITE_ERROR' })
  t.is(await rowsOf(t, result.preserved?.database ?? ''), 201)
  // The writer goes on, with its statements prepared anew.
  t.is((await db.appendAgentLogs(entriesOf('after', 3))).committed, 3)
  await db.closeAsync()
  t.is(await rowsOf(t, file), 203)
})

test('another process sees a restore as a commit and writes on', async (t) => {
  const { folder, file, db } = await filled(t)
  const { path: from } = await db.backup()
  await db.appendAgentLogs(entriesOf('lost', 50))
  const child = new Child('daemon.mjs', [file, path.join(folder, 'acknowledged')])
  t.teardown(() => child.kill())
  await child.hear('ready')
  child.say('append')
  await child.hear('appended')
  await db.restore(from)
  child.say('append')
  await child.hear('appended')
  child.say('stop')
  t.is((await child.ended).code, 0)
  t.deepEqual(child.failures, [])
  await db.closeAsync()
  t.is(await rowsOf(t, file), 300)
})

test('restore() of the module makes a database that is gone, and repairs one that is damaged', async (t) => {
  const { folder, file, db } = await filled(t, { onCorruption: 'report' })
  const { path: from } = await db.backup()
  const gone = path.join(folder, 'gone.db')
  t.is((await restore(gone, from)).preserved, null)
  t.is(await rowsOf(t, gone), 200)
  await damage(db, file)
  const result = await restore(file, from)
  t.not(result.preserved, null)
  t.is(await rowsOf(t, file), 200)
})

test('a log that damage had stopped goes on after a restore, with the entries that it kept', async (t) => {
  const { file, db } = await filled(t, { onCorruption: 'report' })
  const told = new Promise<FusionSqliteError>((resolve) => db.once('corrupt', resolve))
  const { path: from } = await db.backup()
  await damage(db, file)
  await t.throwsAsync(db.backup(), { code: 'ERR_FUSION_BACKUP_DAMAGED' })
  db.appendAgentLog({ taskId: 'T-1', type: 'text', text: 'kept' })
  await t.throwsAsync(db.flushAgentLogs(), { code: 'ERR_SQLITE_ERROR' })
  t.is((await told).errcode, 11)
  t.is(db.stats().state, 'stopped')
  await db.restore(from)
  await db.flushAgentLogs()
  t.is(db.stats().state, 'writing')
  await db.closeAsync()
  t.is(await rowsOf(t, file), 201)
})

test('what cannot be restored from is refused and changes nothing', async (t) => {
  const { folder, file, db } = await filled(t)
  const { path: from } = await db.backup()
  const letter = path.join(folder, 'letter')
  await writeFile(letter, 'This is a letter and not a database. '.repeat(100))
  const damaged = (await t.throwsAsync(db.restore(letter), { code: 'ERR_FUSION_BACKUP_DAMAGED' })) as FusionSqliteError
  t.is(damaged.path, letter)
  t.deepEqual(
    damaged.health?.findings.map(({ type }) => type),
    ['notADatabase'],
  )
  await t.throwsAsync(db.restore(file), { code: 'ERR_FUSION_SAME_FILE' })
  const missing = (await t.throwsAsync(db.restore(`${file}.none`))) as FusionSqliteError
  t.is((missing.errcode ?? 0) & 0xff, 14)
  const letters = path.join(folder, 'empty')
  await writeFile(letters, '')
  await t.throwsAsync(db.restore(letters), { code: 'ERR_FUSION_RESTORE_EMPTY' })
  db.exec('BEGIN')
  await t.throwsAsync(db.restore(from), { code: 'ERR_INVALID_STATE' })
  db.exec('ROLLBACK')
  const names = await readdir(folder)
  const controller = new AbortController()
  const aborted = db.restore(from, { signal: controller.signal })
  controller.abort(new Error('no longer wanted'))
  await t.throwsAsync(aborted, { message: 'no longer wanted' })
  await t.throwsAsync(db.backup(undefined, { deadline: 0.001 }), { code: 'ERR_FUSION_DEADLINE' })
  t.deepEqual(await readdir(folder), names)
  t.is(await rowsOf(t, file), 200)
})

test('arguments are checked by name', async (t) => {
  const { file, db } = await filled(t)
  const type = { code: 'ERR_INVALID_ARG_TYPE' }
  const range = { code: 'ERR_OUT_OF_RANGE' }
  await t.throwsAsync(db.backup(''), type)
  await t.throwsAsync(db.backup('a\0b'), type)
  await t.throwsAsync(db.backup(undefined, { keep: 1 }), { ...range, message: /options\.keep/ })
  await t.throwsAsync(db.backup(undefined, { rate: 0.5 }), { ...range, message: /options\.rate/ })
  await t.throwsAsync(db.backup(undefined, { verify: true as never }), { ...type, message: /options\.verify/ })
  await t.throwsAsync(db.restore(7 as never), { ...type, message: /"from"/ })
  await t.throwsAsync(restore('', file), { ...type, message: /"path"/ })
  for (const [backups, expected] of [
    [true, type],
    [{ every: 5 }, { ...type, message: /options\.backups\.every/ }],
    [{ interval: 0 }, { ...range, message: /options\.interval/ }],
    [{ path: 5 }, type],
  ] as const) {
    t.throws(() => new HardenedDatabase(file, { backups: backups as never }), expected)
  }
  const memory = new HardenedDatabase(':memory:', { backups: {} })
  await t.throwsAsync(memory.backup(), { code: 'ERR_INVALID_STATE', message: /backup\(db, path\)/ })
  await t.throwsAsync(memory.restore(file), { code: 'ERR_INVALID_STATE' })
  memory.close()
  const readOnly = new HardenedDatabase(file, { readOnly: true })
  t.is((await readOnly.backup(`${file}.of-reader`)).path, `${file}.of-reader`)
  await t.throwsAsync(readOnly.restore(`${file}.of-reader`), { code: 'ERR_INVALID_STATE' })
  readOnly.close()
})

test('backups are made by themselves and told to every handle that asked for them', async (t) => {
  const backups = { interval: 20, keep: 3, verify: 'quick' } as const
  // Without backups, so that none was begun before the rows were there.
  const { file, db: filler } = await filled(t)
  await filler.closeAsync()
  const db = new HardenedDatabase(file, { backups })
  const second = new HardenedDatabase(file, { backups })
  t.teardown(() => db[Symbol.dispose]())
  t.teardown(() => second[Symbol.dispose]())
  const heardBySecond = new Promise<BackupResult>((resolve) => second.once('backup', resolve))
  const first = await new Promise<BackupResult>((resolve) => db.once('backup', resolve))
  t.is(first.path, `${file}.backup`)
  t.true(first.verified)
  t.deepEqual(await heardBySecond, first)
  t.is(countIn(first.path), 200)
  db.close()
  // The one that is left goes on, and what is new is in the next.
  const next = new Promise<BackupResult>((resolve) =>
    second.on('backup', (result) => countIn(result.path) === 201 && resolve(result)),
  )
  await second.appendAgentLogs(entriesOf('new', 1))
  t.deepEqual((await next).kept[0], `${file}.backup.1`)
  await second.closeAsync()
})

test('a failed backup of the schedule is an error event, and a process ends in spite of a schedule', async (t) => {
  const { folder, file, db } = await filled(t, {
    backups: { interval: 20, path: path.join(await temporaryFolder(t), 'no', 'such', 'folder') },
  })
  const error = await new Promise<FusionSqliteError>((resolve) => db.on('error', resolve))
  t.is((error.errcode ?? 0) & 0xff, 14)
  await db.closeAsync()
  const child = new Child('scheduled.mjs', [file, path.join(folder, 'by-child')])
  t.teardown(() => child.kill())
  const { code, stderr } = await child.ended
  t.is(code, 0, stderr)
})

test('the schema is kept beside the database for a repair', async (t) => {
  const { file, db } = await filled(t)
  db.exec('CREATE TABLE late (x); PRAGMA user_version = 5')
  await db.closeAsync()
  const [head, body = ''] = (await readFile(`${file}-schema`, 'utf8')).split('\n')
  t.regex(head ?? '', /^fusion-sqlite schema 1 [0-9a-f]{16}$/)
  const kept = JSON.parse(body) as { userVersion: number; schema: { name: string; root: number }[] }
  t.is(kept.userVersion, 5)
  const reader = new NodeDatabase(file, { readOnly: true })
  const roots = reader.prepare('SELECT name, rootpage FROM sqlite_schema ORDER BY rowid')
  roots.setReturnArrays(true)
  t.deepEqual(
    kept.schema.map(({ name, root }) => [name, root]),
    roots.all() as never,
  )
  reader.close()
})
