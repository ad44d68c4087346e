// A file that is replaced or deleted under an open database is noticed before the next batch:
// nothing is written to a file that nobody sees or to one that is somebody else's, the entries
// can be taken back, and the WAL of the old file is never checkpointed into the new one by the
// process that noticed. Names that would give one file two WALs are refused.

import { execFile } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  openSync,
  readSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { cp, link, readFile, readdir, rename, rm, symlink, unlink } from 'node:fs/promises'
import path from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase, appendAgentLogs } from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { Child, findings } from './children/start.ts'
import { Other } from './support.ts'

const run = promisify(execFile)

function git(folder: string, ...args: string[]) {
  const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', '-c', 'core.hooksPath=/dev/null']
  return run('git', ['-C', folder, ...identity, ...args], { timeout: 20_000 })
}

/** Adds `count` rows in a session of its own, which leaves no WAL. */
async function fill(file: string, name: string, count: number) {
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf(name, count, 'd'.repeat(400)))
  await db.closeAsync()
}

/** The writer looks at the file when it writes; an idle look must not come before the test's. */
const checkpointIdle = 600_000

/** Reading it here is safe: the locks of this package do not mind. */
const contentOf = (file: string) => readFile(file)

function eventsOf(db: HardenedDatabase) {
  const told: { event: string; code: string | undefined }[] = []
  for (const event of ['error', 'corrupt', 'replaced'] as const) {
    db.on(event, (error: Error & { code?: string }) => told.push({ event, code: error.code }))
  }
  return told
}

/** What a handle owes whose path leads elsewhere: it says so, writes nothing, keeps the entries. */
async function stopsWriting(t: ExecutionContext, db: HardenedDatabase, code: string) {
  const told = eventsOf(db)
  const replaced = new Promise<void>((resolve) => db.once('replaced', () => resolve()))
  const entries = entriesOf('late', 30)
  const rejected = await t.throwsAsync(db.appendAgentLogs(entries), { code })
  t.truthy(rejected?.message)
  await replaced
  t.deepEqual(told, [{ event: 'replaced', code }])
  t.is(db.stats().state, 'stopped')
  await t.throwsAsync(db.appendAgentLogs(entries), { code })
  // What is not written and not taken back stands in the way of closing.
  t.throws(() => db.close(), { code })
  t.true(db.isOpen)
  const pending = db.takePending()
  t.deepEqual(
    pending.map(({ text }) => text),
    entries.map(({ text }) => text),
  )
  t.deepEqual(db.takePending(), [])
  await t.throwsAsync(db.checkpoint('truncate'), { code })
  db.close()
  t.false(db.isOpen)
}

/** A repository whose two branches track different databases; the first one is checked out. */
async function repository(t: ExecutionContext) {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await git(folder, 'init', '--quiet', '--initial-branch=main')
  await createDatabase(file)
  await fill(file, 'of main', 300)
  await git(folder, 'add', 'fusion.db')
  await git(folder, 'commit', '--quiet', '--message=main')
  await git(folder, 'checkout', '--quiet', '-b', 'other')
  await fill(file, 'of other', 700)
  await git(folder, 'commit', '--quiet', '--all', '--message=other')
  const other = await contentOf(file)
  await git(folder, 'checkout', '--quiet', 'main')
  return { folder, file, other }
}

test('git checkout under an open database stops writing and leaves both files as they are', async (t) => {
  const { folder, file, other } = await repository(t)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 50))
  const wal = await contentOf(`${file}-wal`)
  t.true(wal.length > 0)

  await git(folder, 'checkout', '--quiet', '--force', 'other')
  t.deepEqual(await contentOf(file), other)
  await stopsWriting(t, db, 'ERR_FUSION_REPLACED')

  t.deepEqual(await contentOf(file), other, 'the new file was written to')
  t.deepEqual(await contentOf(`${file}-wal`), wal, 'the WAL of the old file was touched')

  // As the error's message says: the WAL put aside, the new file is what git made of it.
  await rename(`${file}-wal`, path.join(folder, 'stale-wal'))
  await rm(`${file}-shm`, { force: true })
  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  t.is(found.texts.length, 1000)
  t.is(found.texts.filter((text) => text.startsWith('of other')).length, 700)
})

