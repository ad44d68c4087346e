// Checks: what they find, that they are shared and can be left, and that nobody has to wait for them.

import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  copyFileSync,
  writeFileSync,
} from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import {
  DatabaseSync,
  type Finding,
  type Health,
  HardenedDatabase,
  backupFile,
  check,
  fileInfo,
  pageMap,
  recover,
} from '../index.js'
import { filled, leaves, leftInWal, sql, withIndexOutOfStep, withStaleWal, writePage } from './helpers/damage.ts'
import { createSchema, database, entries, folder, open, openInMemory, Other, run } from './support.ts'

const types = (health: Health) => health.findings.map((finding) => finding.type)
const only = (health: Health, type: Finding['type']) => health.findings.find((finding) => finding.type === type)

test('a sound database is found sound, and no byte and no file beside it is different afterwards', async (t) => {
  const file = await filled(t, 500)
  const before = readFileSync(file)
  for (const kind of ['quick', 'full'] as const) {
    const health = await check(file, { kind })
    const { elapsedMs, ...rest } = health
    t.deepEqual(rest, {
      path: file,
      kind,
      ok: true,
      findings: [],
      pages: before.length / 4096,
      pageSize: 4096,
      text: '',
    })
    t.true(elapsedMs > 0)
  }
  t.true(readFileSync(file).equals(before))
  t.deepEqual(
    readdirSync(path.dirname(file)).filter((name) => /-(wal|shm)/.test(name)),
    [],
  )
})

test('destroyed pages of a table are told by their table and numbers', async (t) => {
  const file = await filled(t, 2000)
  const lost = leaves(file, 'agentLogEntries').slice(-64)
  for (const page of lost) writePage(file, page)
  const health = await check(file)
  t.false(health.ok)
  t.like(only(health, 'tableDamage'), { table: 'agentLogEntries', pages: lost })
  t.regex(health.text, /the table agentLogEntries is damaged on 64 pages/)
})

test('an index out of step with its table is told by its name, and the table is not blamed', async (t) => {
  const { file, index } = await withIndexOutOfStep(t)
  const health = await check(file)
  t.deepEqual(types(health), ['indexDamage'])
  t.like(health.findings[0], { index, table: 'agentLogEntries', needsApplication: false })
})

test('a full-text index that INSERT OR REPLACE left stale is told, and is not a damaged file', async (t) => {
  const file = await filled(t, 100)
  sql(
    file,
    `CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
     CREATE VIRTUAL TABLE notes_words USING fts5(body, content='notes', content_rowid='id');
     CREATE TRIGGER notes_i AFTER INSERT ON notes BEGIN INSERT INTO notes_words(rowid, body) VALUES (new.id, new.body); END;
     CREATE TRIGGER notes_d AFTER DELETE ON notes BEGIN
       INSERT INTO notes_words(notes_words, rowid, body) VALUES ('delete', old.id, old.body); END;
     INSERT INTO notes VALUES (1, 'red green'), (2, 'blue')`,
  )
  t.true((await check(file)).ok)
  sql(file, `INSERT OR REPLACE INTO notes VALUES (1, 'yellow')`)
  const health = await check(file)
  t.true(health.ok)
  t.deepEqual(types(health), ['ftsStale'])
  t.like(health.findings[0], { table: 'notes_words', gone: 0, leftOut: 0 })
  const db = open(t, { startupCheck: 'full', onCorruption: 'throw' }, file)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1, 'it is opened and written to')
})

test('a full-text index that leaves soft-deleted rows out is in order, and no repair adds them', async (t) => {
  const file = await filled(t, 100)
  sql(
    file,
    `CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, deleted INT);
     CREATE VIRTUAL TABLE notes_words USING fts5(body, content='notes', content_rowid='id');
     CREATE TRIGGER notes_i AFTER INSERT ON notes WHEN new.deleted IS NULL BEGIN
       INSERT INTO notes_words(rowid, body) VALUES (new.id, new.body); END;
     CREATE TRIGGER notes_u AFTER UPDATE ON notes BEGIN
       INSERT INTO notes_words(notes_words, rowid, body) SELECT 'delete', old.id, old.body WHERE old.deleted IS NULL;
       INSERT INTO notes_words(rowid, body) SELECT new.id, new.body WHERE new.deleted IS NULL; END;
     INSERT INTO notes (id, body) VALUES (1, 'red green'), (2, 'blue green'), (3, 'green');
     UPDATE notes SET deleted = 1 WHERE id = 2`,
  )
  for (const kind of ['quick', 'full'] as const) t.deepEqual((await check(file, { kind })).findings, [])
  t.is((await recover(file)).outcome, 'healthy')
  const db = open(t, { startupCheck: 'full' }, file)
  const found = db.prepare(`SELECT rowid FROM notes_words WHERE notes_words MATCH 'green'`).all()
  t.deepEqual(
    found.map(({ rowid }) => rowid),
    [1, 3],
  )
})

