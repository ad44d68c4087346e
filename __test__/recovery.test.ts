// Repairs: what a user sees when a database is damaged in spite of everything. The repairs
// themselves, with deaths and full disks at every stage, are in tests/recovery.rs.

import { createRequire } from 'node:module'
import { readFile, readdir, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase, recover } from '../index.js'
import { Child, findings } from './children/start.ts'
import { PAGE, destroy, filled, leaves, readPage, rowids, writePage } from './helpers/damage.ts'
import { database, entries, entry, folder, foreignLock, nextEvent, texts } from './support.ts'

const internal = createRequire(import.meta.url)
const { damaged, unrepaired } = internal('../lib/errors.js')
const { shownError } = internal('../lib/shown.js')

type Report = Awaited<ReturnType<typeof recover>>

const LOG = 'agentLogEntries'
const BY_TYPE = 'idxAgentLogEntriesTaskIdType'

/** A database with so many log rows, and the leaf pages that they are on. */
async function filledWith(t: ExecutionContext, rows: number) {
  const file = await filled(t, rows)
  return { file, pages: leaves(file, LOG) }
}

/** Has an index miss what is changed by `sql`. */
function outOfStep(file: string, index: string, sql: string): void {
  const db = new DatabaseSync(file, { defensive: false })
  db.exec(`
    PRAGMA writable_schema = ON;
    CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = '${index}';
    DELETE FROM sqlite_schema WHERE name = '${index}';
    PRAGMA schema_version = 10000`)
  db.exec(sql)
  db.exec('INSERT INTO sqlite_schema SELECT * FROM kept; PRAGMA schema_version = 20000')
  db.close()
}

/** What `filled` fills it with. */
const before = (rows: number) => entries(rows, `${'filler '.repeat(40)}row `)

const types = (health: { findings: { type: string }[] }) => health.findings.map(({ type }) => type)

async function assertSound(t: ExecutionContext, file: string) {
  t.deepEqual((await findings(file)).integrity, ['ok'])
}

test('a damaged file is repaired before it is opened, and the event tells', async (t) => {
  const { file, pages } = await filledWith(t, 2000)
  const lost = pages.slice(40, 44)
  const ids = new Set(rowids(file, lost))
  destroy(file, lost)
  const db = new HardenedDatabase(file)
  const [recovering, recovered] = [nextEvent(db, 'recovering'), nextEvent(db, 'recovered')]
  // Before anything was awaited: the constructor waits for the repair.
  const found = texts(db)
  t.is(found.length, 2000 - ids.size)
  t.deepEqual(
    found,
    before(2000)
      .filter((_, i) => !ids.has(i + 1))
      .map(({ text }) => text),
  )
  t.true(types((await recovering)[0] as Report['before']).includes('tableDamage'))
  const report = (await recovered)[0] as Report
  t.is(report.outcome, 'salvaged')
  t.is(report.salvage?.tables.find(({ name }) => name === LOG)?.rowsMissing, ids.size)
  t.true(report.text.includes(`${ids.size} rows lost`), report.text)
  t.truthy(report.preserved?.database)
  t.is((await db.appendAgentLogs([entry('after')])).committed, 1)
  await db.closeAsync()
  await assertSound(t, file)
})

test('open() repairs off the event loop', async (t) => {
  const { file, pages } = await filledWith(t, 500)
  destroy(file, pages.slice(3, 5))
  const db = await HardenedDatabase.open(file)
  const [report] = (await nextEvent(db, 'recovered')) as [Report]
  t.is(report.outcome, 'salvaged')
  await db.closeAsync()
  await assertSound(t, file)
})

test('onCorruption says whether it is repaired, refused or opened as it is', async (t) => {
  const { file, pages } = await filledWith(t, 500)
  destroy(file, pages.slice(3, 5))
  const before = await readFile(file)
  const error = t.throws(() => new HardenedDatabase(file, { onCorruption: 'throw' }), { code: 'ERR_FUSION_DAMAGED' })
  t.true(types((error as unknown as { health: Report['before'] }).health).includes('tableDamage'))
  const db = new HardenedDatabase(file, { onCorruption: 'report', readOnly: true })
  t.is((db.prepare('SELECT count(*) AS n FROM tasks').get() as { n: number }).n, 1)
  db.close()
  t.deepEqual(await readFile(file), before)
  t.throws(() => new HardenedDatabase(file, { onCorruption: 'ignore' as 'throw' }), { code: 'ERR_OUT_OF_RANGE' })
})

