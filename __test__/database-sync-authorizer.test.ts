// The authorizer, as node:sqlite has it; SQL inside it, with which that lets SQLite be corrupted,
// is an error.

import test from 'ava'
import { DatabaseSync as Database, constants as codes } from '../index.js'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

same('constants', ({ constants }, look) => {
  look('values', () => constants)
  look('order', () => Object.keys(constants))
  look('attributes', () => [
    Object.getOwnPropertyDescriptor(constants, 'SQLITE_DENY'),
    Object.getPrototypeOf(constants),
    Object.isExtensible(constants),
    Reflect.set(constants, 'SQLITE_DENY', 5),
  ])
})

same('arguments of setAuthorizer()', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  for (const value of [undefined, 1, 'a', {}, [], true, null]) look(String(value), () => db.setAuthorizer(any(value)))
  look('none', () => (db.setAuthorizer as () => void)())
  db.close()
  look('closed', () => db.setAuthorizer(any(1)))
})

same('what an authorizer is asked', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)')
  const calls: unknown[] = []
  const before = db.prepare('SELECT a FROM t')
  db.setAuthorizer(function (this: unknown, ...args) {
    calls.push([this, ...args])
    return 0
  })
  const asked = (sql: string) =>
    look(sql, () => {
      calls.length = 0
      db.exec(sql)
      return [...calls]
    })
  look('a statement of before', () => [before.all(), before.all(), calls.splice(0)])
  look('prepare', () => [db.prepare('SELECT a, count(b) FROM t WHERE a > ?').all(0), calls.splice(0)])
  look('prepare of the same', () => [db.prepare('SELECT a, count(b) FROM t WHERE a > ?').all(0), calls.splice(0)])
  for (let i = 0; i < 2; i++) look('BEGIN', () => [db.exec('BEGIN'), db.exec('COMMIT'), calls.splice(0)])
  asked('CREATE INDEX i ON t (a)')
  asked('CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT new.a; END')
  asked('INSERT INTO t VALUES (5, 6)')
  asked('PRAGMA user_version')
  asked("ATTACH ':memory:' AS other; DETACH other")
  asked('SAVEPOINT s; RELEASE s')
  asked('CREATE TEMP VIEW v AS SELECT 1; SELECT * FROM v')
  asked('ALTER TABLE t RENAME b TO c')
  asked('DROP TABLE t')
})

same('what an authorizer answers', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)')
  // In node:sqlite a statement that was denied once reports that again when it is next run.
  const before = [] as ReturnType<typeof db.prepare>[]
  const answers: unknown[] = [0, 1, 2, 3, -1, 1.5, '0', null, undefined, true, 0n, {}, NaN, Symbol('s'), -0, 2 ** 32]
  answers.push(2 ** 32 + 1, Infinity, Promise.resolve(0), 2147483647)
  answers.forEach((answer, index) => {
    before.length = 0
    for (let i = 0; i < 2; i++) before.push(db.prepare('SELECT a FROM t'))
    db.setAuthorizer(() => any(answer))
    look(`prepare, ${index}`, () => db.prepare('SELECT a FROM t').all())
    look(`exec, ${index}`, () => db.exec('SELECT a FROM t'))
    look(`before, ${index}`, () => before[0]!.all())
    look(`iterate, ${index}`, () => [...before[1]!.iterate()])
    look(`BEGIN, ${index}`, () => (db.exec('BEGIN'), db.exec('COMMIT')))
    db.setAuthorizer(null)
    look(`none, ${index}`, () => db.prepare('SELECT a FROM t').all())
  })
  db.setAuthorizer((action) => (action === 20 ? 2 : 0))
  look('ignored columns', () => db.prepare('SELECT a, b FROM t').all())
  const kept = db.prepare('SELECT b FROM t')
  db.setAuthorizer(null)
  look('kept', () => [kept.all(), db.prepare('SELECT b FROM t').all()])
  for (const thrown of [new Error('thrown'), null, undefined, 1]) {
    db.setAuthorizer(null)
    const statement = db.prepare('SELECT a FROM t')
    db.setAuthorizer(() => {
      throw thrown
    })
    for (const call of [() => db.prepare('SELECT 1'), () => db.exec('SELECT 1'), () => statement.all()]) {
      look(`throws ${String(thrown)}`, () => {
        try {
          return call()
        } catch (error) {
          return error === thrown
        }
      })
    }
  }
  db.close()
  db.open()
  look('reopened', () => db.prepare('SELECT 1 v').get())
})

same('statements of one text each ask', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const statements = Array.from({ length: 4 }, () => db.prepare('SELECT 1 v'))
  let calls = 0
  db.setAuthorizer(() => (calls++, 0))
  for (const statement of statements) look('allowed', () => [statement.all(), statement.get(), calls])
  db.setAuthorizer(() => (calls++, 1))
  for (const statement of statements) look('denied', () => statement.all())
  look('calls', () => calls)
})

test('an authorizer cannot replace itself', (t) => {
  const db = new Database(':memory:')
  for (const next of [null, () => 1]) {
    db.setAuthorizer(() => (db.setAuthorizer(next), 0))
    t.throws(() => db.prepare('SELECT 1'), {
      code: 'ERR_INVALID_STATE',
      message: 'database cannot be accessed from an authorizer callback',
    })
  }
  db.setAuthorizer(null)
  t.is(db.prepare('SELECT 1').all().length, 1)
})

test('an authorizer cannot use its database', (t) => {
  const db = new Database(':memory:')
  db.exec('CREATE TABLE t (a); CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT new.a; SELECT new.a; END')
  const before = db.prepare('SELECT * FROM t')
  const uses: (() => unknown)[] = [
    () => db.exec('DROP TRIGGER tr'),
    () => db.prepare('SELECT 1'),
    () => before.all(),
    () => before.iterate().next(),
    () => db.function('f', () => 1),
    () => db.aggregate('f', { start: 0, step: () => 1 }),
    () => db.close(),
    () => db.enableDefensive(false),
    () => (db.limits.length = 100),
  ]
  for (const use of uses) {
    db.setAuthorizer(() => (use(), codes.SQLITE_OK))
    t.throws(() => db.exec('INSERT INTO t VALUES (1)'), { code: 'ERR_INVALID_STATE' }, String(use))
    t.throws(() => db.prepare('INSERT INTO t VALUES (1)'), { code: 'ERR_INVALID_STATE' }, String(use))
    db.setAuthorizer(null)
  }
  const seen: unknown[] = []
  db.setAuthorizer(() => (seen.push(db.isOpen, db.isTransaction, typeof db.limits.length), codes.SQLITE_OK))
  db.exec('INSERT INTO t VALUES (1)')
  t.deepEqual(seen.slice(0, 3), [true, false, 'number'])
  t.is(before.all().length, 1)
})

test('an authorizer set in a function', (t) => {
  const db = new Database(':memory:')
  db.function('f', () => (db.setAuthorizer(() => codes.SQLITE_DENY), 1))
  t.is(db.prepare('SELECT f() v FROM (VALUES (1), (2))').all().length, 2)
  t.throws(() => db.prepare('SELECT 1'), { message: 'not authorized' })
  db.setAuthorizer(null)
  t.is(db.prepare('SELECT 1').all().length, 1)
})