// The opener reads the new file through the old WAL and finds it damaged; only a checkpoint, which
// its writer therefore does not make, would damage it for good.
test('a fresh open of a file that was replaced does not apply the WAL of the old one', async (t) => {
  const { folder, file } = await repository(t)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 50))
  await git(folder, 'checkout', '--quiet', '--force', 'other')
  await stopsWriting(t, db, 'ERR_FUSION_REPLACED')

  await findings(file)
  await rm(`${file}-wal`, { force: true })
  await rm(`${file}-shm`, { force: true })
  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  t.is(found.texts.length, 1000)
})

for (const way of ['replaced', 'deleted'] as const) {
  test(`appends by the path go to the new file, without the WAL of the one that was ${way}`, async (t) => {
    const folder = await temporaryFolder(t)
    const file = path.join(folder, 'fusion.db')
    await createDatabase(file)
    const another = path.join(folder, 'another.db')
    await createDatabase(another)
    await fill(another, 'new', 1)
    // In one go: after five seconds without an append the log would be closed, with its WAL.
    await appendAgentLogs(file, entriesOf('old', 2))
    const refused = (code: string) => t.throwsAsync(appendAgentLogs(file, entriesOf('refused', 1)), { code })
    if (way === 'deleted') {
      unlinkSync(file)
      for (let i = 0; i < 2; i++) await refused('ERR_FUSION_UNLINKED')
      renameSync(another, file)
    } else {
      renameSync(another, file)
      await refused('ERR_FUSION_REPLACED')
    }
    t.is((await appendAgentLogs(file, entriesOf('appended', 1))).committed, 1)
    const db = new HardenedDatabase(file)
    t.deepEqual(db.prepare('PRAGMA integrity_check').get(), { __proto__: null, integrity_check: 'ok' })
    const texts = db.prepare('SELECT text FROM agentLogEntries ORDER BY id').all()
    t.deepEqual(
      texts.map(({ text }) => String(text).replace(/ .*/, '')),
      ['new', 'appended'],
    )
    db.close()
    t.true((await readdir(folder)).some((name) => name.startsWith('fusion.db-wal.stale-')))
  })
}

test('deleting the file under an open database stops writing', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 5))
  await unlink(file)
  await stopsWriting(t, db, 'ERR_FUSION_UNLINKED')
  await t.throwsAsync(contentOf(file), { code: 'ENOENT' }, 'the file was made anew')
})

test('a restore that renames a copy over the file stops writing', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  await cp(file, path.join(folder, 'backup.db'))
  const backup = await contentOf(file)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 5))
  await rename(path.join(folder, 'backup.db'), file)
  await stopsWriting(t, db, 'ERR_FUSION_REPLACED')
  t.deepEqual(await contentOf(file), backup)
})

test('processes that reopen at the same time all go on with the new file', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const another = path.join(folder, 'another.db')
  const names = ['first', 'second', 'third', 'fourth']
  const processes = names.map((name) => new Child('reopens.mjs', [file, name]))
  t.teardown(() => processes.forEach((process) => process.kill()))
  await Promise.all(processes.map((process) => process.hear('ready')))
  for (let round = 0; round < 4; round++) {
    await createDatabase(another)
    await rename(another, file)
    for (const process of processes) process.say('reopen')
    for (const process of processes) t.is((await process.next()).kind, 'reopened', JSON.stringify(process.failures))
  }
  for (const process of processes) process.say('stop')
  for (const process of processes) t.is((await process.ended).code, 0)
  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  t.deepEqual(found.texts.toSorted(), names.map((name) => `${name} after`).toSorted())
})