test('a file that was not repaired because rows would be lost is refused with the comparison', (t) => {
  const health = { findings: [{ type: 'tableDamage' }], text: 'the table log is damaged' }
  const comparison = { holds: false, text: 'log: 3 of 100 rows that SQLite reads are missing.' }
  const cause = Object.assign(new Error('the repair lacks rows'), { code: 'ERR_FUSION_LOSS', comparison })
  const refusal = unrepaired('a.db', health, cause)
  t.is(refusal.code, 'ERR_FUSION_DAMAGED')
  t.is(refusal.errcode, 11)
  t.is(refusal.health, health)
  t.is(refusal.comparison, comparison)
  t.is(refusal.cause, cause)
  t.regex(refusal.message, /It was not repaired: the repair lacks rows/)
  // The log's writer met it: its error has the comparison, and the event's has it, too.
  const met = Object.assign(new Error('malformed'), { code: 'ERR_SQLITE_ERROR', errcode: 11, errstr: '', comparison })
  t.is(damaged('a.db', health, met).comparison, comparison)
  t.false('comparison' in damaged('a.db', health))
  t.false('comparison' in unrepaired('a.db', health, new Error('no backup')))
})

test('names in the messages of a damaged file are escaped, and its path is exact', (t) => {
  const path = 'a\x1b[2J\u202e.db'
  const health = { findings: [], text: 'the table b\x07 is damaged' }
  for (const error of [damaged(path, health), unrepaired(path, health, new Error('no\x9b'))]) {
    t.is(error.path, path)
    t.notRegex(error.message, /[\p{Cc}\p{Bidi_Control}]/u)
    t.true(error.message.includes('a\\u{1b}[2J\\u{202e}.db'), error.message)
  }
  // SQLite's own message is exact in the error, and escaped in a process warning.
  const raw = Object.assign(new Error('no such table: a\x1b[2J'), { code: 'ERR_SQLITE_ERROR', errcode: 1 })
  const warning = shownError(raw)
  t.true(warning instanceof Error)
  t.is(String(warning), 'Error: no such table: a\\u{1b}[2J')
  t.false(warning.stack.includes('\x1b'))
  t.like(warning, { code: 'ERR_SQLITE_ERROR', errcode: 1 })
  t.is(shownError(warning), warning)
})

test('a file that is none is refused and left alone', async (t) => {
  const file = path.join(folder(t), 'notes.txt')
  const notes = 'These are notes, and they are long enough to be taken for a page. '.repeat(200)
  await writeFile(file, notes)
  t.throws(() => new HardenedDatabase(file), { code: 'ERR_FUSION_DAMAGED', message: /could not be repaired/ })
  t.is(await readFile(file, 'utf8'), notes)
  t.deepEqual(await readdir(path.dirname(file)), ['notes.txt'])
})

/** Another process destroys the roots of the log table and of its indexes, and then commits. */
async function damage(t: ExecutionContext, file: string) {
  const process = new Child('damage.mjs', [file])
  const { pages } = await process.hear('damaged')
  t.is((pages as number[]).length, 3)
  await process.ended
}

test('damage under the writer is repaired, and no append is rejected', async (t) => {
  const { file } = await filledWith(t, 2000)
  const db = new HardenedDatabase(file)
  for (const event of ['error', 'corrupt', 'replaced']) db.on(event as 'error', (error) => t.fail(error.message))
  const recovering = nextEvent(db, 'recovering')
  const recovered = nextEvent(db, 'recovered')
  await damage(t, file)
  const append = db.appendAgentLogs(entries(30, 'after '))
  await recovering
  // While it is repaired entries are taken, and this thread does what it likes.
  t.true(db.appendAgentLog(entry('meanwhile')))
  const meanwhile = db.appendAgentLogs([entry('meanwhile, awaited')])
  t.is((await append).committed, 30)
  t.is((await meanwhile).committed, 1)
  const [report] = (await recovered) as [Report]
  t.is(report.outcome, 'salvaged')
  await db.flushAgentLogs()
  t.deepEqual(
    texts(db),
    [...before(2000), ...entries(30, 'after '), entry('meanwhile'), entry('meanwhile, awaited')].map(
      ({ text }) => text,
    ),
  )
  t.is(db.stats().state, 'writing')
  await db.closeAsync()
  await assertSound(t, file)
})

