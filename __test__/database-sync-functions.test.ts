// Functions of SQL in JavaScript, as node:sqlite has them; where that crashes, an error.

import test from 'ava'
import { DatabaseSync as Database } from '../index.js'
import { run } from './helpers/child.ts'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

function open() {
  const db = new Database(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  return db
}

const value = (db: Database, sql: string) => (db.prepare(`SELECT ${sql} v`).get() as { v: unknown }).v

const one = () => 1

same('arguments of function()', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const define = (...args: unknown[]) => (db.function as (...args: unknown[]) => void)(...args)
  const lists: unknown[][] = [
    [],
    [1],
    ['a'],
    ['a', 1],
    ['a', {}],
    ['a', null],
    ['a', null, one],
    ['a', 1, one],
    ['a', undefined, one],
  ]
  lists.push(
    ['a', one, one],
    ['a', {}, 1],
    ['a', {}, undefined],
    ['a', { useBigIntArguments: 1 }, 1],
    ['a', one, one, one],
  )
  lists.push(['a'.repeat(255), one])
  lists.forEach((list, index) => look(`list ${index}`, () => define(...list)))
  for (const option of ['useBigIntArguments', 'varargs', 'deterministic', 'directOnly']) {
    for (const setting of [1, null, undefined, 'true', {}]) look(option, () => define('a', { [option]: setting }, one))
  }
  look('order', () => {
    const seen: unknown[] = []
    const log = (prefix: string, target: object) =>
      new Proxy(target, {
        get(_, key) {
          seen.push(prefix + String(key))
          return undefined
        },
      })
    try {
      define('a', log('', {}), log('f.', one))
    } catch {
      seen.push('failed')
    }
    return seen.slice(0, 5)
  })
  look('getter', () => define('a', { get varargs() { throw new Error('getter') } }, one)) // prettier-ignore
  look('no name', () => [define('', one), db.prepare('SELECT ""()').get()])
  look('NUL in the name', () => [define('before\0after', one), db.prepare('SELECT before()').get()])
  db.close()
  look('closed', () => define('a', one))
  look('closed, wrong', () => define(1))
})

same('what SQLite refuses', ({ DatabaseSync }, look) => {
  for (const name of ['a'.repeat(256), 'a'.repeat(1000)]) {
    look('long name', () => new DatabaseSync(':memory:').function(name, () => 1))
  }
  for (const length of [-2, 1001, NaN, Infinity, 2 ** 32 + 1, -Infinity]) {
    look(`length ${length}`, () => {
      const f = Object.defineProperty(() => 1, 'length', { value: length })
      new DatabaseSync(':memory:').function('f', f)
    })
  }
})

same('how many arguments', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  ;[0, 1, 2, -1, 1.5, -0.5, '2', null, 2n, { valueOf: () => 1 }].forEach((length, index) => {
    const f = Object.defineProperty((...args: unknown[]) => args.length, 'length', { value: length })
    look(`define ${index}`, () => db.function(`f${index}`, f))
    for (const args of ['', '1', '1,2']) look(`${index} ${args}`, () => db.prepare(`SELECT f${index}(${args})`).get())
  })
  db.function('one', (a) => a)
  db.function('one', (a, b) => `${a} ${b}`)
  db.function('one', { varargs: true }, (...args) => args.length)
  look('overloads', () => db.prepare('SELECT one(1), one(1, 2), one(1, 2, 3), one()').get())
  db.function('many', { varargs: true }, (...args) => args.join(''))
  const list = Array.from({ length: 100 }, (_, i) => i).join()
  look('many', () => db.prepare(`SELECT many(${list})`).get())
  db.function('abs', () => 'mine')
  look('builtin', () => db.prepare('SELECT abs(1), ABS(2), upper(3)').get())
  db.function('receiver', function (this: unknown) {
    return String(this === undefined)
  })
  look('this', () => db.prepare('SELECT receiver()').get())
})

same('arguments', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  let got: unknown
  db.function('plain', (a) => { got = a; return null }) // prettier-ignore
  db.function('exact', { useBigIntArguments: true }, (a) => { got = a; return null }) // prettier-ignore
  const values = ['1', '1.5', 'null', "'a'", "x'0102'", "x''", "''", '1e999', '-0.0', "'é' || char(0) || '😀'"]
  values.push('9007199254740991', '9007199254740992', '-9007199254740991', '-9007199254740992')
  values.push(
    '9223372036854775807',
    '-9223372036854775808',
    "cast(x'ff41' AS TEXT)",
    "replace(hex(zeroblob(999)),'0','é')",
  )
  for (const name of ['plain', 'exact']) {
    for (const sql of values) {
      look(`${name} ${sql}`, () => {
        got = 'not called'
        db.prepare(`SELECT ${name}(${sql})`).get()
        return [got, Object.getPrototypeOf(got ?? 0)?.constructor.name]
      })
    }
  }
})