test('a file with several hard links is refused, unless that is allowed', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  const second = path.join(folder, 'second.db')
  await createDatabase(file)
  await link(file, second)
  for (const name of [file, second]) {
    const error = t.throws(() => new HardenedDatabase(name), { code: 'ERR_FUSION_HARD_LINKS' })
    t.regex(String(error?.message), /2 names/)
  }
  const db = new HardenedDatabase(file, { allowHardLinks: true })
  t.is((await db.appendAgentLogs(entriesOf('linked', 3))).committed, 3)
  await db.closeAsync()
  await unlink(second)
  t.is((await findings(file)).texts.length, 3)
})

test('a symbolic link shares the writer of the file it leads to', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  const linked = path.join(folder, 'linked.db')
  await createDatabase(file)
  await symlink('fusion.db', linked)
  const one = new HardenedDatabase(file)
  const other = new HardenedDatabase(linked)
  await Promise.all([one.appendAgentLogs(entriesOf('one', 10)), other.appendAgentLogs(entriesOf('other', 20))])
  t.is(one.stats().rows, 30)
  t.deepEqual(one.stats(), other.stats())
  // The one writer goes with its last handle.
  await one.closeAsync()
  t.is((await other.appendAgentLogs(entriesOf('more', 5))).committed, 5)
  await other.closeAsync()
  await t.throwsAsync(contentOf(`${linked}-wal`), { code: 'ENOENT' }, 'the link got a WAL of its own')
  t.is((await findings(linked)).texts.length, 35)
})

const code = (name: 'REPLACED' | 'UNLINKED') => `ERR_FUSION_${name}` as const

/** Ways in which the file goes from its path, and what is said then. */
const ways: { name: string; away: 'REPLACED' | 'UNLINKED'; go: (file: string) => Promise<unknown> }[] = [
  {
    name: 'a rename over it',
    away: 'REPLACED',
    go: async (file) => {
      await cp(`${file}.copy`, `${file}.new`)
      await rename(`${file}.new`, file)
    },
  },
  {
    name: 'a copy in its place',
    away: 'REPLACED',
    go: async (file) => {
      await rm(file)
      await cp(`${file}.copy`, file)
    },
  },
  {
    name: 'git checkout',
    away: 'REPLACED',
    go: (file) => git(path.dirname(file), 'checkout', '--quiet', '--force', 'other'),
  },
  { name: 'rm', away: 'UNLINKED', go: (file) => rm(file) },
  { name: 'a rename away', away: 'UNLINKED', go: (file) => rename(file, `${file}.elsewhere`) },
  {
    name: 'rm of all three files',
    away: 'UNLINKED',
    go: (file) => Promise.all([file, `${file}-wal`, `${file}-shm`].map((one) => rm(one, { force: true }))),
  },
]

/** A database under git, with another version of it in branch `other` and in a copy. */
async function versions(t: ExecutionContext) {
  const made = await repository(t)
  await cp(made.file, `${made.file}.copy`)
  return made
}

type Write = (db: HardenedDatabase) => unknown
const task = (id: string) => `INSERT INTO tasks (id, createdAt, updatedAt) VALUES ('${id}', '', '')`
/** What writes, each outside of a transaction. */
const writes: Record<string, Write> = {
  'an INSERT': (db) => db.exec(task('a')),
  'a prepared INSERT': (db) => db.prepare(task('b')).run(),
  'rows of a RETURNING': (db) => db.prepare(`${task('c')} RETURNING id`).all(),
  'an iteration of a RETURNING': (db) => [...db.prepare(`${task('d')} RETURNING id`).iterate()],
  'BEGIN IMMEDIATE': (db) => db.exec('BEGIN IMMEDIATE'),
  'BEGIN EXCLUSIVE': (db) => db.prepare('BEGIN EXCLUSIVE').run(),
  'a script': (db) => db.exec(`BEGIN; ${task('e')}; COMMIT`),
  DDL: (db) => db.exec('CREATE TABLE more (a)'),
  'a PRAGMA': (db) => db.exec('PRAGMA user_version = 3'),
  VACUUM: (db) => db.exec('VACUUM'),
  'a checkpoint': (db) => db.exec('PRAGMA wal_checkpoint(TRUNCATE)'),
}

