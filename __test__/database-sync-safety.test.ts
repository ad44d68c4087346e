// Nothing that JavaScript does ends the process, or leaves a connection unusable.

import { createRequire } from 'node:module'
import test from 'ava'
import { DatabaseSync } from '../index.js'
import { run } from './helpers/child.ts'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

function open() {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  return db
}

same('wrong receivers', ({ DatabaseSync, StatementSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const receivers = [
    undefined,
    null,
    1,
    'a',
    {},
    Object.create(db),
    Object.create(StatementSync.prototype),
    db,
    db.prepare('SELECT 1'),
    new Proxy(db, {}),
  ]
  for (const method of ['open', 'close', 'prepare', 'exec', 'location', Symbol.dispose] as const) {
    receivers.forEach((receiver, index) => {
      if (receiver === db) return
      look(`${String(method)} of ${index}`, () => (DatabaseSync.prototype[method] as () => void).call(receiver))
    })
  }
  for (const method of [
    'get',
    'all',
    'run',
    'iterate',
    'columns',
    'setReadBigInts',
    'setReturnArrays',
    'setAllowBareNamedParameters',
    'setAllowUnknownNamedParameters',
  ] as const) {
    receivers.forEach((receiver, index) => {
      if (receiver instanceof StatementSync && index === 8) return
      look(`${method} of ${index}`, () => (StatementSync.prototype[method] as () => void).call(receiver))
    })
  }
  look('isOpen', () => Object.getOwnPropertyDescriptor(db, 'isOpen')!.get!.call({}))
  look('StatementSync', () => new (StatementSync as unknown as new () => unknown)())
  look('StatementSync()', () => (StatementSync as unknown as () => unknown)())
  look('subclass of StatementSync', () => new (class extends (StatementSync as unknown as new () => object) {})())
  look('subclass', () => {
    class Sub extends DatabaseSync {
      extra() {
        return this.prepare('SELECT 1 a').get()
      }
    }
    const sub = new Sub(':memory:')
    return [sub instanceof DatabaseSync, sub.extra(), sub.constructor === Sub, Object.keys(sub).includes('isOpen')]
  })
})

test('a getter among the parameters may close the database', (t) => {
  for (const method of ['get', 'all', 'run', 'iterate'] as const) {
    const db = open()
    const statement = db.prepare('SELECT * FROM t WHERE a = $a')
    t.throws(
      () =>
        statement[method]({
          get a() {
            db.close()
            return 1
          },
        }),
      { code: 'ERR_INVALID_STATE', message: 'statement has been finalized' },
    )
    t.false(db.isOpen)
  }
})

test('a getter among the parameters may reopen the database', (t) => {
  const db = open()
  const statement = db.prepare('SELECT $a')
  t.throws(
    () =>
      statement.get({
        get a() {
          db.close()
          db.open()
          return 1
        },
      }),
    { code: 'ERR_INVALID_STATE' },
  )
  t.is((db.prepare('SELECT 1 v').get() as { v: number }).v, 1)
})

test('a getter among the options may close the database', (t) => {
  const db = open()
  t.throws(
    () =>
      db.prepare('SELECT 1', {
        get readBigInts() {
          db.close()
          return true
        },
      }),
    { code: 'ERR_INVALID_STATE', message: 'database is not open' },
  )
})

test('a getter among the parameters may use other statements with the same text, not its own', (t) => {
  const db = open()
  const statement = db.prepare('SELECT $a v')
  const other = db.prepare('SELECT $a v')
  const outer = statement.get({
    get a() {
      t.throws(() => statement.get({ a: 20 }), { message: 'statement is already being executed' })
      return (other.get({ a: 20 }) as { v: number }).v + 1
    },
  })
  t.deepEqual({ ...outer }, { v: 21 })
  t.deepEqual({ ...statement.get({ a: 1 }) }, { v: 1 })
})

test('a getter among the parameters may change the schema', (t) => {
  const db = open()
  const statement = db.prepare('SELECT * FROM t WHERE a = $a')
  t.throws(
    () =>
      statement.get({
        get a() {
          db.exec('DROP TABLE t')
          return 1
        },
      }),
    { message: 'no such table: t' },
  )
})

test('a getter among the parameters may detach a buffer', (t) => {
  const db = open()
  const blob = new Uint8Array(1000).fill(1)
  const row = db.prepare('SELECT length($a) a, length($b) b').get({
    a: blob,
    get b() {
      structuredClone(blob.buffer, { transfer: [blob.buffer] })
      return blob
    },
  })
  t.deepEqual({ ...row }, { a: 0, b: 0 })
})

test('closing in the middle of loops', (t) => {
  const db = open()
  t.throws(
    () => {
      for (const _ of db.prepare('SELECT * FROM t').iterate()) {
        for (const _ of db.prepare('SELECT * FROM t').iterate()) db.close()
      }
    },
    { code: 'ERR_INVALID_STATE' },
  )
  t.false(db.isOpen)
  db.open()
  db.exec('CREATE TABLE t (a)')
  t.deepEqual(db.prepare('SELECT * FROM t').all(), [])
})

test('an error leaves the connection as it was', (t) => {
  const db = open()
  const statement = db.prepare('INSERT INTO t VALUES (?)')
  for (let i = 0; i < 50; i++) {
    t.throws(() => statement.run(any(Symbol())), { code: 'ERR_INVALID_ARG_TYPE' })
    t.throws(() => statement.run(1, 2), { message: 'column index out of range' })
    t.throws(() => db.prepare('SELECT * FROM missing'), { message: 'no such table: missing' })
    t.throws(() => db.prepare('SELECT 9007199254740993 FROM t').all(), {
      code: 'ERR_OUT_OF_RANGE',
    })
    t.is(statement.run(i).changes, 1)
  }
  db.exec('DROP TABLE t')
})

test('native functions refuse what is not theirs', (t) => {
  const binding = createRequire(import.meta.url)('../binding.js') as Record<string, (...args: unknown[]) => unknown>
  const strange = [
    undefined,
    null,
    -1,
    0,
    1,
    2 ** 20,
    2 ** 32,
    1.5,
    NaN,
    'a',
    {},
    [],
    () => {},
    Symbol(),
    1n,
    new Uint8Array(2),
    new DatabaseSync(':memory:'),
  ]
  // Memory that the native side writes to is none that JavaScript could detach.
  const realm = binding['realm']!() as { report: unknown }
  t.true(realm.report instanceof SharedArrayBuffer)
  t.true(Object.isFrozen(realm))
  for (const name of Object.keys(binding)) {
    // Those that open a file, end something of others, or hold for the whole process.
    const left = ['engineInfo', 'open', 'close', 'finalize', 'backupStart', 'backupStep', 'refuseSmallest']
    if (left.includes(name) || typeof binding[name] !== 'function') continue
    for (const first of strange) {
      for (const second of strange) {
        try {
          binding[name]!(first, second, second, first)
        } catch (error) {
          t.true(error instanceof Error, name)
        }
      }
    }
  }
  for (const path of strange.slice(0, -1)) {
    for (const number of strange) {
      t.notThrows(() => {
        try {
          binding['open']!(typeof path === 'string' ? ':memory:' : path, number, number)
        } catch {
          /* refused */
        }
      })
    }
  }
})

test('garbage is collected in any order', (t) => {
  const child = run(
    `
    const keep = [];
    for (let round = 0; round < 60; round++) {
      let db = new sqlite.DatabaseSync(':memory:');
      db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)');
      const statements = [];
      for (let i = 0; i < 50; i++) {
        const statement = db.prepare('SELECT a, ' + (i % 7) + ' b FROM t WHERE a > ?');
        const iterator = statement.iterate(0);
        iterator.next();
        if (i % 3 === 0) statements.push(statement);
        if (i % 5 === 0) keep.push(iterator);
        if (i % 4 === 0) db.prepare('PRAGMA table_info(t)').all();
      }
      if (round % 3 === 0) db.close();
      if (round % 2 === 0) keep.push(statements);
      db = null;
      gc();
    }
    const wait = () => new Promise((resolve) => setImmediate(resolve));
    (async () => {
      for (let i = 0; i < 10; i++) { gc(); await wait(); }
      let rows = 0;
      for (const one of keep) {
        try { rows += Array.isArray(one) ? one.map((s) => s.all(0).length).length : [...one].length; } catch (error) { if (error.code !== 'ERR_INVALID_STATE') throw error; }
      }
      keep.length = 0;
      for (let i = 0; i < 10; i++) { gc(); await wait(); }
      console.log('alive', rows > 0);
    })();
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, 'alive true'], child.err)
})

test('an abandoned iteration gives its lock back when it is collected', (t) => {
  const child = run(
    `
    const db = new sqlite.DatabaseSync(':memory:');
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)');
    (() => { db.prepare('SELECT * FROM t').iterate().next(); })();
    let before; try { db.exec('DROP TABLE t'); } catch (error) { before = error.errcode; }
    (async () => {
      for (let i = 0; i < 20; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)); }
      db.exec('DROP TABLE t');
      console.log(before);
    })();
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, '6'], child.err)
})

