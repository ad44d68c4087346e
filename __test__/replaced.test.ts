// A file that is replaced or deleted under an open database is noticed before the next batch:
// nothing is written to a file that nobody sees or to one that is somebody else's, the entries
// can be taken back, and the WAL of the old file is never checkpointed into the new one by the
// process that noticed. Names that would give one file two WALs are refused.

import { execFile } from 'node:child_process'
import { cp, link, readFile, rename, rm, symlink, unlink } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase } from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { findings } from './children/start.ts'

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
