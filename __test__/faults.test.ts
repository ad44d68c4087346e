// A full disk costs time and no rows: they are kept and written, once each and in order, when
// there is room again. A damaged file ends writing at once: it and its WAL stay as they are for
// whoever repairs it, and what was not written is handed back.

import { execFileSync } from 'node:child_process'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type FusionSqliteError, HardenedDatabase } from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { Child, findings } from './children/start.ts'

type Failed = FusionSqliteError & { errcode: number }

const PRIMARY = 0xff
const SQLITE_FULL = 13
const SQLITE_CORRUPT = 11

/** A small disk of its own, or why there can be none. */
async function smallDisk(t: ExecutionContext): Promise<string | { reason: string }> {
  const folder = await temporaryFolder(t)
  if (process.platform !== 'linux') return { reason: `no tmpfs on ${process.platform}` }
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', folder], { stdio: 'pipe', timeout: 10_000 })
  } catch (error) {
    return { reason: `mount is not permitted: ${(error as Error).message.trim()}` }
  }
  t.teardown(() => execFileSync('umount', ['--lazy', folder], { timeout: 10_000 }))
  return folder
}

/** Takes all the room that is left but `spare` bytes. */
async function fillUp(file: string, spare: number) {
  let size = 2 * 1024 * 1024
  while (size > 0) {
    try {
      await writeFile(file, Buffer.alloc(size))
      break
    } catch {
      size -= 4096
    }
  }
  await writeFile(file, Buffer.alloc(Math.max(0, size - spare)))
}

test('a full disk keeps the rows, says so, and gets them when there is room', async (t) => {
  const folder = await smallDisk(t)
  if (typeof folder !== 'string') {
    t.log(`skipped: ${folder.reason}`)
    t.pass()
    return
  }
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file)
  t.is((await db.appendAgentLogs(entriesOf('before', 10))).committed, 10)
  const ballast = path.join(folder, 'ballast')
  await fillUp(ballast, 16 * 1024)

  const failed = new Promise<Failed>((resolve) => db.once('error', (error) => resolve(error as Failed)))
  let settled = false
  const appended = Array.from({ length: 5 }, (_, call) =>
    db.appendAgentLogs(entriesOf(`full ${call}`, 40, 'd'.repeat(500))),
  )
  for (let row = 0; row < 40; row++) t.true(db.appendAgentLog(entriesOf(`unawaited ${row}`, 1)[0]!))
  void Promise.allSettled(appended).then(() => (settled = true))
  const error = await failed
  t.is(error.code, 'ERR_SQLITE_ERROR')
  t.is(error.errcode & PRIMARY, SQLITE_FULL)
  t.false(settled)
  t.is(db.stats().state, 'retrying')
  t.is(db.stats().queue.rows, 240)
  // Reading goes on.
  t.is(db.prepare('SELECT count(*) AS rows FROM agentLogEntries').get()?.rows, 10)

  await rm(ballast)
  for (const receipt of await Promise.all(appended)) t.deepEqual([receipt.committed, receipt.rejected], [40, []])
  await db.flushAgentLogs()
  t.is(db.stats().state, 'writing')
  t.is(db.stats().queue.rows, 0)
  await db.closeAsync()
  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  const expected = [
    ...entriesOf('before', 10),
    ...Array.from({ length: 5 }, (_, call) => entriesOf(`full ${call}`, 40)).flat(),
    ...Array.from({ length: 40 }, (_, row) => entriesOf(`unawaited ${row}`, 1)).flat(),
  ].map(({ text }) => text)
  t.deepEqual(found.texts, expected)
})

test('a disk too full to checkpoint is told of once, and checkpoints go on when there is room', async (t) => {
  const folder = await smallDisk(t)
  if (typeof folder !== 'string') {
    t.log(`skipped: ${folder.reason}`)
    t.pass()
    return
  }
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { checkpointFrames: 100_000, checkpointIdle: 600_000 })
  t.is((await db.appendAgentLogs(entriesOf('before', 300, 'd'.repeat(500)))).committed, 300)
  // The rows are in the WAL; the database has no room to grow by them.
  const ballast = path.join(folder, 'ballast')
  await fillUp(ballast, 0)
  const told: FusionSqliteError[] = []
  const first = new Promise<void>((resolve) => {
    db.on('error', (error: FusionSqliteError) => {
      told.push(error)
      resolve()
    })
  })
  for (let attempt = 0; attempt < 10; attempt++) {
    const error = await t.throwsAsync(db.checkpoint('restart'), { code: 'ERR_SQLITE_ERROR' })
    t.is((error as Failed).errcode & PRIMARY, SQLITE_FULL)
  }
  t.true(db.stats().checkpoints.failed >= 10)
  await first
  t.is(told.length, 1)
  await rm(ballast)
  t.false((await db.checkpoint('truncate')).busy)
  await db.closeAsync()
  const found = await findings(file)
  t.deepEqual(found.integrity, ['ok'])
  t.is(found.texts.length, 300)
})

test('damage under a writer that does not repair stops it, hands back the entries and preserves the files', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { onCorruption: 'throw' })
  await db.appendAgentLogs(entriesOf('before', 500, 'd'.repeat(300)))
  await db.checkpoint('truncate')
  t.is((await stat(`${file}-wal`)).size, 0)

  const damage = new Child('damage.mjs', [file])
  const { pages } = await damage.hear('damaged')
  t.is((pages as number[]).length, 3)
  await damage.ended
  const [database, wal] = [await readFile(file), await readFile(`${file}-wal`)]
  t.true(wal.length > 0)

  const corrupt: FusionSqliteError[] = []
  const told = new Promise<void>((resolve) => {
    db.on('corrupt', (error: FusionSqliteError) => {
      corrupt.push(error)
      resolve()
    })
  })
  db.on('error', (error: FusionSqliteError) => t.fail(error.message))
  const entries = entriesOf('after', 30)
  t.true(db.appendAgentLog(entriesOf('unawaited', 1)[0]!))
  const rejected = await t.throwsAsync(db.appendAgentLogs(entries), { code: 'ERR_SQLITE_ERROR' })
  t.is((rejected as Failed).errcode & PRIMARY, SQLITE_CORRUPT)
  await told
  t.is(corrupt.length, 1)
  t.is((corrupt[0]?.errcode ?? 0) & PRIMARY, SQLITE_CORRUPT)
  t.is(db.stats().state, 'stopped')

  // Nothing of a later call is taken.
  const later = await t.throwsAsync(db.appendAgentLogs(entriesOf('later', 5)), { code: 'ERR_SQLITE_ERROR' })
  t.is((later as Failed).errcode & PRIMARY, SQLITE_CORRUPT)
  t.is(db.stats().queue.rows, 31)
  await t.throwsAsync(db.checkpoint('truncate'), { code: 'ERR_SQLITE_ERROR' })
  t.throws(() => db.close(), { code: 'ERR_SQLITE_ERROR' })

  t.deepEqual(
    db.takePending().map(({ text }: { text: string }) => text),
    ['unawaited 0', ...entries.map(({ text }) => text)],
  )
  t.is(db.stats().takenBack, 31)
  db.close()
  t.deepEqual(await readFile(file), database, 'the database was written to')
  t.deepEqual(await readFile(`${file}-wal`), wal, 'the WAL was written to')
  t.is(corrupt.length, 1)
})