test('a WAL that is not the file’s own is told from damage, and neither applied nor removed', async (t) => {
  const file = await withStaleWal(t)
  const [main, wal] = [readFileSync(file), readFileSync(`${file}-wal`)]
  const health = await check(file)
  t.deepEqual(types(health), ['staleWal'])
  t.like(health.findings[0], { bytes: wal.length })
  t.true(readFileSync(file).equals(main) && readFileSync(`${file}-wal`).equals(wal))
})

test('a file that was cut short says how many pages are missing', async (t) => {
  const file = await filled(t, 500)
  truncateSync(file, statSync(file).size - 7 * 4096)
  const health = await check(file)
  t.like(only(health, 'truncated'), { missingPages: 7 })
})

test('a WAL that was deleted after a crash is missed, with the number of lost pages', async (t) => {
  const file = await filled(t, 10)
  await leftInWal(t, file, `UPDATE __meta SET value = '1'`, `UPDATE __meta SET value = '2'`)
  rmSync(`${file}-wal`)
  const health = await check(file)
  t.true(health.ok)
  t.deepEqual(health.findings, [{ type: 'walDeleted', frames: 2 }])
})

test('a file that another process holds exclusively is locked, which is no damage', async (t) => {
  const file = await filled(t, 10)
  sql(file, 'PRAGMA journal_mode = DELETE')
  const other = new Other(t, 'leaves-wal.mjs', [file, 'BEGIN EXCLUSIVE'])
  await other.says('done')
  const health = await check(file)
  t.deepEqual(types(health), ['locked'])
  t.false(health.ok)
})

test('a file that was replaced under this process is told', async (t) => {
  const file = await filled(t, 10)
  const db = open(t, undefined, file)
  const copy = path.join(path.dirname(file), 'copy.db')
  copyFileSync(file, copy)
  renameSync(copy, file)
  t.true(types(await check(file)).includes('replaced'))
  t.true(db.isOpen)
})

test('what is no database, and what is not there, is said', async (t) => {
  const file = path.join(folder(t), 'text.db')
  writeFileSync(file, 'no database\n'.repeat(1000))
  t.deepEqual(types(await check(file)), ['notADatabase'])
  const missing = path.join(folder(t), 'none.db')
  await t.throwsAsync(check(missing), { code: 'ERR_SQLITE_ERROR', message: /no such file/ })
  t.false(existsSync(missing))
})

