// What node:sqlite has in the newest Nodes only: here everywhere, and compared where it is there.

import { constants } from 'node:buffer'
import { spawnSync } from 'node:child_process'
import dc from 'node:diagnostics_channel'
import { createRequire } from 'node:module'
import path from 'node:path'
import * as node from 'node:sqlite'
import test from 'ava'
import { DatabaseSync, type QueryMessage } from '../index.js'
import { type Look, same as compare } from './helpers/differential.ts'

const { features } = createRequire(import.meta.url)('../lib/features.js') as { features: { undefinedIsNull: boolean } }

const any = (value: unknown) => value as never

type Api = { DatabaseSync: typeof DatabaseSync }

/** Whether the node:sqlite of this Node has it, too. */
const isThere = 'stat' in node.StatementSync.prototype

function same(title: string, probe: (api: Api, look: Look) => void): void {
  if (isThere) compare(title, (api, look) => probe(api as unknown as Api, look))
}

function open(): DatabaseSync {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  return db
}

const FINALIZED = { code: 'ERR_INVALID_STATE', message: 'statement has been finalized' }

test('a statement can be closed, also in the middle of an iteration, and then does nothing', (t) => {
  const db = open()
  for (const close of ['close', Symbol.dispose] as const) {
    const statement = db.prepare('SELECT a FROM t')
    const iterator = statement.iterate()
    iterator.next()
    t.is(statement[close](), undefined)
    for (const use of [
      () => statement.get(),
      () => statement.all(),
      () => statement.run(),
      () => statement.iterate(),
      () => statement.columns(),
      () => statement.stat('run'),
      () => statement.resetStats(),
      () => statement.sourceSQL,
      () => statement.expandedSQL,
      () => statement.setReadBigInts(true),
      () => statement.close(),
      () => iterator.next(),
      () => iterator.return!(),
    ]) {
      t.throws(use, FINALIZED)
    }
    t.notThrows(() => statement[Symbol.dispose]())
  }
  // It held the table.
  db.exec('DROP TABLE t')
  const left = db.prepare('SELECT 1')
  db.close()
  t.throws(() => left.close(), FINALIZED)
  t.notThrows(() => left[Symbol.dispose]())
})

test('closing one statement leaves others with the same text alone', (t) => {
  const db = open()
  const [first, second] = [db.prepare('SELECT a FROM t'), db.prepare('SELECT a FROM t')]
  const iterator = second.iterate()
  iterator.next()
  first.close()
  t.deepEqual({ ...(iterator.next().value as object) }, { a: 2 })
  t.is(second.all().length, 3)
  const pragma = db.prepare('PRAGMA user_version')
  pragma.get()
  pragma.close()
  t.is(db.prepare('PRAGMA user_version').all().length, 1)
})

const COUNTERS = ['fullscanStep', 'sort', 'autoindex', 'vmStep', 'reprepare', 'run', 'filterMiss', 'filterHit'] as const

test('counters are of one statement, and start again when reset', (t) => {
  const db = open()
  const counts = (statement: ReturnType<typeof db.prepare>) =>
    Object.fromEntries(COUNTERS.map((name) => [name, statement.stat(name)]))
  const fresh = db.prepare('SELECT a FROM t ORDER BY a DESC')
  const none = Object.fromEntries(COUNTERS.map((name) => [name, 0]))
  t.deepEqual(counts(fresh), none)
  t.true(fresh.stat('memused') > 0)
  for (let i = 0; i < 3; i++) fresh.all()
  const other = db.prepare('SELECT a FROM t ORDER BY a DESC')
  t.deepEqual(counts(other), none)
  other.get()
  t.is(fresh.stat('run'), 3)
  t.is(fresh.stat('sort'), 3)
  t.is(fresh.stat('fullscanStep'), 6)
  t.is(other.stat('run'), 1)
  db.exec('CREATE TABLE u (b)')
  fresh.all()
  t.is(fresh.stat('reprepare'), 1)
  fresh.resetStats()
  t.deepEqual(counts(fresh), none)
  fresh.all()
  t.deepEqual([fresh.stat('run'), fresh.stat('reprepare'), other.stat('run')], [1, 0, 1])
  // The statement that is used first, whose counters were not asked for before.
  const used = db.prepare('SELECT a FROM t')
  used.all()
  used.all()
  t.is(used.stat('run'), 2)
})

same('stat', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)')
  const statement = db.prepare('SELECT a FROM t x, t y USING (a) ORDER BY a')
  statement.all()
  for (const name of [...COUNTERS, 'nope', '', 'toString', '__proto__', undefined, null, 1, {}, Symbol('run')]) {
    look(String(name), () => statement.stat(any(name)))
  }
  look('no argument', () => (statement as unknown as { stat(): unknown }).stat())
  look('reset', () => statement.resetStats())
  for (const name of COUNTERS) look(`${name} after`, () => statement.stat(name))
  look('receiver', () => statement.stat.call(any({}), 'run'))
  look('close of another', () => statement.close.call(any(db)))
  look('dispose of another', () => statement[Symbol.dispose].call(any(db)))
})