/** Every byte of a file that is at no path any more. */
function bytesOf(fd: number) {
  const bytes = Buffer.alloc(fstatSync(fd).size)
  readSync(fd, bytes, 0, bytes.length, 0)
  return bytes
}

for (const { name, away, go } of ways) {
  test(`after ${name} no SQL writes, reads go on, and close() leaves the new file alone`, async (t) => {
    const { file } = await versions(t)
    const old = openSync(file, 'r')
    const db = new HardenedDatabase(file, { checkpointIdle })
    // The locks of this package do not mind.
    t.teardown(() => closeSync(old))
    const other = db.prepare('SELECT count(*) AS n FROM tasks')
    const [before] = other.all()
    const told = eventsOf(db)
    const replaced = new Promise<void>((resolve) => db.once('replaced', () => resolve()))
    await go(file)
    const bytes = bytesOf(old)
    for (const [what, write] of Object.entries(writes)) {
      t.throws(() => write(db), { code: code(away) }, what)
      // A script that fails in the middle of its transaction leaves it open, as ever.
      t.is(db.isTransaction, what === 'a script', what)
      if (db.isTransaction) db.exec('ROLLBACK')
    }
    await replaced
    t.deepEqual(told, [{ event: 'replaced', code: code(away) }])
    t.deepEqual(other.all(), [before])
    t.deepEqual(bytesOf(old), bytes, 'the old file was written to')
    // Pairs with the new file, were it written.
    const wal = await contentOf(`${file}-wal`).catch(() => null)
    const now = await contentOf(file).catch(() => null)
    db.close()
    t.deepEqual(await contentOf(file).catch(() => null), now)
    t.deepEqual(await contentOf(`${file}-wal`).catch(() => null), wal)
  })

  test(`after ${name} a transaction that is under way is not reported as committed`, async (t) => {
    const { file } = await versions(t)
    const db = new HardenedDatabase(file, { checkpointIdle })
    t.teardown(() => db[Symbol.dispose]())
    db.exec('BEGIN IMMEDIATE')
    db.exec(task('a'))
    await go(file)
    const error = t.throws(() => db.exec('COMMIT'), { code: code(away) })
    t.regex(String(error?.message), /rolled back/)
    t.false(db.isTransaction)
    db.exec('BEGIN')
    db.prepare('SELECT count(*) FROM tasks').get()
    t.throws(() => db.exec(task('b')), { code: code(away) })
    t.true(db.isTransaction, 'the program rolls back, as after any error')
    db.exec('ROLLBACK')
  })

  test(`after ${name} the first append fails at once, and reopen() takes what is pending along`, async (t) => {
    const { file, folder } = await versions(t)
    const db = new HardenedDatabase(file, { checkpointIdle, linger: 60_000 })
    t.teardown(() => db[Symbol.dispose]())
    db.function('twice', (n) => Number(n) * 2)
    const statement = db.prepare('SELECT count(*) AS n FROM tasks WHERE twice(2) = 4')
    statement.get()
    const told = eventsOf(db)
    await go(file)
    await t.throwsAsync(db.appendAgentLogs(entriesOf('first', 3)), { code: code(away) })
    for (const entry of entriesOf('second', 3)) db.appendAgentLog(entry)
    t.deepEqual(told, [{ event: 'replaced', code: code(away) }])
    if (away === 'UNLINKED') {
      t.throws(() => db.reopen(), { code: code(away) })
      await cp(`${file}.copy`, file)
    }
    t.is(db.reopen(), db)
    t.is(db.reopen(), db, 'nothing to do')
    t.is((await db.appendAgentLogs(entriesOf('third', 3))).committed, 3)
    t.true(count(statement.get()) > 0)
    db.exec(task('written'))
    await db.closeAsync()
    const found = await findings(file)
    t.deepEqual(found.integrity, ['ok'])
    t.deepEqual(
      found.texts.filter((text) => /^(first|second|third)/.test(text)),
      ['first', 'second', 'third'].flatMap((prefix) => entriesOf(prefix, 3).map(({ text }) => text)),
    )
    const left = (await readdir(folder)).filter((one) => /^fusion\.db-(wal|shm)$/.test(one))
    t.deepEqual(left, [])
  })
}