test('a first page that is destroyed under two idle processes is repaired, and both go on', async (t) => {
  t.timeout(120_000)
  for (const destroyed of ['zeros', 'another page'] as const) {
    const { file, pages } = await filledWith(t, 2000)
    const acknowledged = new Set(before(2000).map(({ text }) => text))
    const children = ['daemon', 'extension'].map((name) => new Child('goes-on.mjs', [file, name]))
    const hear = async (process: Child, until: string) => {
      const reports: Report[] = []
      for (;;) {
        const told = await process.next()
        t.not(told.kind, 'failed', JSON.stringify(told))
        if (told.kind === 'recovered') reports.push(told.report as Report)
        if (told.kind === 'appended') acknowledged.add(told.text as string)
        if (told.kind === until) return reports
      }
    }
    for (const process of children) {
      await process.hear('ready')
      process.say('go on')
      await hear(process, 'appended')
    }
    for (const process of children) {
      process.say('pause')
      await hear(process, 'paused')
    }
    children[0]!.say('truncate')
    t.false((await children[0]!.hear('truncated')).busy)
    t.is((await stat(`${file}-wal`)).size, 0)
    writePage(file, 1, destroyed === 'zeros' ? Buffer.alloc(PAGE) : readPage(file, pages[7]!))

    for (const process of children) process.say('go on')
    const reports = await Promise.all(
      children.map(async (process) => {
        const found: Report[] = []
        for (let appended = 0; appended < 20; appended++) found.push(...(await hear(process, 'appended')))
        process.say('stop')
        return [...found, ...(await hear(process, 'done'))]
      }),
    )
    for (const process of children) t.is((await process.ended).code, 0)
    const salvaged = reports.flat().filter(({ outcome }) => outcome === 'salvaged')
    t.is(salvaged.length, 1, destroyed)

    const after = await findings(file)
    t.deepEqual(after.integrity, ['ok'])
    t.is(new Set(after.texts).size, after.texts.length)
    t.deepEqual(
      [...acknowledged].filter((text) => !after.texts.includes(text)),
      [],
    )
    const left = await readdir(path.dirname(file))
    t.deepEqual(
      left.filter((name) => /-(wal|shm)$/.test(name)),
      [],
    )
  }
})

test('damage that a statement meets is repaired without an append', async (t) => {
  const { file } = await filledWith(t, 2000)
  outOfStep(file, BY_TYPE, `DELETE FROM ${LOG} WHERE id % 3 = 0`)
  const db = new HardenedDatabase(file, { startupCheck: 'off' })
  const recovered = nextEvent(db, 'recovered')
  const read = db.prepare(`SELECT sum(length(text)) FROM ${LOG} INDEXED BY ${BY_TYPE} WHERE taskId = 'T'`)
  const error = t.throws(() => read.get(), { code: 'ERR_SQLITE_ERROR' }) as unknown as { errcode: number }
  t.is(error.errcode & 0xff, 11)
  const [report] = (await recovered) as [Report]
  t.is(report.outcome, 'reindexed', report.text)
  t.deepEqual(
    report.steps.map(({ step, ok }) => [step, ok]),
    [['reindex', true]],
  )
  t.truthy(read.get())
  await db.closeAsync()
  await assertSound(t, file)
})

test('a full-text index that its table outran is rebuilt once a statement meets it', async (t) => {
  const { file } = await filledWith(t, 100)
  const db = new HardenedDatabase(file)
  db.exec(`UPDATE tasks SET title = 'old' WHERE id = 'T'`)
  // No delete trigger fires for what it replaces.
  db.exec(`INSERT OR REPLACE INTO tasks (rowid, id, title, createdAt, updatedAt) VALUES (1, 'T', 'new', '', '')`)
  for (const event of ['error', 'corrupt'] as const) db.on(event, (error) => t.fail(error.message))
  const recovered = nextEvent(db, 'recovered')
  const check = () => db.exec(`INSERT INTO tasks_fts (tasks_fts, rank) VALUES ('integrity-check', 1)`)
  t.is((t.throws(check, { code: 'ERR_SQLITE_ERROR' }) as unknown as { errcode: number }).errcode, 267)
  const [report] = (await recovered) as [Report]
  t.is(report.outcome, 'rebuiltFts', report.text)
  t.is(report.preserved, null)
  t.notThrows(check)
  await db.closeAsync()
  await assertSound(t, file)
})