same('results', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const detached = new Uint8Array(3)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const values: unknown[] = [undefined, null, 1, 1.5, -0, NaN, Infinity, 2 ** 53, '', 'a\0b', '\ud800', true, false]
  values.push(1n, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), -(2n ** 63n) - 1n, 2n ** 200n, Symbol('s'), {}, [], () => 1)
  values.push(new Uint8Array([1, 2]), new Uint8Array(0), new Uint16Array([1, 2]), new DataView(new ArrayBuffer(2)))
  values.push(
    new ArrayBuffer(2),
    new SharedArrayBuffer(2),
    new Uint8Array(new SharedArrayBuffer(2)),
    Buffer.from('abc'),
  )
  values.push(detached, detached.buffer, new ArrayBuffer(0), Promise.resolve(1), new Date(0), Object('a'), new Map())
  values.push(new Proxy({}, {}), async () => 1, new Float64Array([1.5]))
  for (const length of [500, 506, 507, 508, 511, 512, 513, 100_000])
    values.push('é'.repeat(length / 2), 'x'.repeat(length))
  values.forEach((result, index) => {
    db.function('f', () => any(result))
    look(`result ${index}`, () => {
      const statement = db.prepare('SELECT f() v, typeof(f()) t, length(f()) l')
      statement.setReadBigInts(true)
      return statement.get()
    })
  })
  db.limits.length = 1000
  db.function('f', () => 'x'.repeat(2000))
  look('long text', () => db.prepare('SELECT f()').get())
  db.function('f', () => new Uint8Array(2000))
  look('long blob', () => db.prepare('SELECT f()').get())
})

same('exceptions', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); CREATE TABLE log (a); INSERT INTO t VALUES (1), (2)')
  for (const thrown of [new Error('thrown'), null, undefined, 1, 's', Symbol('s'), { a: 1 }]) {
    db.function('f', () => {
      throw thrown
    })
    const caught = (call: () => unknown) => {
      try {
        return ['returned', call()]
      } catch (error) {
        return ['threw', error === thrown]
      }
    }
    look(`${typeof thrown}`, () => [
      caught(() => db.prepare('SELECT f() FROM t').all()),
      caught(() => db.prepare('SELECT f() FROM t').get()),
      caught(() => db.prepare('INSERT INTO t SELECT f()').run()),
      caught(() => [...db.prepare('SELECT f() FROM t').iterate()]),
      caught(() => db.exec('SELECT f() FROM t')),
    ])
  }
  look('afterwards', () => db.prepare('SELECT count(*) n FROM t').get())
  db.exec('CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES (f()); END')
  look('in a trigger', () => db.prepare('INSERT INTO t VALUES (9)').run())
  look('undone', () => db.prepare('SELECT count(*) n FROM t').get())
  db.function('f', () => db.exec('nonsense') as unknown as null)
  look('an error of SQLite inside', () => db.prepare('SELECT f()').get())
  db.function('f', () => {
    try {
      db.exec('nonsense')
    } catch {
      /* not the statement's */
    }
    return 1
  })
  look('a caught one', () => db.prepare('SELECT f()').get())
})

same('deterministic and directOnly', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)')
  let calls = 0
  db.function('det', { deterministic: true }, (a) => (calls++, any(Number(a) * 2)))
  db.function('free', (a) => any(Number(a) * 2))
  db.function('direct', { directOnly: true }, () => 1)
  look('index', () => db.exec('CREATE INDEX i ON t (det(a))'))
  look('calls', () => calls)
  look('use', () => db.prepare('SELECT a FROM t WHERE det(a) = det(2)').all())
  db.exec('ANALYZE')
  calls = 0
  look('planner', () => [db.prepare('SELECT a FROM t WHERE a > det(1)').all(), calls])
  look('free index', () => db.exec('CREATE INDEX j ON t (free(a))'))
  look('direct', () => db.prepare('SELECT direct() v').get())
  db.exec('CREATE VIEW v AS SELECT direct() d; CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT direct(); END')
  look('view', () => db.prepare('SELECT * FROM v').all())
  look('trigger', () => db.exec('INSERT INTO t VALUES (3)'))
})