const count = (row: unknown) => (row as { n: number }).n

test('reopen() before anything was noticed takes the promises along', async (t) => {
  const { file } = await versions(t)
  const db = new HardenedDatabase(file, { checkpointIdle, linger: 60_000, awaitedLinger: 60_000 })
  const appended = db.appendAgentLogs(entriesOf('pending', 20))
  const flushed = db.flushAgentLogs()
  await cp(`${file}.copy`, `${file}.new`)
  await rename(`${file}.new`, file)
  db.reopen()
  // Asks for the commit, which the options put off.
  db.flushAgentLogsSync()
  t.is((await appended).committed, 20)
  await flushed
  await db.closeAsync()
  t.is((await findings(file)).texts.filter((text) => text.startsWith('pending')).length, 20)
})

test('several handles reopen one by one, and what is pending moves once', async (t) => {
  const { file } = await versions(t)
  const handles = [1, 2, 3].map(() => new HardenedDatabase(file, { checkpointIdle, linger: 60_000 }))
  t.teardown(() => handles.forEach((db) => db[Symbol.dispose]()))
  const [one, two, three] = handles as [HardenedDatabase, HardenedDatabase, HardenedDatabase]
  await one.appendAgentLogs(entriesOf('old', 10))
  await git(path.dirname(file), 'checkout', '--quiet', '--force', 'other')
  await t.throwsAsync(two.appendAgentLogs(entriesOf('a', 5)), { code: 'ERR_FUSION_REPLACED' })
  for (const entry of entriesOf('b', 5)) three.appendAgentLog(entry)
  one.reopen()
  await one.appendAgentLogs(entriesOf('c', 5))
  t.throws(() => two.exec(task('a')), { code: 'ERR_FUSION_REPLACED' })
  t.is(count(two.prepare('SELECT count(*) AS n FROM agentLogEntries').get()), 310, 'the old file, as it was')
  two.reopen()
  await two.appendAgentLogs(entriesOf('d', 5))
  three.close()
  await one.closeAsync()
  await two.closeAsync()
  const found = await findings(file)
  t.deepEqual(found.integrity, ['ok'])
  t.deepEqual(
    found.texts.slice(1000),
    ['a', 'b', 'c', 'd'].flatMap((prefix) => entriesOf(prefix, 5).map(({ text }) => text)),
  )
})

test('a file that is back at its path is reopened as it is', async (t) => {
  const { file } = await versions(t)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 5))
  await rename(file, `${file}.elsewhere`)
  await t.throwsAsync(db.appendAgentLogs(entriesOf('kept', 5)), { code: 'ERR_FUSION_UNLINKED' })
  await rename(`${file}.elsewhere`, file)
  db.reopen()
  await db.closeAsync()
  t.deepEqual(
    (await findings(file)).texts.slice(-10),
    ['before', 'kept'].flatMap((prefix) => entriesOf(prefix, 5).map(({ text }) => text)),
  )
})

test('reopen({ create: true }) makes a file where the path leads nowhere', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { checkpointIdle })
  await db.appendAgentLogs(entriesOf('before', 5))
  await rm(file)
  await t.throwsAsync(db.appendAgentLogs(entriesOf('kept', 5)), { code: 'ERR_FUSION_UNLINKED' })
  db.reopen({ create: true })
  const tables = db.prepare(`SELECT count(*) AS n FROM sqlite_schema WHERE name = 'tasks'`).get()
  t.is(count(tables), 0)
  t.is(db.takePending().length, 5)
  db.close()
})