test('memory does not grow with statements, iterations, or databases', (t) => {
  const child = run(
    `
    const wait = () => new Promise((resolve) => setImmediate(resolve));
    const db = new sqlite.DatabaseSync(':memory:');
    db.exec('CREATE TABLE t (a)');
    const round = async () => {
      for (let i = 0; i < 3000; i++) {
        db.prepare('SELECT ' + i).get();
        db.prepare('PRAGMA user_version').get();
        for (const _ of db.prepare('SELECT 1').iterate()) break;
        if (i % 30 === 0) new sqlite.DatabaseSync(':memory:').exec('CREATE TABLE t (a)');
        if (i % 500 === 0) { gc(); await wait(); }
      }
      for (let i = 0; i < 5; i++) { gc(); await wait(); }
      return process.memoryUsage().rss;
    };
    (async () => {
      await round(); await round();
      const before = await round();
      for (let i = 0; i < 4; i++) await round();
      console.log((await round()) - before < 30e6);
    })();
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, 'true'], child.err)
})

test('a worker may be terminated at any moment', (t) => {
  const child = run(
    `
    const { Worker } = require('node:worker_threads');
    const source = 'const sqlite = require(' + JSON.stringify(require.resolve(${JSON.stringify('__INDEX__')})) + ');' + \`
      const db = new sqlite.DatabaseSync(':memory:');
      db.exec('CREATE TABLE t (a, b)');
      require('node:worker_threads').parentPort.postMessage('ready');
      const kept = [];
      for (let i = 0; ; i++) {
        db.prepare('INSERT INTO t VALUES (?, ?)').run(i, 'text');
        const iterator = db.prepare('SELECT * FROM t').iterate();
        iterator.next();
        if (kept.length < 50) kept.push(iterator);
        db.prepare('SELECT * FROM t LIMIT 3000').all();
        db.prepare('WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 5000) SELECT max(x) FROM c').get();
      }\`;
    (async () => {
      for (let i = 0; i < 12; i++) {
        const worker = new Worker(source, { eval: true });
        await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
        await new Promise((resolve) => setTimeout(resolve, i * 7));
        await worker.terminate();
      }
      console.log('alive');
    })();
  `.replace('"__INDEX__"', JSON.stringify(createRequire(import.meta.url).resolve('../index.js'))),
  )
  t.deepEqual([child.status, child.out], [0, 'alive'], child.err)
})

test('works where code may not be generated from strings', (t) => {
  const child = run(
    `console.log(new sqlite.DatabaseSync(':memory:').prepare('SELECT 1 a').all()[0].a)`,
    '--disallow-code-generation-from-strings',
  )
  t.deepEqual([child.status, child.out], [0, '1'], child.err)
})

test('a deep stack throws, and the statement works afterwards', (t) => {
  const db = open()
  const statement = db.prepare('SELECT * FROM t')
  let failures = 0
  const dive = (): void => {
    try {
      dive()
    } catch (error) {
      failures++
      if (failures < 400) {
        statement.all()
        statement.get()
      }
      throw error
    }
  }
  t.throws(dive, { instanceOf: RangeError })
  t.is(statement.all().length, 3)
})
