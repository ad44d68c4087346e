// Aggregate and window functions in JavaScript, as node:sqlite has them.

import test from 'ava'
import { DatabaseSync as Database } from '../index.js'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

const step = () => 1
const add = (a: unknown, b: unknown) => any(Number(a) + Number(b))

same('arguments of aggregate()', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const define = (...args: unknown[]) => (db.aggregate as (...args: unknown[]) => void)(...args)
  look('nothing', () => define())
  for (const options of [undefined, null, 1, 'a', {}, [], step, { step }, { start: undefined, step }, { start: 0 }]) {
    look(`options ${String(options)}`, () => define('a', options))
  }
  for (const wrong of [1, null, 'a', {}]) {
    look('step', () => define('a', { start: 0, step: wrong }))
    look('inverse', () => define('a', { start: 0, step, inverse: wrong }))
    look('result', () => define('a', { start: 0, step, result: wrong }))
    for (const option of ['useBigIntArguments', 'varargs', 'deterministic', 'directOnly']) {
      look(option, () => define('a', { start: 0, step, [option]: wrong }))
    }
  }
  look('order', () => {
    const seen: unknown[] = []
    const log = (prefix: string, target: object) =>
      new Proxy(target, {
        get(_, key) {
          seen.push(prefix + String(key))
          return Reflect.get(target, key)
        },
      })
    const options = { start: log('start.', step), step: log('step.', step), inverse: log('inverse.', step) }
    define('a', log('', options))
    return seen
  })
  for (const name of [1, Symbol('a'), { toString: () => 'named' }, null]) {
    look('name', () => define(name, { start: 0, step }))
  }
  look('call', () => db.prepare('SELECT named(), "1"(), "null"()').get())
  look('getter', () => define('a', { get start() { throw new Error('getter') } })) // prettier-ignore
  look('long name', () => new DatabaseSync(':memory:').aggregate('a'.repeat(256), { start: 0, step }))
  db.close()
  look('closed', () => define('a', { start: 0, step }))
})

same('aggregates', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1), (2, 1), (3, 2), (4, 2)')
  const calls: unknown[] = []
  const log = (name: string, result: unknown) =>
    function (this: unknown, ...args: unknown[]) {
      calls.push([name, this, ...args])
      return any(typeof result === 'function' ? result(...args) : result)
    }
  const variants: [string, Record<string, unknown>][] = [
    ['sum', { start: 0, step: (a: number, b: number) => a + b }],
    ['start null', { start: null, step: add }],
    ['start false', { start: false, step: (a: unknown, _: unknown) => a }],
    ['start symbol', { start: Symbol('s'), step: (a: unknown, _: unknown) => a, result: String }],
    ['start object', { start: { n: 0 }, step: (a: { n: number }, b: number) => ((a.n += b), a), result: (a: { n: number }) => a.n }],
    ['list', { start: () => [], step: (a: unknown[], b: unknown) => [...a, b], result: String }],
    ['unconvertible', { start: () => ({}), step: (a: unknown, _: unknown) => a }],
    ['undefined', { start: 0, step: (_a: unknown, _b: unknown) => undefined, result: String }],
    ['promise', { start: 0, step: async (_a: unknown, _b: unknown) => 1, result: String }],
    ['promised result', { start: 0, step: (_a: unknown, _b: unknown) => 1, result: async () => 1 }],
    ['bigints', { start: 0n, useBigIntArguments: true, step: (a: bigint, b: bigint) => a + b }],
    ['large', { start: 0, step: (_a: unknown, _b: unknown) => 2n ** 63n }],
    ['receivers', { start: log('start', 0), step: log('step', add), result: log('result', String), varargs: true }],
    ['window', { start: log('start', 0), step: log('step', add), inverse: log('inverse', (a: number, b: number) => a - b), result: log('result', String), varargs: true }],
    ['window without result', { start: 0, step: (a: number, b: number) => a + b, inverse: (a: number, b: number) => a - b }],
  ] // prettier-ignore
  const queries = [
    'SELECT f(a) v FROM t',
    'SELECT f(a) v FROM t WHERE false',
    'SELECT b, f(a) v FROM t GROUP BY b',
    'SELECT f(DISTINCT b) v FROM t',
    'SELECT f(a) FILTER (WHERE a > 1) v FROM t',
    'SELECT f(a ORDER BY a DESC) v FROM t',
    'SELECT a, f(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) v FROM t',
    'SELECT a, f(a) OVER (PARTITION BY b) v FROM t',
    'SELECT a, f(a) OVER () v FROM t',
    'SELECT a, f(a) OVER (ORDER BY a ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING EXCLUDE CURRENT ROW) v FROM t',
  ]
  for (const [name, options] of variants) {
    db.aggregate('f', any(options))
    for (const sql of queries) {
      calls.length = 0
      look(`${name}: ${sql}`, () => [db.prepare(sql).all(), [...calls]])
      look('calls', () => [...calls])
    }
  }
})

