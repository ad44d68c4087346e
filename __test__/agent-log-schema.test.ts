// The schema under a running log: what it makes of an empty database, what it waits for, what it never blames a
// row for; further columns; the change counter.

import { existsSync, mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { AGENT_LOG_SCHEMA, type AgentLogEntry, HardenedDatabase, appendAgentLogs } from '../index.js'
import { changeCounter, createSchema, entries, entry, folder, nextEvent, open, run, texts } from './support.ts'

const TABLE = `CREATE TABLE agentLogEntries (id INTEGER PRIMARY KEY, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
  text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT)`
const NUMBERS = Array.from({ length: 100 }, (_, i) => String(i))
/** Far less than the minute that a lasting failure may take to be told, far more than it should. */
const SOON = 20_000

type Options = ConstructorParameters<typeof HardenedDatabase>[1]

/** A path in an empty folder. */
const temporary = (t: ExecutionContext) => path.join(folder(t), 'fusion.db')

/** A database with the log's table alone, that has been written to. */
async function written(t: ExecutionContext, options?: Options, schema = TABLE): Promise<HardenedDatabase> {
  const db = open(t, options, temporary(t))
  db.exec(schema)
  await db.appendAgentLogs([entry('first')])
  return db
}

async function refused(t: ExecutionContext, promise: Promise<unknown>, message?: RegExp) {
  const told = t.throwsAsync(promise, { code: 'ERR_FUSION_SCHEMA', ...(message && { message }) })
  return (await Promise.race([told, delay(SOON, undefined, { ref: false })])) as (Error & { path: string }) | undefined
}

function rejections(db: HardenedDatabase): unknown[] {
  const rejected: unknown[] = []
  db.on('rejected', (error) => rejected.push(error))
  db.on('error', () => {})
  return rejected
}

/** Everything that is written, once the schema is as it was. */
async function flushed(db: HardenedDatabase): Promise<string[]> {
  await db.flushAgentLogs()
  return texts(db)
}

// An empty database

test('the first program of docs/log.md runs in an empty folder', async (t) => {
  const home = folder(t)
  const { code, output } = await run(t, 'readme-use.mjs', [home])
  t.is(code, 0, output)
  t.regex(output, /^2 \[\]$/m)
  const db = open(t, undefined, path.join(home, '.fusion/fusion.db'))
  t.is(texts(db).length, 3)
  const made = db.prepare('SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL').all() as { sql: string }[]
  const expected = AGENT_LOG_SCHEMA.replaceAll(' IF NOT EXISTS', '').split(';')
  t.deepEqual(
    made.map(({ sql }) => sql).filter((sql) => !sql.includes('sqlite_sequence')),
    expected.map((sql) => sql.trim()).filter((sql) => sql !== ''),
  )
})

test('appendAgentLogs by path makes its file, its directory and its table', async (t) => {
  const file = path.join(folder(t), 'a/b/fusion.db')
  t.is((await appendAgentLogs(file, entries(2))).committed, 2)
  t.deepEqual(texts(open(t, undefined, file)), ['row 0', 'row 1'])
})

test('a directory is made by the first open alone, and for nothing that only reads', async (t) => {
  const home = folder(t)
  const file = path.join(home, 'made/fusion.db')
  t.throws(() => new HardenedDatabase(file, { readOnly: true }))
  t.false(existsSync(path.dirname(file)))
  const db = open(t, undefined, file)
  db.close()
  rmSync(path.dirname(file), { recursive: true })
  for (const again of [() => db.open(), () => new HardenedDatabase(file)]) {
    t.throws(again, { message: /no directory/ })
    t.false(existsSync(path.dirname(file)))
  }
  await t.throwsAsync(appendAgentLogs(file, entries(1)), { message: /no directory/ })
  // A directory that was there when its file was opened first is no other matter.
  const other = path.join(home, 'there/fusion.db')
  mkdirSync(path.dirname(other))
  open(t, undefined, other).close()
  rmSync(path.dirname(other), { recursive: true })
  t.throws(() => new HardenedDatabase(other), { message: /no directory/ })
})

test('by a file: URL a directory is made as by a path', (t) => {
  const file = path.join(folder(t), 'by url/fusion.db')
  const db = new HardenedDatabase(new URL(`file://${file}`))
  t.is(db.location(), file)
  db.close()
})

for (const [name, schema] of [
  ['another table', 'CREATE TABLE mine (x)'],
  ['a view', 'CREATE VIEW mine AS SELECT 1'],
  ['had a table once', 'CREATE TABLE mine (x); DROP TABLE mine'],
] as const) {
  test(`no table is made in a database that has ${name}, unless createTable says so`, async (t) => {
    const file = temporary(t)
    const db = open(t, undefined, file)
    db.on('error', () => {})
    db.exec(schema)
    const error = await refused(t, db.appendAgentLogs(entries(2)), /no table agentLogEntries/)
    t.is(error?.path, file)
    t.deepEqual(db.prepare(`SELECT name FROM sqlite_schema WHERE name LIKE 'agentLog%'`).all(), [])
    db.takePending()
    db.close()
    const asked = open(t, { createTable: true }, file)
    t.is((await asked.appendAgentLogs(entries(2))).committed, 2)
  })
}

for (const createTable of [true, false]) {
  test(`createTable: ${createTable}: a table that was there is never made again`, async (t) => {
    const db = open(t, { createTable }, temporary(t))
    const rejected = rejections(db)
    await db.appendAgentLogs([entry('0')])
    // As SQLite's manual changes a table, a transaction each: nothing may come in between.
    const other = open(t, { createTable }, db.location() ?? '')
    const steps = [
      `${TABLE.replace('agentLogEntries', 'new')}; INSERT INTO new SELECT * FROM agentLogEntries`,
      'DROP TABLE agentLogEntries',
      'SELECT 1',
      'ALTER TABLE new RENAME TO agentLogEntries',
    ]
    for (const [i, step] of steps.entries()) {
      db.appendAgentLog(entry(String(i + 1)))
      other.exec(step)
      if (step.startsWith('DROP')) await refused(t, db.flushAgentLogs())
    }
    // What was written between the copy and the drop went with the old table.
    const kept = await flushed(db)
    t.deepEqual(
      kept,
      ['0', '1', '2', '3', '4'].filter((text) => kept.includes(text)),
    )
    t.is(kept.at(-1), '4')
    t.deepEqual(rejected, [])
  })
}

test('createTable: a table that was there at the open is not made where it is renamed before the first entry', async (t) => {
  const file = temporary(t)
  const before = open(t, undefined, file)
  before.exec(TABLE)
  before.close()
  const db = open(t, { createTable: true }, file)
  db.on('error', () => {})
  db.exec('ALTER TABLE agentLogEntries RENAME TO old')
  await refused(t, db.appendAgentLogs([entry('a')]))
  db.exec('ALTER TABLE old RENAME TO agentLogEntries')
  t.deepEqual(await flushed(db), ['a'])
})

test('a log that alone has the file open, and waits for its table, takes nothing for lost', async (t) => {
  const file = temporary(t)
  const before = open(t, undefined, file)
  before.exec('CREATE TABLE mine (x)')
  before.close()
  const told: unknown[] = []
  const listen = (warning: Error & { code?: string; path?: string }) => warning.path === file && told.push(warning.code)
  process.on('warning', listen)
  t.teardown(() => process.off('warning', listen))
  await refused(t, appendAgentLogs(file, [entry('a')], { checkpointIdle: 10 }))
  const db = open(t, undefined, file)
  db.exec(TABLE)
  t.deepEqual(await flushed(db), ['a'])
  t.is(db.stats().healed, 0)
  t.deepEqual(told, ['ERR_FUSION_SCHEMA'])
})

test('a table made in a transaction of the caller goes with it, and its entries come later', async (t) => {
  const db = open(t, undefined, temporary(t))
  db.exec('BEGIN IMMEDIATE')
  db.appendAgentLog(entry('a'))
  await db.flushAgentLogs()
  t.deepEqual(texts(db), ['a'])
  db.exec('ROLLBACK')
  t.deepEqual(await flushed(db), ['a'])
})

test('in memory the table is made, too', async (t) => {
  const db = open(t, undefined, ':memory:')
  t.is((await db.appendAgentLogs(entries(2))).committed, 2)
  t.deepEqual(texts(db), ['row 0', 'row 1'])
})

test('Fusion’s schema is taken as it is', async (t) => {
  const db = open(t, undefined, temporary(t))
  createSchema(db)
  const before = db.prepare('SELECT sql FROM sqlite_schema').all()
  const counter = changeCounter(db)
  t.is((await db.appendAgentLogs([entry('a'), entry('b', { taskId: 'gone' })])).committed, 1)
  t.deepEqual(db.prepare('SELECT sql FROM sqlite_schema').all(), before)
  t.true(changeCounter(db) > counter)
})

// A schema that changes under the log

const CHANGES: [name: string, away: string, back: string][] = [
  ['the table is renamed', 'ALTER TABLE agentLogEntries RENAME TO old', 'ALTER TABLE old RENAME TO agentLogEntries'],
  ['the table is dropped', 'DROP TABLE agentLogEntries', TABLE],
  [
    'a column is renamed',
    'ALTER TABLE agentLogEntries RENAME COLUMN detail TO d',
    'ALTER TABLE agentLogEntries RENAME COLUMN d TO detail',
  ],
  [
    'a column is dropped',
    'ALTER TABLE agentLogEntries DROP COLUMN agent',
    'ALTER TABLE agentLogEntries ADD COLUMN agent TEXT',
  ],
  [
    'a column is added that no entry has a value for',
    `ALTER TABLE agentLogEntries RENAME TO old; ${TABLE.replace('agent TEXT', 'agent TEXT, due TEXT NOT NULL')}`,
    'DROP TABLE agentLogEntries; ALTER TABLE old RENAME TO agentLogEntries',
  ],
  [
    'a trigger names a missing table',
    'CREATE TRIGGER x AFTER INSERT ON agentLogEntries BEGIN INSERT INTO nowhere VALUES (1); END',
    'DROP TRIGGER x',
  ],
  [
    'a trigger calls a function that is not there',
    'CREATE TRIGGER x AFTER INSERT ON agentLogEntries BEGIN SELECT absent_function(new.text); END',
    'DROP TRIGGER x',
  ],
  [
    'a view takes its place',
    'ALTER TABLE agentLogEntries RENAME TO old; CREATE VIEW agentLogEntries AS SELECT * FROM old',
    'DROP VIEW agentLogEntries; ALTER TABLE old RENAME TO agentLogEntries',
  ],
]

for (const [name, away, back] of CHANGES) {
  for (const where of ['of this database', 'of another process’s kind', 'in memory'] as const) {
    test(`${name}, ${where}: no row is rejected, all are stored once it is back`, async (t) => {
      const inMemory = where === 'in memory'
      const db = open(t, { changeCounter: null }, inMemory ? ':memory:' : temporary(t))
      db.exec(TABLE)
      await db.appendAgentLogs([entry('first')])
      const rejected = rejections(db)
      const other = where.startsWith('of this') || inMemory ? db : open(t, undefined, db.location() ?? '')
      const dropped = away.startsWith('DROP')
      const expected = (more: string[]) => [...(dropped ? [] : ['first']), ...more]
      other.exec(away)
      for (const text of NUMBERS) t.true(db.appendAgentLog(entry(text)))
      const error = await refused(t, db.appendAgentLogs([entry('awaited')]))
      t.truthy(error, 'told soon')
      if (!inMemory) t.is(error?.path, db.location() ?? '')
      t.is(db.stats().queue.rows, 101)
      t.is(db.stats().state, inMemory ? 'writing' : 'retrying')
      other.exec(back)
      t.deepEqual(await flushed(db), expected([...NUMBERS, 'awaited']))
      t.deepEqual(rejected, [])
      t.is(db.stats().rejected, 0)
    })
  }

  test(`${name}, in a transaction that entries are flushed into: they stay pending`, async (t) => {
    const db = await written(t, { changeCounter: null })
    const rejected = rejections(db)
    db.exec('BEGIN IMMEDIATE')
    db.exec(away)
    for (const text of NUMBERS) db.appendAgentLog(entry(text))
    await refused(t, db.flushAgentLogs())
    t.throws(() => db.flushAgentLogsSync(), { code: 'ERR_FUSION_SCHEMA' })
    db.exec('ROLLBACK')
    t.deepEqual(await flushed(db), ['first', ...NUMBERS])
    t.deepEqual(rejected, [])
  })
}

test('a NULL that an entry gives is its own fault, whatever else the table asks for', async (t) => {
  const db = open(t, { columns: ['due'] }, temporary(t))
  db.exec(TABLE.replace('agent TEXT', `agent TEXT, due TEXT NOT NULL, more TEXT NOT NULL DEFAULT ''`))
  const { committed, rejected } = await db.appendAgentLogs([entry('a'), entry('b', { due: 'now' })])
  t.is(committed, 1)
  t.deepEqual(
    rejected.map(({ index, errcode }) => [index, errcode]),
    [[0, 1299]],
  )
})

test('a trigger that fails is a schema fault that names the trigger and what is missing', async (t) => {
  const db = await written(t)
  db.on('error', () => {})
  db.exec('CREATE TRIGGER audit AFTER INSERT ON agentLogEntries BEGIN INSERT INTO nowhere VALUES (1); END')
  await refused(t, db.appendAgentLogs(entries(1)), /audit.*nowhere/)
  db.exec('DROP TRIGGER audit; ALTER TABLE agentLogEntries RENAME COLUMN detail TO d')
  await refused(t, db.flushAgentLogs(), /detail/)
  t.is(db.takePending().length, 1)
})

test('what is refused for its values is rejected, whatever the schema says about it', async (t) => {
  const db = await written(
    t,
    { changeCounter: null },
    `${TABLE.replace('agent TEXT', `agent TEXT, parsed TEXT AS (iif(detail IS NULL, 1, json_extract(detail, '$.a'))) STORED`)};
    CREATE TABLE seen (text);
    CREATE TRIGGER a BEFORE INSERT ON agentLogEntries BEGIN
      SELECT CASE new.text WHEN 'abort' THEN RAISE(ABORT, 'no') WHEN 'fail' THEN RAISE(FAIL, 'no')
        WHEN 'ignore' THEN RAISE(IGNORE) WHEN 'rollback' THEN RAISE(ROLLBACK, 'no') END;
    END;
    CREATE TRIGGER b AFTER INSERT ON agentLogEntries BEGIN
      INSERT INTO seen VALUES (new.text);
      SELECT CASE new.text WHEN 'late abort' THEN RAISE(ABORT, 'no') WHEN 'late fail' THEN RAISE(FAIL, 'no')
        WHEN 'late rollback' THEN RAISE(ROLLBACK, 'no') END;
    END`,
  )
  const bad = ['abort', 'fail', 'ignore', 'rollback', 'late abort', 'late fail', 'late rollback']
  const batch = [entry('json', { detail: '{' }), ...bad.flatMap((text) => [entry(text), entry(`after ${text}`)])]
  const good = bad.map((text) => `after ${text}`)
  const outcome = (receipt: { committed: number; rejected: { index: number; errcode: number }[] }) => {
    t.is(receipt.committed, bad.length)
    t.deepEqual(
      receipt.rejected.map(({ index, errcode }) => [batch[index]?.text, errcode]),
      [['json', 1], ...bad.map((text) => [text, 1811])],
    )
  }
  outcome(await db.appendAgentLogs(batch))
  t.deepEqual(texts(db), ['first', ...good])
  t.deepEqual(db.prepare('SELECT group_concat(text) AS all_of FROM seen').get(), {
    __proto__: null,
    all_of: ['first', ...good].join(),
  } as object)
  // Inside a transaction of the caller, which a rolled-back one would be the end of.
  const mild = batch.filter(({ text }) => !text.includes('rollback'))
  db.exec('BEGIN IMMEDIATE')
  const receipt = db.appendAgentLogs(mild)
  await db.flushAgentLogs()
  db.exec('COMMIT')
  t.is((await receipt).rejected.length, 6)
  t.deepEqual(texts(db), ['first', ...good, ...good.filter((text) => !text.includes('rollback'))])
})

test('a view with an INSTEAD OF trigger takes entries', async (t) => {
  const db = await written(t, { changeCounter: null })
  db.exec(`ALTER TABLE agentLogEntries RENAME TO old; CREATE VIEW agentLogEntries AS SELECT * FROM old;
    CREATE TRIGGER into_old INSTEAD OF INSERT ON agentLogEntries BEGIN
      INSERT INTO old (taskId, timestamp, text, type) VALUES (new.taskId, new.timestamp, new.text, new.type); END`)
  t.is((await db.appendAgentLogs(entries(2))).committed, 2)
  t.deepEqual(texts(db), ['first', 'row 0', 'row 1'])
})

test('a schema fault of appendAgentLogs by path is told by its promise and by a warning', async (t) => {
  const file = temporary(t)
  const db = open(t, undefined, file)
  db.exec('CREATE TABLE mine (x)')
  db.close()
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
  await refused(t, appendAgentLogs(file, entries(2)))
  t.is(((await warned) as Error & { code: string }).code, 'ERR_FUSION_SCHEMA')
  const handle = open(t, undefined, file)
  handle.exec(TABLE)
  t.deepEqual(await flushed(handle), ['row 0', 'row 1'])
})

// Further columns

test('a key that no column stands for is refused by name and index, and nothing is taken', async (t) => {
  const db = await written(t)
  const strange = (more: object) => entry('x', more) as AgentLogEntry
  for (const more of [{ durationMs: 1 }, { durationMs: null }, { id: 7 }, { text2: '' }]) {
    const [key] = Object.keys(more)
    await t.throwsAsync(db.appendAgentLogs([entry('a'), strange(more)]), {
      instanceOf: TypeError,
      code: 'ERR_INVALID_ARG_VALUE',
      message: new RegExp(`^entries\\[1\\]\\.${key} `),
    })
    t.throws(() => db.appendAgentLog(strange(more)), {
      instanceOf: TypeError,
      code: 'ERR_INVALID_ARG_VALUE',
      message: new RegExp(`^entry\\.${key} `),
    })
  }
  t.is(db.stats().queue.rows, 0)
  class Entry {
    taskId = 'T'
    type = 'text'
    durationMs = undefined
    get text() {
      return 'of a class'
    }
    save() {}
  }
  const inherits = Object.assign(Object.create({ durationMs: 1, type: 'text' }) as AgentLogEntry, {
    taskId: 'T',
    text: 'inherited',
  })
  t.is((await db.appendAgentLogs([new Entry(), inherits])).committed, 2)
  t.deepEqual(texts(db), ['first', 'of a class', 'inherited'])
})

test('columns: further columns are stored as node:sqlite binds them, and handed back', async (t) => {
  const columns = ['durationMs', 'a "name"', 'note']
  const db = open(t, { columns, changeCounter: null }, temporary(t))
  db.exec(TABLE.replace('agent TEXT', 'agent TEXT, durationMs INTEGER, "a ""name""", note TEXT'))
  const more = [
    { durationMs: 12, 'a "name"': 1.5, note: 'über \0 x' },
    { durationMs: 2n ** 63n - 1n, 'a "name"': null },
    {},
    { durationMs: 12.5, note: '' },
  ] as object[]
  await db.appendAgentLogs(more.map((one, i) => entry(`m${i}`, { timestamp: 't', ...one })))
  for (const [i, one] of more.entries()) db.appendAgentLog(entry(`s${i}`, { timestamp: 't', ...one }))
  await db.flushAgentLogs()
  const select = db.prepare('SELECT durationMs, "a ""name""", note FROM agentLogEntries WHERE id <= 4 ORDER BY id')
  select.setReadBigInts(true)
  const stored = [
    [12n, 1.5, 'über \0 x'],
    [2n ** 63n - 1n, null, null],
    [null, null, null],
    [12.5, null, ''],
  ]
  t.deepEqual(
    select.all().map((row) => Object.values(row as object)),
    stored,
  )
  const singles = db.prepare('SELECT durationMs, "a ""name""", note FROM agentLogEntries WHERE id > 4 ORDER BY id')
  singles.setReadBigInts(true)
  t.deepEqual(
    singles.all().map((row) => Object.values(row as object)),
    stored,
  )
  for (const bad of [true, {}, Symbol('x'), new Uint8Array(1), 2n ** 63n]) {
    await t.throwsAsync(db.appendAgentLogs([entry('x', { note: bad })]), {
      code: 'ERR_INVALID_ARG_TYPE',
      message: /^entries\[0\]\.note must be/,
    })
  }
  db.exec('ALTER TABLE agentLogEntries RENAME TO old')
  db.on('error', () => {})
  await refused(t, db.appendAgentLogs(more.map((one, i) => entry(`m${i}`, { timestamp: 't', ...one }))))
  const pending = db.takePending()
  t.deepEqual(
    pending.map((one) => [one['durationMs'], one['a "name"'], one['note']]),
    [
      [12, 1.5, 'über \0 x'],
      [2n ** 63n - 1n, null, null],
      [null, null, null],
      [12.5, null, ''],
    ],
  )
  db.exec('ALTER TABLE old RENAME TO agentLogEntries')
  t.is((await db.appendAgentLogs(pending)).committed, 4)
})

test('columns: a rejected entry shows them; a column that is missing is a schema fault', async (t) => {
  const db = open(t, { columns: ['durationMs'] }, temporary(t))
  createSchema(db)
  db.on('error', () => {})
  await refused(t, db.appendAgentLogs([entry('a', { durationMs: 3 })]), /durationMs/)
  db.exec('ALTER TABLE agentLogEntries ADD COLUMN durationMs INTEGER')
  t.deepEqual(await flushed(db), ['a'])
  const told = nextEvent(db, 'rejected')
  db.appendAgentLog(entry('b', { taskId: 'gone', durationMs: 4 }))
  const [, rejected] = (await told) as [Error, { durationMs: number }]
  t.is(rejected.durationMs, 4)
})

test('columns: a table that is made has them; handles of a file agree on them', async (t) => {
  const file = temporary(t)
  const db = open(t, { columns: ['durationMs'] }, file)
  t.is((await db.appendAgentLogs([entry('a', { durationMs: 3 })])).committed, 1)
  t.throws(() => new HardenedDatabase(file, { columns: ['other'] }), { code: 'ERR_FUSION_OPTIONS_CONFLICT' })
  const second = open(t, undefined, file)
  t.is((await second.appendAgentLogs([entry('b', { durationMs: 4 })])).committed, 1)
  const rows = db.prepare('SELECT durationMs AS ms FROM agentLogEntries ORDER BY id').all() as { ms: number }[]
  t.deepEqual(
    rows.map(({ ms }) => ms),
    [3, 4],
  )
  for (const columns of ['durationMs', [''], [1], ['a\0']]) {
    t.throws(() => new HardenedDatabase(':memory:', { columns } as object), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  for (const columns of [['text'], ['TaskId'], ['a', 'A']]) {
    t.throws(() => new HardenedDatabase(':memory:', { columns }), { code: 'ERR_OUT_OF_RANGE' })
  }
})

// The change counter

test('without __meta there is no counter, until there is one; a key that is asked for must be there', async (t) => {
  const db = await written(t)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
  db.exec('CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT)')
  await db.appendAgentLogs(entries(1))
  t.true(changeCounter(db) > 0)
  const file = temporary(t)
  const insists = open(t, { changeCounter: 'lastModified' }, file)
  insists.on('error', () => {})
  insists.exec(TABLE)
  await refused(t, insists.appendAgentLogs([entry('a')]), /__meta/)
  insists.exec('CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT)')
  t.deepEqual(await flushed(insists), ['a'])
  t.true(changeCounter(insists) > 0)
})

for (const [name, away, back] of [
  ['has other columns', 'ALTER TABLE __meta RENAME COLUMN value TO v', 'ALTER TABLE __meta RENAME COLUMN v TO value'],
  ['has no key', 'DROP TABLE __meta; CREATE TABLE __meta (key, value)', 'DROP TABLE __meta'],
  [
    'has a trigger that refuses',
    `CREATE TRIGGER x BEFORE INSERT ON __meta BEGIN SELECT RAISE(ABORT, 'closed'); END`,
    'DROP TRIGGER x',
  ],
  [
    'has a trigger that ends the transaction',
    `CREATE TRIGGER x BEFORE INSERT ON __meta BEGIN SELECT RAISE(ROLLBACK, 'closed'); END`,
    'DROP TRIGGER x',
  ],
] as const) {
  test(`a counter that fails rejects no row and loses none: __meta ${name}`, async (t) => {
    const db = await written(t, undefined, `${TABLE}; CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT)`)
    const rejected = rejections(db)
    db.exec(away)
    db.appendAgentLog(entry('a'))
    await refused(t, db.appendAgentLogs([entry('b')]), /__meta/)
    t.deepEqual(texts(db), ['first'])
    db.exec(back)
    t.deepEqual(await flushed(db), ['first', 'a', 'b'])
    t.deepEqual(rejected, [])
  })
}

test('bumpChangeCounter increases the counter in one statement, inside a transaction, too', async (t) => {
  const db = open(t)
  const first = db.bumpChangeCounter()
  t.is(first, changeCounter(db))
  t.true(Math.abs(Date.now() - first) < 60_000)
  t.true(db.bumpChangeCounter() > first)
  db.exec('BEGIN')
  const inside = db.bumpChangeCounter()
  t.is(changeCounter(db), inside)
  db.exec('ROLLBACK')
  t.true(changeCounter(db) < inside)
  t.true(db.bumpChangeCounter('own') > 0)
  db.exec(`UPDATE __meta SET value = '9999999999999' WHERE key = 'own'`)
  t.is(db.bumpChangeCounter('own'), 10_000_000_000_000)
  const file = db.location() ?? ''
  const before = db.bumpChangeCounter('own')
  db.close()
  for (const option of [{ returnArrays: true }, { readBigInts: true }, {}]) {
    const own = open(t, { changeCounter: 'own', ...option }, file)
    t.true(own.bumpChangeCounter() > before)
    own.close()
  }
  db.open()
  t.throws(() => db.bumpChangeCounter(1 as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

test('a log with its own counter, and writers that bump by statement, never leave one lower', async (t) => {
  for (const changeCounter of ['agentLogsModified', 'lastModified']) {
    const db = open(t, { changeCounter }, temporary(t))
    createSchema(db)
    db.exec(`CREATE TABLE lost (old, new);
      CREATE TRIGGER lostBump AFTER UPDATE ON __meta WHEN CAST(new.value AS INTEGER) <= CAST(old.value AS INTEGER)
      BEGIN INSERT INTO lost VALUES (old.value, new.value); END`)
    const pending: Promise<unknown>[] = []
    for (let i = 0; i < 300; i++) {
      pending.push(db.appendAgentLogs([entry(`row ${i}`)]))
      db.bumpChangeCounter('lastModified')
      if (i % 10 === 0) await new Promise(setImmediate)
    }
    await Promise.all(pending)
    t.deepEqual(db.prepare('SELECT * FROM lost').all(), [])
  }
})
