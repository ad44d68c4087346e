// What get, all, run and columns return, and what they throw.

import test from 'ava'
import { DatabaseSync } from '../index.js'
import { same } from './helpers/differential.ts'

const queries = [
  'SELECT 1 a, 2 b, 3 a',
  'SELECT 1 b, 2 "1", 3 "0", 4 ""',
  'SELECT 1 "__proto__", 2 "constructor", 3 "toString"',
  'SELECT 1 "a\nb", 2 "é", 3 "😀"',
  "SELECT x'' a, x'0102' b, zeroblob(3) c",
  "SELECT cast(x'610062' as text) a",
  "SELECT cast(x'61ff62c3' as text) a, cast(x'eda080' as text) b",
  'SELECT 1.0 a, 1e400 b, -0.0 c, 0.1 d',
  'SELECT null a, 1 = 1 b',
  'SELECT 2147483647 a, 2147483648 b, -2147483648 c, -2147483649 d',
  'SELECT 9007199254740991 a, -9007199254740991 b',
  'SELECT 9007199254740992 a',
  'SELECT -9007199254740992 a',
  'SELECT 9223372036854775807 a',
  'SELECT -9223372036854775808 a',
  'SELECT 1 WHERE 0',
  'SELECT 1, 2; SELECT 3',
  "SELECT printf('%5000s', 'é') a, printf('%300s', 'a') b",
  'VALUES (1, 2), (3, 4)',
  'EXPLAIN SELECT 1 WHERE 0',
  'WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 1000) SELECT x, x * 2 y, hex(x) z FROM c',
  'WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 1000) SELECT x, 9007199254740000 + x FROM c',
  `SELECT ${Array.from({ length: 500 }, (_, i) => `${i} c${i}`).join()} UNION ALL SELECT ${Array.from({ length: 500 }, (_, i) => i * 2).join()}`,
  'SELECT * FROM t',
  'SELECT *, rowid, a + 1 FROM t AS u JOIN t USING (a)',
  'PRAGMA table_info(t)',
  'SELECT abs(-9223372036854775808)',
  'INSERT INTO t VALUES (5, 5) RETURNING *',
  'INSERT INTO t VALUES (6, 6), (7, 7) RETURNING a',
  'UPDATE t SET b = 1 WHERE a > 5',
  'INSERT INTO t VALUES (5, 5)',
  'INSERT INTO t VALUES (9007199254740993, 1)',
  'SELECT 2',
  'DELETE FROM t WHERE 0',
  'INSERT INTO t (b) VALUES (3)',
  'INSERT INTO missing VALUES (1)',
  'SELECT missing',
  'sELECt',
  '',
  ' ',
  '-- only',
  ';',
  'SELECT 1 a\0 garbage',
  'CREATE TABLE u (a)',
  'SELECT count(*) FROM u',
  'DROP TABLE u',
  'SELECT count(*) FROM u',
  'BEGIN',
  'ROLLBACK',
  'ROLLBACK',
]

for (const options of [{}, { readBigInts: true }, { returnArrays: true }, { readBigInts: true, returnArrays: true }]) {
  for (const method of ['get', 'all', 'run', 'iterate', 'columns'] as const) {
    same(`${method} with ${JSON.stringify(options)}`, ({ DatabaseSync }, look) => {
      const db = new DatabaseSync(':memory:', options)
      db.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL)")
      for (const sql of queries) {
        look(sql.slice(0, 60), () => {
          const statement = db.prepare(sql)
          const result = statement[method]()
          return [
            method === 'iterate' ? [...(result as Iterable<unknown>)] : result,
            statement.sourceSQL.length,
            statement.expandedSQL.length,
          ]
        })
      }
      look('rows', () => db.prepare('SELECT count(*) FROM t').get())
    })
  }
}

same('property order and attributes', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const attributes = (value: object) => [
    Object.getOwnPropertyDescriptors(value),
    Object.getPrototypeOf(value) === null,
    Object.isExtensible(value),
  ]
  look('row', () => attributes(db.prepare('SELECT 1 a, 2 b').get()!))
  look('run', () => attributes(db.prepare('SELECT 1').run()))
  look('run prototype', () => Object.getPrototypeOf(db.prepare('SELECT 1').run()) === Object.prototype)
  look('column', () => attributes(db.prepare('SELECT 1 a').columns()[0]!))
  look('array', () => Array.isArray(db.prepare('SELECT 1', { returnArrays: true } as never).get()))
  look('blob', () => {
    const { a } = db.prepare("SELECT x'0102' a").get() as { a: Uint8Array }
    return [a.constructor.name, a.buffer.byteLength, a.byteOffset, Object.getPrototypeOf(a) === Uint8Array.prototype]
  })
})

same('prepare', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  for (const sql of [1, null, undefined, {}, [], true, new String('SELECT 1'), Symbol('sql')]) {
    look(typeof sql, () => db.prepare(sql as never))
  }
  look('options after sql', () => db.prepare(1 as never, 1 as never))
  look('order of options', () => {
    const read: string[] = []
    db.prepare('SELECT 1', new Proxy({}, { get: (_, key) => void read.push(String(key)) }))
    return read
  })
})

test('text with NUL bytes is bound and read by length', (t) => {
  const db = new DatabaseSync(':memory:')
  const text = '\0a\0\0é\0'
  t.deepEqual({ ...db.prepare('SELECT ?1 v, length(CAST(?1 AS BLOB)) n').get(text) }, { v: text, n: 7 })
  t.is((db.prepare('SELECT ? v').all(text)[0] as { v: string }).v, text)
})

test('a large result is complete and in order', (t) => {
  const db = new DatabaseSync(':memory:')
  const sql =
    'WITH RECURSIVE c (x) AS (VALUES (0) UNION ALL SELECT x + 1 FROM c WHERE x < 99999) SELECT x, CAST(x AS TEXT) y FROM c'
  const rows = db.prepare(sql).all() as { x: number; y: string }[]
  t.is(rows.length, 100_000)
  t.true(rows.every((row, index) => row.x === index && row.y === String(index)))
})