test('another process that opened the new file keeps its WAL', async (t) => {
  const { file } = await versions(t)
  const db = new HardenedDatabase(file, { checkpointIdle, busyTimeout: 200 })
  await db.appendAgentLogs(entriesOf('before', 5))
  await rm(file)
  await Promise.all([`${file}-wal`, `${file}-shm`].map((one) => rm(one)))
  await cp(`${file}.copy`, file)
  const other = new Other(t, 'hold-lock.mjs', [file, `BEGIN; ${task('theirs')}`])
  await other.says('locked')
  const wal = statSync(`${file}-wal`).ino
  t.throws(() => db.exec(task('ours')), { code: 'ERR_FUSION_REPLACED' })
  db.reopen()
  t.is(statSync(`${file}-wal`).ino, wal)
  other.tell('release')
  await other.says('released')
  db.exec(task('ours'))
  await other.ended
  db.close()
  const look = new HardenedDatabase(file)
  t.is(count(look.prepare(`SELECT count(*) AS n FROM tasks WHERE id IN ('theirs', 'ours')`).get()), 2)
  look.close()
})

test('a read-only handle and a DatabaseSync are left as they are', async (t) => {
  const { file } = await versions(t)
  const reader = new HardenedDatabase(file, { readOnly: true })
  const plain = new DatabaseSync(file)
  // SQLite opens the WAL with the first read.
  plain.exec('SELECT count(*) FROM tasks')
  await rm(file)
  t.true(count(reader.prepare('SELECT count(*) AS n FROM agentLogEntries').get()) > 0)
  t.is((t.throws(() => reader.exec(task('a'))) as Error & { errcode: number }).errcode & 0xff, 8)
  plain.exec(task('b'))
  reader.close()
  plain.close()
  await t.throwsAsync(contentOf(file), { code: 'ENOENT' })
})

test('a log that outlives its file is not that of the next file with the same inode', async (t) => {
  const directory = await temporaryFolder(t)
  const file = path.join(directory, 'again.db')
  const entries = [{ taskId: 'a', text: 'b', type: 'text' }]
  // The call that finds the file replaced says so; the next one goes to the new file.
  const append = () =>
    appendAgentLogs(file, entries).catch((error) => {
      t.is(error.code, 'ERR_FUSION_REPLACED')
      return appendAgentLogs(file, entries)
    })
  for (let round = 0; round < 2; round++) {
    t.is((await append()).firstId, 1)
    const inode = statSync(file).ino
    const held = () =>
      readdirSync('/proc/self/fd').some((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith(file)
        } catch {
          return false
        }
      })
    for (const name of readdirSync(directory)) rmSync(path.join(directory, name), { recursive: true, force: true })
    // Its writer notices, and closes its connection, so that the inode is free.
    while (process.platform === 'linux' && held()) await setImmediate()
    // Which one the next file gets is the file system's business; ext4 gives out a free one soon.
    const others: string[] = []
    do {
      if (others.length > 0) renameSync(file, others.at(-1)!)
      writeFileSync(file, '')
      others.push(path.join(directory, `other-${others.length}`))
    } while (statSync(file).ino !== inode && others.length < 500)
    t.log(`the same inode: ${statSync(file).ino === inode}`)
    const db = new HardenedDatabase(file, { createTable: true, linger: 1 })
    t.is((await db.appendAgentLogs(entries)).firstId, 1)
    t.is(db.stats().health, null)
    db.close()
    t.is((await append()).firstId, 2)
    for (const name of readdirSync(directory)) rmSync(path.join(directory, name), { recursive: true, force: true })
    writeFileSync(file, '')
  }
})