test('arguments are checked', async (t) => {
  const file = database(t)
  for (const bad of [{ kind: 'deep' }, { signal: 7 }, { deadline: -1 }, { progress: 1 }, { kin: 'full' }, 7]) {
    await t.throwsAsync(check(file, bad as never), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  await t.throwsAsync(check(7 as never), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const none of ['', ':memory:', 'file:x.db?mode=ro', new URL('https://localhost/x.db')]) {
    await t.throwsAsync(check(none), { instanceOf: TypeError })
  }
  await t.throwsAsync(openInMemory(t).check(), { code: 'ERR_INVALID_STATE' })
})

const templates = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-check-')))
const template = path.join(templates, 'large.db')

test.before(() => {
  sql(
    template,
    `PRAGMA journal_mode = WAL;
     CREATE TABLE bulk (id INTEGER PRIMARY KEY, text TEXT);
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
     INSERT INTO bulk SELECT i, hex(randomblob(200)) FROM n;
     CREATE INDEX bulk_text ON bulk (text)`,
  )
  const db = new DatabaseSync(template)
  createSchema(db)
  db.close()
})

test.after.always(() => rmSync(templates, { recursive: true, force: true }))

/** A file whose check takes long enough to be interfered with. */
function large(t: ExecutionContext): string {
  const file = path.join(folder(t), 'large.db')
  copyFileSync(template, file)
  return file
}

test.serial(
  'a check of a large file is ended by its signal, with the signal’s reason, and by a deadline',
  async (t) => {
    const file = large(t)
    const controller = new AbortController()
    const reason = new Error('enough')
    const stages: number[] = []
    const checking = check(file, {
      signal: controller.signal,
      progress: ({ done, total }) => {
        stages.push(done / total)
        controller.abort(reason)
      },
    })
    t.is(await t.throwsAsync(checking), reason)
    t.true(stages.every((part) => part >= 0 && part <= 1))
    await t.throwsAsync(check(file, { deadline: 1 }), { code: 'ERR_FUSION_DEADLINE' })
    await t.throwsAsync(check(file, { signal: AbortSignal.abort(reason) }), { message: 'enough' })
  },
)

test.serial(
  'one check of a file answers whoever asks meanwhile, and a caller that leaves ends its own wait only',
  async (t) => {
    const file = large(t)
    const controller = new AbortController()
    const started = Promise.withResolvers<void>()
    const first = check(file, { progress: () => started.resolve() }).then((health) => health)
    await started.promise
    const second = check(file, { kind: 'quick' })
    const third = check(file, { signal: controller.signal })
    controller.abort()
    await t.throwsAsync(third, { name: 'AbortError' })
    const [one, other] = await Promise.all([first, second])
    t.true(one.ok)
    t.deepEqual(other, one, 'the same check: a full one, its time to the microsecond')
  },
)

test.serial('the event loop runs while a file is checked, and its database can be read and written to', async (t) => {
  const file = large(t)
  const db = open(t, { startupCheck: 'off' }, file)
  const checking = db.check()
  let turns = 0
  const turning = setInterval(() => turns++, 0)
  await checking
  clearInterval(turning)
  t.true((await checking).ok)
  t.true(turns > 10, `${turns} turns`)
  t.is((await db.appendAgentLogs(entries(10))).committed, 10)
  t.deepEqual(db.stats().health, await checking)
})

test.serial('closing a database ends its checks, and the WAL is gone with it', async (t) => {
  const file = large(t)
  for (const close of ['close', 'closeAsync'] as const) {
    const db = new HardenedDatabase(file, { startupCheck: 'off' })
    const started = Promise.withResolvers<void>()
    const checking = db.check({ progress: () => started.resolve() })
    const ended = t.throwsAsync(checking, { code: 'ERR_INVALID_STATE', message: /closed while it was checked/ })
    await started.promise
    await db[close]()
    await ended
    t.false(existsSync(`${file}-wal`), close)
  }
})

for (const [how, waits] of [
  ['background', false],
  ['unawaited', false],
  ['handle', true],
  ['path', true],
] as const) {
  test(`the process ${waits ? 'waits for a check that is awaited' : 'does not wait for a check that nobody awaits'}: ${how}`, async (t) => {
    const { code, output } = await run(t, 'checks.mjs', [large(t), how])
    t.is(code, 0, output)
    t.is(output.includes('"checked"'), waits, output)
  })
}

test('process.exit() in the middle of a check ends the process', async (t) => {
  const file = large(t)
  const { code, output } = await run(t, 'checks.mjs', [file, 'exit'])
  t.is(code, 7, output)
  t.true((await check(file)).ok)
})

test.serial('what node:sqlite’s twin does to a file while it is checked is not seen as damage', async (t) => {
  const file = large(t)
  const db = new DatabaseSync(file)
  t.teardown(() => db.close())
  let writes = 0
  const writing = setInterval(() => {
    db.exec(`UPDATE bulk SET text = hex(randomblob(200)) WHERE id % 1000 = ${writes++ % 1000}`)
    if (writes % 20 === 0) db.exec('PRAGMA wal_checkpoint(PASSIVE)')
  }, 0)
  t.teardown(() => clearInterval(writing))
  const health = await check(file)
  t.true(health.ok, health.text)
  t.true(writes > 1, `${writes} writes`)
})

test('a file is named by text, bytes or a URL, whatever is asked of it', async (t) => {
  const file = path.join(folder(t), 'a file#1.db')
  copyFileSync(database(t), file)
  for (const name of [file, Buffer.from(file), pathToFileURL(file), String(pathToFileURL(file))]) {
    t.true((await check(name)).ok)
    t.is((await fileInfo(name)).path, realpathSync(file))
    t.is((await pageMap(name)).damagedPages, 0)
    t.is((await recover(name)).outcome, 'healthy')
    t.true((await backupFile(name)).verified)
  }
})