same('numbers of arguments', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const cases: [string, Record<string, unknown>][] = [
    ['a', { start: 0, step: () => 5 }],
    ['b', { start: 0, step: (a: number) => a + 1 }],
    ['c', { start: 0, step: (a: number, _: unknown, _c: unknown) => a + 1 }],
    ['d', { start: 0, step: (a: number) => a + 1, inverse: (a: unknown, _b: unknown, _c: unknown) => a }],
    ['e', { start: 0, varargs: true, step: (a: number, ...rest: unknown[]) => a + rest.length }],
  ]
  for (const [name, options] of cases) {
    db.aggregate(name, any(options))
    for (const args of ['', '*', '1', '1, 2'])
      look(`${name}(${args})`, () => db.prepare(`SELECT ${name}(${args})`).get())
  }
})

same('exceptions of an aggregate', ({ DatabaseSync }, look) => {
  for (const part of ['inverse', 'result']) {
    for (const sql of ['SELECT f(a) v FROM t', 'SELECT f(a) OVER (ORDER BY a ROWS 1 PRECEDING) v FROM t']) {
      const db = new DatabaseSync(':memory:')
      db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
      const fail = (_a: unknown, _b: unknown) => {
        throw new Error(part)
      }
      db.aggregate('f', any({ start: 0, step: add, inverse: add, [part]: fail }))
      look(`${part}: ${sql}`, () => db.prepare(sql).all())
      look('afterwards', () => db.prepare('SELECT count(*) n FROM t').get())
    }
  }
})

test('the first exception of an aggregate is thrown, and nothing is called after it', (t) => {
  for (const part of ['start', 'step']) {
    const calls: string[] = []
    const db = new Database(':memory:')
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
    const log = (name: string) => () => {
      calls.push(name)
      if (name === part) throw new Error(`${name} ${calls.length}`)
      return 1
    }
    db.aggregate('f', any({ start: log('start'), step: log('step'), result: log('result'), inverse: log('inverse') }))
    t.throws(() => db.prepare('SELECT f() FROM t').all(), { message: part === 'start' ? 'start 1' : 'step 2' })
    t.is(calls.at(-1), part)
    t.throws(() => db.prepare('SELECT f() OVER (ORDER BY a) FROM t').all())
    t.is(calls.at(-1), part)
  }
})

test('an integer beyond 2^53 - 1 is an error, whether or not there is a result function', (t) => {
  const db = new Database(':memory:')
  for (const result of [undefined, () => 1]) {
    db.aggregate('f', any({ start: 0, step: (a: unknown, _: unknown) => a, result }))
    t.throws(() => db.prepare('SELECT f(9007199254740993) v').all(), { code: 'ERR_OUT_OF_RANGE' })
  }
})

test('groups of several statements and levels do not meet', (t) => {
  const db = new Database(':memory:')
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1), (2, 1), (3, 2), (4, 2)')
  db.aggregate('inner', { start: 0, step: add, inverse: (a, b) => any(Number(a) - Number(b)) })
  db.aggregate('outer', {
    start: 0,
    step: (a, b) => add(a, add(b, (db.prepare('SELECT inner(a) v FROM t').get() as { v: number }).v)),
  })
  const all = db.prepare('SELECT b, outer(a) v, inner(a) w FROM t GROUP BY b ORDER BY b').all()
  t.deepEqual(all.map((row) => [row['v'], row['w']]), [[23, 3], [27, 7]]) // prettier-ignore
  const window = 'SELECT inner(a) OVER (ORDER BY a ROWS 1 PRECEDING) v FROM t'
  const iterators = Array.from({ length: 5 }, () => db.prepare(window).iterate())
  const seen = iterators.map((rows) => [rows.next().value?.['v'], rows.next().value?.['v']])
  t.deepEqual(
    seen,
    Array.from({ length: 5 }, () => [1, 3]),
  )
  iterators[1]!.return!()
  iterators[3]!.return!()
  t.deepEqual([iterators[0]!.next().value?.['v'], db.prepare(window).all().map((row) => row['v'])], [5, [1, 3, 5, 7]]) // prettier-ignore
  db.close()
})

test('an abandoned group is not asked for its result', (t) => {
  const db = new Database(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  let results = 0
  db.aggregate('f', { start: 0, step: (a) => a, inverse: (a) => a, result: () => ++results, varargs: true })
  const sql = 'SELECT f(a) OVER (ORDER BY a ROWS 1 PRECEDING) v FROM t'
  db.prepare(sql).get()
  const rows = db.prepare(sql).iterate()
  rows.next()
  const before = results
  rows.return!()
  db.prepare(sql).iterate().next()
  db.close()
  t.is(results, before + 1)
})

test('an aggregate cannot close its database', (t) => {
  for (const part of ['start', 'step', 'inverse', 'result']) {
    const db = new Database(':memory:')
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
    const options = { start: () => 0, step: () => 1, inverse: () => 1, result: () => 1, varargs: true }
    db.aggregate('f', any({ ...options, [part]: () => db.close() }))
    const sql = 'SELECT f(a) OVER (ORDER BY a ROWS 1 PRECEDING) v FROM t'
    t.throws(() => db.prepare(sql).all(), { code: 'ERR_INVALID_STATE' })
    t.true(db.isOpen)
    db.close()
  }
})

test('getters of the options may close the database', (t) => {
  const db = new Database(':memory:')
  const options = {
    get start() {
      db.close()
      return 0
    },
    step: () => 1,
  }
  t.throws(() => db.aggregate('f', options), { code: 'ERR_INVALID_STATE', message: 'database is not open' })
})