same("prepare's persistent", ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  for (const persistent of [true, false, undefined, null, 1, 'x']) {
    look(String(persistent), () => db.prepare('SELECT 1 a', { persistent: any(persistent) }).all())
  }
})

/** What `body` runs, as subscribers see it. */
function queries(body: () => void): QueryMessage[] {
  const seen: QueryMessage[] = []
  const listen = (message: unknown) => seen.push(message as QueryMessage)
  dc.subscribe('sqlite.db.query', listen)
  try {
    body()
  } finally {
    dc.unsubscribe('sqlite.db.query', listen)
  }
  return seen
}

test('sqlite.db.query: each statement that has run, with its values and how long it took', (t) => {
  const db = open()
  const statement = db.prepare('SELECT a FROM t WHERE a > ? OR $b')
  const seen = queries(() => {
    statement.all({ $b: "it's" }, 1)
    t.throws(() => db.exec('INSERT INTO t VALUES (4); INSERT INTO nowhere VALUES (5)'))
    db.exec('BEGIN')
    db.exec('COMMIT')
    const iterator = statement.iterate({ $b: 0 }, 9)
    iterator.next()
    iterator.next()
  })
  t.deepEqual(
    seen.map(({ sql }) => sql),
    [
      "SELECT a FROM t WHERE a > 1.0 OR 'it''s'",
      'INSERT INTO t VALUES (4);',
      'BEGIN',
      'COMMIT',
      'SELECT a FROM t WHERE a > 9.0 OR 0.0',
    ],
  )
  for (const message of seen) {
    t.is(message.database, db)
    t.is(typeof message.duration, 'number')
    t.deepEqual([Object.getPrototypeOf(message), Object.keys(message)], [null, ['sql', 'database', 'duration']])
  }
  // Nothing is noted without subscribers.
  db.exec('SELECT 1')
  t.deepEqual(
    queries(() => {}),
    [],
  )
})

test('sqlite.db.query: a function in SQL that throws still throws', (t) => {
  const db = open()
  db.function('f', () => {
    throw new Error('mine')
  })
  const seen = queries(() => t.throws(() => db.prepare('SELECT f()').get(), { message: 'mine' }))
  t.deepEqual(
    seen.map(({ sql }) => sql),
    ['SELECT f()'],
  )
})

same('sqlite.db.query', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const ran = (body: () => void) => queries(body).map(({ sql }) => sql)
  look('script', () => ran(() => db.exec('  -- first\n CREATE TABLE t (a); ; INSERT INTO t VALUES (1),(2) ; SELECT 1')))
  look('nothing', () => ran(() => db.exec(' -- nothing')))
  const statement = db.prepare('SELECT a, ? FROM t')
  for (const value of [null, 1, 1n, 'a', new Uint8Array([1, 255]), true])
    look('get', () => ran(() => statement.get(value as never)))
  look('prepare', () => ran(() => void db.prepare('SELECT 2')))
  look('iterations', () => {
    const iterator = statement.iterate(1)
    return [
      ran(() => iterator.next()),
      ran(() => iterator.return!()),
      ran(() => void statement.iterate(2).next()),
      ran(() => void statement.all(3)),
    ]
  })
  look('closed in the middle', () => ran(() => (statement.iterate(4).next(), statement.close())))
  look('nested', () => {
    db.function('f', () => (db.prepare('SELECT 7').get(), 1))
    return ran(() => db.prepare('SELECT f()').get())
  })
  look('trigger', () => {
    db.exec('CREATE TABLE u (a); CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO u VALUES (new.a); END')
    return ran(() => db.exec('INSERT INTO t VALUES (5)'))
  })
  look('full-text search', () => ran(() => db.exec('CREATE VIRTUAL TABLE fts USING fts5(a)')))
  look('tag store', () => ran(() => void db.createTagStore().get`SELECT ${1} a`))
  look('sessions', () => {
    db.exec('CREATE TABLE p (a PRIMARY KEY, b)')
    const session = db.createSession()
    db.exec('INSERT INTO p VALUES (1, 2)')
    let changeset = new Uint8Array()
    const read = ran(() => (changeset = session.changeset()))
    db.exec('DELETE FROM p')
    return [read, ran(() => db.applyChangeset(changeset))]
  })
  look('serialize', () => ran(() => db.serialize()))
  look('deserialize', () => ran(() => db.deserialize(new DatabaseSync(':memory:').serialize())))
})

test('undefined is NULL, or cannot be bound, as the running Node has it', (t) => {
  const db = open()
  const statement = db.prepare('SELECT ? a, ? b')
  if (features.undefinedIsNull) {
    t.deepEqual({ ...statement.get(any(undefined), 1) }, { a: null, b: 1 })
    t.deepEqual({ ...db.prepare('SELECT $a a').get({ a: any(undefined) }) }, { a: null })
  } else {
    t.throws(() => statement.get(any(undefined), 1), { message: /parameter 1/ })
    t.throws(() => statement.get(1, any(undefined)), { message: /parameter 2/ })
  }
})