test('closeAsync does not wait for a repair that waits for a lock, and hands the entries back', async (t) => {
  const { file } = await filledWith(t, 100)
  const db = new HardenedDatabase(file, { closeTimeout: 1, retryDeadline: 3_600_000 })
  db.exec(`INSERT INTO tasks (rowid, id, title, createdAt, updatedAt) VALUES (50, 'U', 'old', '', '')`)
  db.exec(`INSERT OR REPLACE INTO tasks (rowid, id, title, createdAt, updatedAt) VALUES (60, 'U', 'new', '', '')`)
  const lock = await foreignLock(t, file)
  const recovering = nextEvent(db, 'recovering')
  const search = () => db.prepare(`SELECT title FROM tasks_fts WHERE tasks_fts MATCH 'old'`).all()
  t.is((t.throws(search) as unknown as { errcode: number }).errcode, 267)
  await recovering
  db.appendAgentLog(entry('kept'))
  await t.throwsAsync(db.closeAsync(), { code: 'ERR_FUSION_FLUSH_TIMEOUT' })
  t.deepEqual(
    db.takePending().map(({ text }) => text),
    ['kept'],
  )
  await db.closeAsync()
  t.false(db.isOpen)
  await lock.release()
  t.is((await recover(file)).outcome, 'rebuiltFts')
})

test('recover() repairs in place, or into a new file, and reports', async (t) => {
  const { file, pages } = await filledWith(t, 500)
  const sound = await recover(file)
  t.is(sound.outcome, 'healthy')
  t.is(sound.preserved, null)
  destroy(file, [pages[5]!])
  const damaged = await readFile(file)
  const to = path.join(path.dirname(file), 'new.db')
  const stages = new Set<string>()
  const copy = await recover(file, { to, progress: ({ stage }) => stages.add(stage) })
  t.is(copy.outcome, 'salvaged')
  t.is(copy.after.path, to)
  t.true(stages.size > 1)
  t.deepEqual(await readFile(file), damaged)
  await assertSound(t, to)
  await t.throwsAsync(recover(file, { to }), { code: 'ERR_SQLITE_ERROR' })

  const report = await recover(file)
  t.is(report.outcome, 'salvaged')
  t.deepEqual(await readFile(report.preserved!.database), damaged)
  await assertSound(t, file)
  t.is((await recover(file)).outcome, 'healthy')
})

test('a writer that stopped goes on after recover() of its database', async (t) => {
  const { file } = await filledWith(t, 500)
  const db = new HardenedDatabase(file, { onCorruption: 'throw' })
  await damage(t, file)
  const corrupt = nextEvent(db, 'corrupt')
  await t.throwsAsync(db.appendAgentLogs(entries(3, 'kept ')))
  await corrupt
  t.is(db.stats().state, 'stopped')
  const report = await db.recover()
  t.is(report.outcome, 'salvaged')
  await db.flushAgentLogs()
  t.deepEqual(
    texts(db),
    [...before(500), ...entries(3, 'kept ')].map(({ text }) => text),
  )
  t.is((await db.appendAgentLogs([entry('more')])).committed, 1)
  db.exec('BEGIN')
  await t.throwsAsync(db.recover(), { code: 'ERR_INVALID_STATE' })
  db.exec('ROLLBACK')
  await db.closeAsync()
  await assertSound(t, file)
})

// Alone, so that nothing but the progress keeps this thread from aborting.
test.serial('a recovery that is aborted changes nothing', async (t) => {
  const { file, pages } = await filledWith(t, 3000)
  destroy(file, pages.slice(3, 9))
  const before = await readFile(file)
  const controller = new AbortController()
  const reason = new Error('enough')
  const recovery = recover(file, {
    signal: controller.signal,
    progress: ({ stage }) => stage.startsWith('keeping') && controller.abort(reason),
  })
  t.is(await t.throwsAsync(recovery), reason)
  t.deepEqual(await readFile(file), before)
  t.deepEqual(
    (await readdir(path.dirname(file))).filter((name) => name.includes('damaged')),
    [],
  )
})