same('SQL inside a function', ({ DatabaseSync }, look) => {
  const make = () => {
    const db = new DatabaseSync(':memory:')
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
    return db
  }
  look('the same text', () => {
    const db = make()
    let depth = 0
    db.function('f', (a) => (depth++ < 4 ? db.prepare('SELECT f(a) v FROM t').all().length : a))
    return db.prepare('SELECT f(a) v FROM t').all()
  })
  look('writing', () => {
    const db = make()
    db.function('f', (a) => (db.exec('INSERT INTO t VALUES (9)'), a))
    return [db.prepare('SELECT f(a) v FROM t LIMIT 5').all(), db.prepare('SELECT count(*) n FROM t').get()]
  })
  for (const sql of ['DROP TABLE t', 'CREATE TABLE u (a)', 'ROLLBACK', 'COMMIT', 'VACUUM', 'ALTER TABLE t ADD b']) {
    look(sql, () => {
      const db = make()
      db.exec('BEGIN')
      db.function('f', (a) => (db.exec(sql), a))
      return db.prepare('SELECT *, f(a) v FROM t').all()
    })
  }
  look('other names of columns', () => {
    const db = make()
    db.exec('CREATE TABLE u (b, c); INSERT INTO u VALUES (1, 2)')
    const inner = db.prepare('SELECT * FROM u')
    inner.all()
    db.exec('ALTER TABLE u RENAME b TO d')
    db.function('f', () => JSON.stringify(inner.all()))
    return db.prepare('SELECT *, f() FROM t, (SELECT 1 FROM t, t, t, t, t) LIMIT 300').all()
  })
  look('defined anew while it runs', () => {
    const db = make()
    db.function('f', (a) => (db.function('f', () => 1), a))
    return db.prepare('SELECT f(a) FROM t').all()
  })
  look('defined anew during an iteration', () => {
    const db = make()
    db.function('f', () => 1)
    const rows = db.prepare('SELECT f() FROM t').iterate()
    rows.next()
    try {
      db.function('f', () => 2)
    } catch (error) {
      return [(error as Error).message, rows.next(), db.prepare('SELECT f() v').get()]
    }
    return 'defined'
  })
  look('statement of before', () => {
    const db = make()
    const before = db.prepare('SELECT abs(-1) v')
    db.function('abs', () => 'mine')
    return [before.get(), db.prepare('SELECT abs(-1) v').get()]
  })
  look('gone when reopened', () => {
    const db = make()
    db.function('f', () => 1)
    db.close()
    db.open()
    return db.prepare('SELECT f()').get()
  })
})

test('a function cannot close its database, and disposing does nothing', (t) => {
  const db = open()
  db.function('f', () => (db.close(), 1))
  db.function('g', () => (db[Symbol.dispose](), 1))
  const refused = { code: 'ERR_INVALID_STATE', message: 'database cannot be closed while in a callback' }
  t.throws(() => db.prepare('SELECT f() FROM t').all(), refused)
  t.throws(() => db.exec('SELECT f() FROM t'), refused)
  t.throws(() => [...db.prepare('SELECT f() FROM t').iterate()], refused)
  t.is(db.prepare('SELECT g() FROM t').all().length, 3)
  t.true(db.isOpen)
  t.is(value(db, 'count(*)'), 1)
  db.close()
})

test('getters of the options may close the database', (t) => {
  const closed = { code: 'ERR_INVALID_STATE', message: 'database is not open' }
  let db = open()
  const options = (reopen: boolean) => ({
    get varargs() {
      db.close()
      if (reopen) db.open()
      return false
    },
  })
  t.throws(() => db.function('f', options(false), () => 1), closed)
  db = open()
  const counted = Object.defineProperty(() => 1, 'length', { get: () => (db.close(), 0) })
  t.throws(() => db.function('f', counted), closed)
  // As in node:sqlite, it is a function of the connection that is open by then.
  db = open()
  db.function('f', options(true), () => 1)
  t.is(value(db, 'f()'), 1)
})

test('an iteration cannot be continued by its own function', (t) => {
  const db = open()
  let rows: Iterator<unknown>
  db.function('f', () => (rows.next(), 1))
  rows = db.prepare('SELECT f() FROM t').iterate()
  t.throws(() => rows.next(), { code: 'ERR_INVALID_STATE', message: 'statement is already being executed' })
  db.function('g', () => (rows.return!(), 1))
  rows = db.prepare('SELECT g() FROM t').iterate()
  t.throws(() => rows.next(), { code: 'ERR_INVALID_STATE' })
})

test('functions that call themselves through SQL run out of stack, and no more', (t) => {
  const db = open()
  db.function('f', (_a) => (db.prepare('SELECT f(a) v FROM t').get() as { v: number }).v)
  db.function('g', (a) => (db.exec(`SELECT g(${a})`), 1))
  t.throws(() => db.prepare('SELECT f(1)').get(), { instanceOf: RangeError })
  t.throws(() => db.prepare('SELECT g(1)').get(), { instanceOf: RangeError })
  t.is(value(db, 'count(*)'), 1)
})