compare('undefined, and row ids that no number holds', (api, look) => {
  const db = new api.DatabaseSync(':memory:')
  db.exec('CREATE TABLE big (k INTEGER PRIMARY KEY)')
  for (const values of [
    [undefined],
    [undefined, 1],
    [1, undefined],
    [1, undefined, 2],
    [undefined, undefined, undefined],
  ]) {
    for (const method of ['get', 'all', 'run'] as const) {
      look(`${method} ${values.join()}`, () => db.prepare('SELECT ? a, ? b')[method](...(values as never[])))
    }
  }
  look('named', () => db.prepare('SELECT $a a').get({ a: any(undefined) }))
  look('tag store', () => db.createTagStore().get`SELECT ${any(undefined)} a, ${1} b`)
  const insert = db.prepare('INSERT INTO big VALUES (?)')
  for (const k of [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) + 1n, -(2n ** 53n), -(2n ** 63n)]) {
    look(String(k), () => insert.run(k))
  }
  look('stored', () => db.prepare('SELECT count(*) n FROM big').get())
  insert.setReadBigInts(true)
  look('bigint', () => insert.run(2n ** 60n))
})

test('expandedSQL inside a function of the statement', (t) => {
  const db = open()
  const seen: string[] = []
  let statement: ReturnType<typeof db.prepare>
  db.function('f', (a) => (seen.push(statement.expandedSQL, statement.sourceSQL), a))
  statement = db.prepare('SELECT f(?) a, ? b')
  statement.get(1, 'x')
  statement.all(2, 'y')
  t.is([...statement.iterate(3, 'z')].length, 1)
  const source = 'SELECT f(?) a, ? b'
  t.deepEqual(seen, [
    "SELECT f(1.0) a, 'x' b",
    source,
    "SELECT f(2.0) a, 'y' b",
    source,
    "SELECT f(3.0) a, 'z' b",
    source,
  ])
})

test('a text that is longer than a string can be is an error that says so', (t) => {
  const db = open()
  const half = (constants.MAX_STRING_LENGTH >>> 1) + 1
  const expected = { code: 'ERR_STRING_TOO_LONG' }
  t.throws(() => db.prepare('SELECT hex(zeroblob(?))').get(half), expected)
  db.function('f', (a) => a)
  t.throws(() => db.prepare(`SELECT f(hex(zeroblob(${half})))`).get(), expected)
  t.is(db.prepare('SELECT 1').all().length, 1)
})

test('sqlite.db.query: nothing but what the program runs', (t) => {
  const script = `
    const seen = []
    require('node:diagnostics_channel').subscribe('sqlite.db.query', ({ sql }) => seen.push(sql))
    const { features } = require(${JSON.stringify(path.join(import.meta.dirname, '../lib/features.js'))})
    const answers = Object.keys(Object.getOwnPropertyDescriptors(features)).map((name) => features[name])
    console.log(JSON.stringify([seen, answers.length > 4]))`
  const { stdout } = spawnSync(process.execPath, ['--no-warnings', '-e', script], { encoding: 'utf8' })
  t.deepEqual(JSON.parse(stdout), [[], true])
})

test('an iteration inside a function of its statement: what it reads, and who may use it', (t) => {
  const db = open()
  let act = () => {}
  db.function('act', (a) => (act(), a))
  const statement = db.prepare('SELECT a, act(a) b FROM t')
  const done = statement.iterate()
  t.is([...done].length, 3)
  const iterator = statement.iterate()
  act = () => {
    statement.setReadBigInts(true)
    t.throws(() => iterator.next(), { message: 'statement is already being executed' })
    // It is over, whatever its statement does.
    t.deepEqual(done.next(), Object.assign(Object.create(null), { done: true, value: null }))
    t.deepEqual(done.return!(), Object.assign(Object.create(null), { done: true, value: null }))
  }
  t.is(typeof (iterator.next().value as { a: unknown }).a, 'bigint')
  act = () => statement.setReadBigInts(false)
  t.is(typeof (iterator.next().value as { a: unknown }).a, 'number')
})

test('an authorizer that runs the statement it is asked about is refused as an authorizer', (t) => {
  const db = open()
  const statement = db.prepare('SELECT a FROM t')
  statement.get()
  const iterator = statement.iterate()
  // Has SQLite prepare the statement anew, and ask.
  db.exec('CREATE TABLE u (a)')
  const refusal = { code: 'ERR_INVALID_STATE', message: 'database cannot be accessed from an authorizer callback' }
  let asked = 0
  db.setAuthorizer(() => {
    asked++
    t.throws(() => statement.get(), refusal)
    t.throws(() => iterator.next(), refusal)
    t.throws(() => statement.close(), { message: 'statement is already being executed' })
    return 0
  })
  iterator.next()
  t.true(asked > 0)
})