test('bad arguments are errors before anything is done', async (t) => {
  const file = database(t)
  const db = new HardenedDatabase(file)
  const code = 'ERR_INVALID_ARG_TYPE'
  await t.throwsAsync(recover(1 as unknown as string), { code })
  for (const options of [
    null,
    1,
    { to: 1 },
    { backups: 'x' },
    { backups: [1] },
    { useBackup: 1 },
    { allowLoss: 'yes' },
    { deadline: 'x' },
  ]) {
    await t.throwsAsync(recover(file, options as never), { code }, JSON.stringify(options))
    await t.throwsAsync(db.recover(options as never), { code }, JSON.stringify(options))
  }
  db.close()
  await t.throwsAsync(db.recover(), { code: 'ERR_INVALID_STATE' })
  await t.throwsAsync(recover(`${file}-not-there`), { code: 'ERR_SQLITE_ERROR' })
  const memory = new HardenedDatabase(':memory:')
  await t.throwsAsync(memory.recover(), { code: 'ERR_INVALID_STATE' })
  memory.close()
})

test("the day of Fusion's loss: 64 pages and an index, two processes, no restart", async (t) => {
  t.timeout(120_000)
  const { file } = await filledWith(t, 29_000)
  outOfStep(file, BY_TYPE, `UPDATE ${LOG} SET type = 'tool' WHERE id % 1000 = 0`)
  const acknowledged = new Map<string, Set<string>>()
  const children = ['daemon', 'extension'].map((name) => {
    acknowledged.set(name, new Set())
    return { name, process: new Child('goes-on.mjs', [file, name]) }
  })
  const hearAppends = async (count: number) => {
    for (const { name, process } of children) {
      for (let heard = 0; heard < count; heard++) {
        const { text, committed } = await process.hear('appended')
        t.is(committed, 1)
        acknowledged.get(name)!.add(text as string)
      }
    }
  }
  for (const { process } of children) {
    await process.hear('ready')
    process.say('go on')
  }
  await hearAppends(20)
  for (const { name, process } of children) {
    process.say('pause')
    for (let told = await process.next(); told.kind !== 'paused'; told = await process.next()) {
      if (told.kind === 'appended') acknowledged.get(name)!.add(told.text as string)
    }
  }
  children[0]!.process.say('truncate')
  t.false((await children[0]!.process.hear('truncated')).busy)

  // What was in the file, and what is about to be lost.
  const reader = new Child('inspect.mjs', [file])
  const { texts: before } = (await reader.hear('found')) as unknown as { texts: string[] }
  await reader.ended
  const high = leaves(file, LOG).slice(-64)
  const lost = new Set(rowids(file, high))
  destroy(file, high)

  for (const { process } of children) process.say('go on')
  const reports: Report[] = []
  for (const { name, process } of children) {
    let appended = 0
    while (appended < 50) {
      const told = await process.next()
      t.not(told.kind, 'failed', JSON.stringify(told))
      if (told.kind === 'recovered') reports.push(told.report as Report)
      if (told.kind === 'appended') {
        appended++
        acknowledged.get(name)!.add(told.text as string)
      }
    }
    process.say('stop')
    for (let told = await process.next(); told.kind !== 'done'; told = await process.next()) {
      t.not(told.kind, 'failed', JSON.stringify(told))
      if (told.kind === 'recovered') reports.push(told.report as Report)
      if (told.kind === 'appended') acknowledged.get(name)!.add(told.text as string)
    }
    t.is((await process.ended).code, 0)
  }

  // One of them repaired it; the other found it done, if it noticed at all.
  const salvaged = reports.filter(({ outcome }) => outcome === 'salvaged')
  t.is(salvaged.length, 1, reports.map(({ text }) => text).join('\n'))
  t.true(reports.every(({ outcome }) => outcome === 'salvaged' || outcome === 'healthy'))
  const [report] = salvaged
  const log = report!.salvage!.tables.find(({ name }) => name === LOG)!
  t.is(log.pagesLost, 64)
  t.is(log.rowsMissing, lost.size)
  t.true(report!.text.includes(`64 pages lost; at least ${lost.size.toLocaleString('en-US')} rows lost`), report!.text)

  const after = await findings(file)
  t.deepEqual(after.integrity, ['ok'])
  const found = new Set(after.texts)
  t.is(found.size, after.texts.length)
  const lostTexts = new Set(before.filter((_, index) => lost.has(index + 1)))
  t.is(lostTexts.size, lost.size)
  const owed = before.concat(...[...acknowledged.values()].map((all) => Array.from(all)))
  t.deepEqual(
    owed.filter((text) => !found.has(text) && !lostTexts.has(text)),
    [],
  )
})