test('thousands of definitions', (t) => {
  const db = open()
  for (let i = 0; i < 5000; i++) {
    db.function(`f${i % 1500}`, () => i)
    if (i % 7 === 0) db.aggregate(`f${i % 1500}`, { start: 0, step: () => i })
    if (i % 11 === 0) t.throws(() => db.function('x'.repeat(300), () => i))
  }
  t.is(value(db, 'f1499()'), 4499)
  db.close()
})

test('a definition does not keep its database for ever', (t) => {
  const child = run(
    `
    const registry = new FinalizationRegistry(() => collected++);
    let collected = 0;
    for (let i = 0; i < 40; i++) {
      const db = new sqlite.DatabaseSync(':memory:');
      registry.register(db);
      db.function('f', () => db.isOpen ? 1 : 0);
      db.aggregate('g', { start: () => db, step: (d) => d, result: () => 1 });
      db.setAuthorizer(() => db.isOpen ? 0 : 1);
      if (db.prepare('SELECT f() + g() v').get().v !== 2) throw new Error('wrong');
    }
    (async () => {
      for (let i = 0; i < 20; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)); }
      console.log(collected > 30);
    })();
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, 'true'], child.err)
})

test('garbage is collected inside functions', (t) => {
  const child = run(
    `
    const db = new sqlite.DatabaseSync(':memory:');
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)');
    db.function('f', (a) => { gc(); new sqlite.DatabaseSync(':memory:').function('x', () => 1); return 'text ' + a; });
    db.aggregate('g', { start: () => [], step: (l, a) => { gc(); l.push({ a }); return l }, inverse: (l) => { l.shift(); gc(); return l }, result: (l) => l.length });
    db.setAuthorizer(() => { gc(); return 0; });
    let n = 0;
    for (let i = 0; i < 20; i++) {
      n += db.prepare('SELECT f(a) v, g(a) OVER (ORDER BY a ROWS 1 PRECEDING) w FROM t').all().length;
      const rows = db.prepare('SELECT f(a) v, g(a) OVER (ORDER BY a ROWS 1 PRECEDING) w FROM t').iterate();
      rows.next(); if (i % 2) rows.return();
    }
    console.log(n);
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, '60'], child.err)
})

test('a thread may end inside a function', (t) => {
  const child = run(`
    const { Worker } = require('node:worker_threads');
    const source = 'const sqlite = require(' + JSON.stringify(require.resolve(${JSON.stringify(new URL('../index.js', import.meta.url).pathname)})) + ');' + \`
      const { parentPort } = require('node:worker_threads');
      const db = new sqlite.DatabaseSync(':memory:');
      let calls = 0;
      db.function('f', (a) => { if (++calls === 100) parentPort.postMessage('in'); const end = performance.now() + 0.05; while (performance.now() < end); return a; });
      db.aggregate('g', { start: 0, step: (n, a) => { db.prepare('SELECT f(1)').get(); return n + a }, inverse: (n) => n });
      db.setAuthorizer(() => 0);
      const sql = 'WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 1000000) SELECT f(x), g(x) OVER (ORDER BY x ROWS 1 PRECEDING) FROM c';
      const which = require('node:worker_threads').workerData % 4;
      if (which === 0) db.prepare(sql).all();
      else if (which === 1) for (const _ of db.prepare(sql).iterate());
      else if (which === 2) db.exec(sql);
      else { db.function('leave', () => process.exit(3)); for (let i = 0; i < 200; i++) db.prepare('SELECT f(1)').get(); db.prepare('SELECT leave()').get(); }
    \`;
    (async () => {
      for (let i = 0; i < 12; i++) {
        const worker = new Worker(source, { eval: true, workerData: i });
        await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
        await new Promise((resolve) => setTimeout(resolve, i * 3));
        await worker.terminate();
      }
      const exit = new Worker('require("node:worker_threads")', { eval: true });
      await new Promise((resolve) => exit.once('exit', resolve));
      console.log('alive');
    })();
  `)
  t.deepEqual([child.status, child.out], [0, 'alive'], child.err)
})

test('a process may exit inside a function', (t) => {
  const child = run(`
    const db = new sqlite.DatabaseSync(':memory:');
    db.function('f', () => process.exit(5));
    db.prepare('SELECT f()').get();
  `)
  t.deepEqual([child.status, child.signal], [5, null], child.err)
})
