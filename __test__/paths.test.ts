// Relative paths: each call means the directory that is current when it is made.

import { existsSync, mkdirSync, readdirSync, realpathSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import {
  DatabaseSync,
  HardenedDatabase,
  appendAgentLogs,
  backup,
  backupFile,
  check,
  fileInfo,
  pageMap,
  recover,
  restore,
} from '../index.js'
import { count, createSchema, entries, entry, folder } from './support.ts'

const home = process.cwd()

/** Two folders, the first of them current. */
function folders(t: ExecutionContext): [string, string] {
  const made = [folder(t), folder(t)].map((one) => realpathSync(one)) as [string, string]
  // Torn down in reverse: this comes before the folders are removed.
  t.teardown(() => process.chdir(home))
  process.chdir(made[0])
  return made
}

function seed(file: string): void {
  const db = new HardenedDatabase(file)
  createSchema(db)
  db.close()
}

/** Each call on a relative path, and the file that it makes, if it makes one. */
const CALLS: Record<string, { call: (rel: (file: string) => never) => Promise<unknown>; makes?: string }> = {
  'HardenedDatabase.open': {
    call: async (rel) => (await HardenedDatabase.open(rel('new.db'))).closeAsync(),
    makes: 'new.db',
  },
  appendAgentLogs: { call: (rel) => appendAgentLogs(rel('x.db'), entries(1)) },
  check: { call: (rel) => check(rel('x.db')) },
  recover: { call: (rel) => recover(rel('x.db')) },
  'recover to': { call: (rel) => recover(rel('x.db'), { to: rel('to.db') }), makes: 'to.db' },
  fileInfo: { call: (rel) => fileInfo(rel('x.db')) },
  pageMap: { call: (rel) => pageMap(rel('x.db')) },
  backupFile: { call: (rel) => backupFile(rel('x.db'), rel('copy.db')), makes: 'copy.db' },
  'backupFile by default': { call: (rel) => backupFile(rel('x.db')), makes: 'x.db.backup' },
  restore: { call: (rel) => restore(rel('restored.db'), rel('x.db')), makes: 'restored.db' },
  backup: {
    call: async (rel) => {
      const db = new DatabaseSync(':memory:')
      db.exec('CREATE TABLE t (a)')
      await backup(db, rel('memory.db'))
    },
    makes: 'memory.db',
  },
}

for (const [kind, spell] of Object.entries({
  text: (file: string) => file,
  'text with ./': (file: string) => `./${file}`,
  bytes: (file: string) => Buffer.from(file),
  URI: (file: string) => `file:${file}`,
})) {
  for (const [name, { call, makes }] of Object.entries(CALLS)) {
    test.serial(`${name} of a relative path, given as ${kind}, is of the directory when it was called`, async (t) => {
      const [first, second] = folders(t)
      seed('x.db')
      const promise = call(spell as never)
      process.chdir(second)
      await promise
      t.deepEqual(readdirSync(second), [])
      if (makes !== undefined) t.true(existsSync(path.join(first, makes)))
    })
  }
}

test.serial('a handle stays with its file: log, backup, restore, recover, check', async (t) => {
  const [first, second] = folders(t)
  const db = new HardenedDatabase('x.db', { backups: { path: 'scheduled.db', interval: 3_600_000 } })
  createSchema(db)
  process.chdir(second)
  await db.appendAgentLogs(entries(3))
  const promise = db.backup('relative.db')
  process.chdir(first)
  t.is((await promise).path, path.join(second, 'relative.db'))
  db.appendAgentLog(entry('pending'))
  process.chdir(second)
  const restored = db.restore('relative.db')
  process.chdir(first)
  await restored
  t.is(count(db), 3)
  t.is((await db.recover()).outcome, 'healthy')
  t.true((await db.check()).ok)
  await db.closeAsync()
  t.deepEqual(
    readdirSync(second).filter((name) => !name.startsWith('relative.db')),
    [],
  )
})

test.serial('a handle that is opened again is of the directory that is current then, as in node:sqlite', (t) => {
  const [first, second] = folders(t)
  const db = new HardenedDatabase('x.db')
  t.is(db.location(), path.join(first, 'x.db'))
  db.close()
  process.chdir(second)
  db.open()
  t.is(db.location(), path.join(second, 'x.db'))
  db.close()
})

test.serial('a wedged connection is reopened where it was', async (t) => {
  const [first, second] = folders(t)
  const db = new HardenedDatabase('x.db')
  createSchema(db)
  await db.appendAgentLogs(entries(3))
  process.chdir(second)
  for (const ending of ['-wal', '-shm']) unlinkSync(path.join(first, `x.db${ending}`))
  t.is((await db.appendAgentLogs(entries(3))).committed, 3)
  t.is(count(db), 6)
  t.is(db.location(), path.join(first, 'x.db'))
  await db.closeAsync()
  t.deepEqual(readdirSync(second), [])
})

test.serial("node:sqlite's backup() has its destination open when it returns", async (t) => {
  const [first] = folders(t)
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a)')
  const promise = backup(db, 'at-once.db')
  t.true(existsSync(path.join(first, 'at-once.db')))
  await promise
  const failing = backup(db, path.join('no', 'such.db'))
  mkdirSync('no')
  await t.throwsAsync(failing, { code: 'ERR_SQLITE_ERROR', message: /unable to open database file/ })
  t.deepEqual(readdirSync('no'), [])
  db.close()
})

test.serial('text, bytes and URLs name the same file to every function of the module', async (t) => {
  folders(t)
  seed('x.db')
  const file = path.resolve('x.db')
  const copy = path.resolve('copy.db')
  for (const spell of [
    (name: string) => name,
    (name: string) => Buffer.from(name),
    (name: string) => new Uint8Array(Buffer.from(name)),
    (name: string) => pathToFileURL(name),
    (name: string) => String(pathToFileURL(name)),
  ]) {
    t.is((await appendAgentLogs(spell(file), entries(1))).committed, 1)
    t.is((await check(spell(file))).path, file)
    t.is((await fileInfo(spell(file))).path, file)
    t.is((await pageMap(spell(file))).path, file)
    t.is((await backupFile(spell(file), spell(copy))).path, copy)
    t.is((await restore(spell(file), spell(copy))).path, file)
    t.is((await recover(spell(file))).path, file)
  }
  const missing = { code: 'ERR_SQLITE_ERROR' }
  for (const call of [check('no.db'), fileInfo('no.db'), pageMap('no.db')]) {
    const error = (await t.throwsAsync(call, missing)) as Error & { path: string }
    t.is(error.path, path.resolve('no.db'))
  }
  const inMemory = { code: 'ERR_INVALID_ARG_TYPE' }
  await t.throwsAsync(appendAgentLogs(':memory:', entries(1)), inMemory)
  await t.throwsAsync(check('file:x?mode=memory'), inMemory)
  await t.throwsAsync(check(Buffer.from([0x61, 0xff])), { code: 'ERR_INVALID_ARG_VALUE' })
})

test.serial('a path of bytes that are no text names the file that it does in node:sqlite', (t) => {
  const [first, second] = folders(t)
  const name = Buffer.from([0x61, 0xff, 0x62])
  const db = new HardenedDatabase(name)
  process.chdir(second)
  db.exec('CREATE TABLE t (a)')
  db.close()
  t.true(readdirSync(first, { encoding: 'buffer' }).some((found) => found.equals(name)))
  t.deepEqual(readdirSync(second), [])
})
