// Statements by template literal.

import test from 'ava'
import * as ours from '../index.js'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never
const METHODS = ['get', 'all', 'run', 'iterate'] as const

same("createTagStore's argument", ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const sizes = [undefined, null, 0, -1, 1, 2.5, '3', NaN, Infinity, 2 ** 31 - 1, 2 ** 31, 2 ** 53, 1n, {}, true, -0]
  for (const size of sizes) {
    look(String(size), () => {
      const store = db.createTagStore(any(size))
      return [store.capacity, store.size, store.db === db]
    })
  }
  look('none', () => db.createTagStore().capacity)
  db.close()
  look('closed', () => db.createTagStore(any('x')))
  const store = (db.open(), db.createTagStore())
  for (const receiver of [undefined, null, 1, {}, db, Object.create(store)]) {
    for (const method of [...METHODS, 'clear'] as const) {
      look(`${method} of ${String(receiver)}`, () => (store[method] as () => void).call(receiver))
    }
    look('size', () => Object.getOwnPropertyDescriptor(store, 'size')!.get!.call(receiver))
  }
  look('new', () => new (store.constructor as new () => object)())
  look('call', () => (store.constructor as () => object)())
})

same('results', ({ DatabaseSync }, look) => {
  for (const options of [{}, { readBigInts: true, returnArrays: true }]) {
    const db = new DatabaseSync(':memory:', options)
    db.exec("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    const store = db.createTagStore(2)
    look('get', () => store.get`SELECT * FROM t WHERE a = ${1}`)
    look('no row', () => store.get`SELECT * FROM t WHERE a = ${99}`)
    look('all', () => store.all`SELECT * FROM t WHERE a > ${0} AND b <> ${'z'}`)
    look('iterate', () => [...store.iterate`SELECT * FROM t`])
    look('run', () => store.run`INSERT INTO t VALUES (${5}, ${new Uint8Array(2)})`)
    look('size', () => store.size)
    look('constraint', () => store.run`INSERT INTO sqlite_schema VALUES (1)`)
    store.clear()
    look('cleared', () => store.size)
  }
})

same('templates that are none, and values that cannot be bound', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const store = db.createTagStore(10)
  const throwing = Object.defineProperty(['SELECT 1'], 0, {
    get() {
      throw new Error('mine')
    },
  })
  const calls: unknown[][] = [
    [],
    [undefined],
    [null],
    [1],
    ['x'],
    [{ length: 1, 0: 'SELECT 1' }],
    [[]],
    [['']],
    [['SELECT 1']],
    [['SELECT 1; SELECT 2']],
    [['nope']],
    [Object.assign(Array(2), { 1: 'SELECT 1' })],
    [['SELECT ', 3], 1],
    [['SELECT ', Symbol()], 1],
    [throwing],
    [new Proxy(['SELECT 1'], {})],
    [['SELECT ', '']],
    [['SELECT ', ' + ', ''], 1],
    [['SELECT ', ''], 1, 2],
    [['SELECT 1, '], 1, 2, 3],
    [['SELECT ?, ', ''], 1],
    [['SELECT $a, ', ''], 1],
    [['SELECT $a'], { a: 1 }],
  ]
  for (const value of [Symbol(), {}, undefined, () => {}, new Date(), [1], 2n ** 70n, 1, -0, 1n, null, true, 'é']) {
    calls.push([['SELECT ', ' a, ', ' b'], value, 1], [['SELECT ', ' a, ', ' b'], 1, value])
  }
  for (const value of [
    new DataView(new ArrayBuffer(2)),
    new SharedArrayBuffer(2),
    new ArrayBuffer(2),
    new Uint16Array(1),
  ]) {
    calls.push([['SELECT ', ' a, ', ' b'], value, 1], [['SELECT ', ' a, ', ' b'], 1, value])
  }
  for (const [index, args] of calls.entries()) {
    for (const method of METHODS) {
      look(`${method} ${index}`, () => {
        const result = (store[method] as (...args: unknown[]) => unknown)(...args)
        return method === 'iterate' ? [...(result as Iterable<unknown>)] : result
      })
    }
    look('size', () => store.size)
  }
})

same('what is kept', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  const store = db.createTagStore(2)
  const iterator = store.iterate`SELECT * FROM t`
  look('next', () => iterator.next())
  void store.get`SELECT 1`
  void store.get`SELECT 2`
  look('evicted in the middle', () => [iterator.next(), store.size])
  const second = store.iterate`SELECT * FROM t`
  second.next()
  look('same text', () => store.get`SELECT * FROM t`)
  look('invalidated', () => second.next())
  const third = store.iterate`SELECT * FROM t`
  store.clear()
  look('cleared in the middle', () => third.next())
  third.return!()
  iterator.return!()
  void store.get`SELECT * FROM t`
  db.exec('DROP TABLE t')
  look('dropped', () => store.get`SELECT * FROM t`)
  db.exec('CREATE TABLE t (b); INSERT INTO t VALUES (5)')
  look('other columns', () => store.get`SELECT * FROM t`)
  void store.get`SELECT 1 AS a`
  db.close()
  look('closed', () => [store.size, store.capacity, store.db === db])
  for (const method of METHODS) look(method, () => (store[method] as () => void)())
  db.open()
  look('reopened', () => [store.get`SELECT 1 AS a`, store.size])
  look('replaced', () => db.deserialize(db.serialize()))
  look('after', () => [store.get`SELECT 1 AS a`, store.get`SELECT 2 AS a`, store.size])
  store.clear()
  db.close()
  look('clear', () => store.clear())
})

test('a getter in a template may close the database', (t) => {
  const db = new ours.DatabaseSync(':memory:')
  const template = Object.defineProperty(['SELECT 1'], 0, {
    get() {
      db.close()
      return 'SELECT 1'
    },
  })
  const store = db.createTagStore()
  t.throws(() => store.get(template as never), { code: 'ERR_INVALID_STATE', message: 'database is not open' })
  t.is(store.size, 0)
})
