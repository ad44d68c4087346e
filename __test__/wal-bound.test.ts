// The WAL does not grow beyond its limit by more than a batch, however long entries come in. Who
// keeps it from being reset, a long reader say, is told and counted, and once they are gone the
// WAL shrinks by itself.

import { stat } from 'node:fs/promises'
import path from 'node:path'
import test from 'ava'
import { HardenedDatabase } from '../index.js'
import { createDatabase, entriesOf, temporaryFolder } from './children/database.ts'
import { Child } from './children/start.ts'
import { eventThat, nextEvent } from './support.ts'

const LIMIT = 256 * 1024
const BATCHES = 300
const detail = 'd'.repeat(300)

const walSize = async (file: string) => (await stat(`${file}-wal`).catch(() => ({ size: 0 }))).size

/** Bytes of a WAL with so many pages. */
const walBytes = (pages: number) => 32 + pages * (4096 + 24)

test('under sustained appends the WAL stays within its limit and one batch', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { journalSizeLimit: LIMIT })
  let peak = 0
  for (let batch = 0; batch < BATCHES; batch++) {
    await db.appendAgentLogs(entriesOf(`batch ${batch}`, 50, detail))
    peak = Math.max(peak, await walSize(file))
  }
  const stats = db.stats()
  const written = stats.batches
  // 50 rows of ~400 bytes fill 6 pages; in each of two indexes they touch at most a page a task
  // and one more when it splits; what remains are the counter and inner pages.
  const oneBatch = walBytes(6 + 2 * 2 * 20 + 10)
  t.true(peak <= LIMIT + oneBatch, `${peak} bytes`)
  t.true(stats.wal.peakBytes <= LIMIT + oneBatch, `${stats.wal.peakBytes} bytes`)
  t.is(stats.checkpoints.busy, 0)
  t.is(stats.checkpoints.busySince, null)
  t.true(stats.checkpoints.restart > 0)
  await db.closeAsync()
  t.is(await walSize(file), 0)
  t.log(`${written} batches, peak ${peak}, seen by the writer ${stats.wal.peakBytes}, limit ${LIMIT}`)
})

test('synchronous commits of this process are checkpointed, too, though not inside them', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { journalSizeLimit: LIMIT, checkpointIdle: 500 })
  const insert = db.prepare(
    "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', 'now', ?, 'text')",
  )
  let [peak, restarts] = [0, 0]
  db.on('checkpoint', ({ mode }: { mode: string }) => {
    if (mode === 'restart') restarts++
  })
  // Until the writer has reset a WAL of synchronous commits, which go on without a pause.
  for (let row = 0; row < 3000 || db.stats().checkpoints.restart === 0; row++) {
    insert.run(`row ${row}`)
    if (row % 10 === 0) peak = Math.max(peak, await walSize(file))
  }
  // One restart may be under way. It is not repeated until somebody commits: then the WAL is cut.
  const before = restarts
  for (;;) {
    // Before the look at the file: the last checkpoint may end during it.
    const checkpoint = nextEvent(db, 'checkpoint')
    if ((await walSize(file)) === 0) break
    await checkpoint
  }
  t.true(restarts <= before + 2, `${restarts - before} restarts of a WAL that nobody writes to`)
  t.log(`peak ${peak}, ${JSON.stringify(db.stats().checkpoints)}`)
  db.close()
})

test('a long reader is told of, counted, and outlived', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const db = new HardenedDatabase(file, { journalSizeLimit: LIMIT, checkpointIdle: 20 })
  type Outcome = { mode: string; busy: boolean; frames: number; backfilled: number }
  const nextCheckpoint = async (wanted: (outcome: Outcome) => boolean = () => true) =>
    (await eventThat(db, 'checkpoint', (outcome: Outcome) => wanted(outcome)))[0] as Outcome
  await db.appendAgentLogs(entriesOf('before', 100, detail))

  const reader = new Child('reader.mjs', [file])
  t.teardown(() => reader.kill())
  t.is((await reader.hear('reading')).rows, 100)
  let prevented = nextCheckpoint()
  let told: Awaited<typeof prevented> | undefined
  void prevented.then((outcome) => (told = outcome))
  for (let batch = 0; batch < 100 || !told?.busy; batch++) {
    if (told?.busy === false) {
      told = undefined
      prevented = nextCheckpoint()
      void prevented.then((outcome) => (told = outcome))
    }
    await db.appendAgentLogs(entriesOf(`meanwhile ${batch}`, 50, detail))
  }
  const busy = db.stats()
  t.true(busy.checkpoints.busy > 0)
  t.true(busy.checkpoints.busySince instanceof Date)
  t.true(busy.checkpoints.busySince! <= new Date())
  const grown = await walSize(file)
  t.true(grown > LIMIT)

  reader.say('stop')
  await nextCheckpoint((outcome) => !outcome.busy && outcome.mode === 'truncate')
  t.is(await walSize(file), 0)
  t.is(db.stats().checkpoints.busySince, null)
  t.true(db.stats().checkpoints.truncate > 0)
  t.is((await reader.ended).code, 0)
  await db.closeAsync()
  t.log(`${grown} bytes beside the reader, ${busy.checkpoints.busy} checkpoints prevented`)
})
