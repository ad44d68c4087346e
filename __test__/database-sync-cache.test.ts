// The cache of prepared statements cannot be noticed, but by the time it saves.

import { mkdtempSync, realpathSync, existsSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { DatabaseSync } from '../index.js'
import { same, type Api } from './helpers/differential.ts'

const directory = realpathSync(mkdtempSync(join(tmpdir(), 'fusion-sqlite-')))
test.after.always(() => rmSync(directory, { recursive: true, force: true }))
let files = 0

/** Ways to change the schema or its meaning, and to change it back. */
const changes: [change: string, back: string][] = [
  ['DROP TABLE t', 'CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)'],
  ['ALTER TABLE t RENAME TO u', 'ALTER TABLE u RENAME TO t'],
  ['ALTER TABLE t DROP COLUMN b', 'ALTER TABLE t ADD COLUMN b'],
  ['ALTER TABLE t RENAME COLUMN b TO c', 'ALTER TABLE t RENAME COLUMN c TO b'],
  ['ALTER TABLE t ADD COLUMN c DEFAULT 3', 'ALTER TABLE t DROP COLUMN c'],
  ['CREATE TEMP TABLE t (x)', 'DROP TABLE temp.t'],
  ['BEGIN; DROP TABLE t', 'ROLLBACK'],
  ['SAVEPOINT s; DROP TABLE t', 'ROLLBACK TO s; RELEASE s'],
  ['/* a */ -- b\n ; DROP TABLE t', 'CREATE TABLE t (a, b)'],
  ['SELECT 1; DROP TABLE t', 'CREATE TABLE t (a, b)'],
  ['PRAGMA case_sensitive_like = ON', 'PRAGMA case_sensitive_like = OFF'],
  ['CREATE INDEX i ON t (a)', 'DROP INDEX i'],
]

const uses = [
  'SELECT * FROM t',
  'SELECT b FROM t',
  'INSERT INTO t (b) VALUES (4)',
  "SELECT 'A' LIKE 'a' x",
  'SELECT a FROM t INDEXED BY i',
]

function lookAround(
  db: InstanceType<Api['DatabaseSync']>,
  look: (label: string, use: () => unknown) => void,
  label: string,
) {
  for (const sql of uses) {
    look(`${label}: prepare ${sql}`, () => void db.prepare(sql))
    look(`${label}: all ${sql}`, () => db.prepare(sql).all())
    look(`${label}: columns ${sql}`, () => db.prepare(sql).columns())
  }
}

same('a schema change is seen by the next prepare', ({ DatabaseSync }, look) => {
  for (const by of ['exec', 'run'] as const) {
    for (const [change, back] of changes) {
      const db = new DatabaseSync(':memory:')
      db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)')
      const held = db.prepare('SELECT * FROM t')
      lookAround(db, look, 'before')
      for (const script of [change, back]) {
        look(`${by} ${script}`, () => {
          for (const sql of by === 'exec' ? [script] : script.split('; ')) {
            if (by === 'exec') db.exec(sql)
            else db.prepare(sql).run()
          }
        })
        look('held', () => held.all())
        look('held columns', () => held.columns())
        lookAround(db, look, script)
      }
      db.close()
    }
  }
})

same("another connection's schema change", ({ DatabaseSync }, look) => {
  for (const [change, back] of changes.slice(0, 5)) {
    const file = join(directory, `${++files}.db`)
    const [db, other] = [new DatabaseSync(file), new DatabaseSync(file)]
    db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2); CREATE TABLE other (x)')
    const held = db.prepare('SELECT * FROM t')
    lookAround(db, look, 'before')
    for (const script of [change, back]) {
      other.exec(script)
      // Until a statement runs, neither library knows.
      look('learns', () => db.prepare('SELECT * FROM other').all())
      look('held', () => held.all())
      look('held once more', () => held.get())
      lookAround(db, look, script)
    }
    db.close()
    other.close()
  }
})

same('a failure that rolls back a schema change', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1); BEGIN; CREATE TABLE u (a)')
  look('before', () => db.prepare('SELECT * FROM u').all())
  look('failure', () => db.prepare('INSERT OR ROLLBACK INTO t VALUES (1)').run())
  look('after', () => void db.prepare('SELECT * FROM u'))
})

same('columns of a statement that SQLite prepared anew', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)')
  const statement = db.prepare('SELECT * FROM t')
  const arrays = db.prepare('SELECT * FROM t', { returnArrays: true } as never)
  for (const column of ['b', 'c', 'd']) {
    look('rows', () => [statement.get(), statement.all(), [...statement.iterate()], statement.columns().length])
    look('arrays', () => [arrays.get(), arrays.all(), [...arrays.iterate()]])
    const begun = statement.iterate()
    db.exec(`ALTER TABLE t ADD COLUMN ${column} DEFAULT '${column}'`)
    look('begun', () => [...begun])
  }
})

same('statements that act while they are prepared', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const off = db.prepare('PRAGMA foreign_keys = OFF')
  look('prepared', () => db.prepare('PRAGMA foreign_keys').get())
  db.exec('PRAGMA foreign_keys = ON')
  for (let i = 0; i < 300; i++) db.prepare(`SELECT ${i}`).get()
  look('run', () => off.run().changes)
  look('after', () => db.prepare('PRAGMA foreign_keys').get())
})

same('more statements than are kept', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const statements = Array.from({ length: 400 }, (_, i) => db.prepare(`SELECT ${i} v, ? w`))
  look('each', () => statements.map((statement, i) => statement.get(i)))
  look('backwards', () => statements.toReversed().map((statement) => statement.all(1)))
  look('again', () => statements.map((_, i) => db.prepare(`SELECT ${i} v, ? w`).get(2)))
  const iterators = statements.map((statement) => statement.iterate(3))
  look('all at once', () => iterators.map((iterator) => iterator.next()))
  look('to the end', () => iterators.map((iterator) => iterator.next()))
  look('long', () => db.prepare(`SELECT 1 ${' '.repeat(100_000)} x`).get())
})

test('statements of one text are shared: preparing again takes a fraction of the time', (t) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a, b, c, d, e)')
  const time = (text: (i: number) => string) => {
    const start = process.hrtime.bigint()
    for (let i = 0; i < 3000; i++) db.prepare(text(i))
    return Number(process.hrtime.bigint() - start)
  }
  const sql = 'SELECT a, b, c, d, e FROM t WHERE a = ? AND b > ? ORDER BY c'
  time(() => sql)
  t.true(time(() => sql) * 3 < time((i) => `${sql} -- ${i}`))
})

test('a statement that is kept holds neither a lock nor the -wal', (t) => {
  const file = join(directory, 'kept.db')
  const db = new DatabaseSync(file)
  db.exec('PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)')
  db.prepare('SELECT * FROM t').get()
  db.prepare('SELECT * FROM t').all()
  for (const _ of db.prepare('SELECT * FROM t').iterate()) break
  const other = new DatabaseSync(file)
  t.is((other.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }).busy, 0)
  other.exec('DROP TABLE t')
  other.close()
  db.close()
  t.false(existsSync(`${file}-wal`))
})

same('BEGIN fails after it was prepared anew', ({ DatabaseSync }, look) => {
  const file = join(realpathSync(mkdtempSync(join(tmpdir(), 'fusion-cache-'))), 'a.db')
  const other = new DatabaseSync(file)
  other.exec('CREATE TABLE t (a); INSERT INTO t VALUES (9007199254740993)')
  other.close()
  const db = new DatabaseSync(file)
  look('begin', () => db.prepare('BEGIN').get())
  look('read', () => db.prepare('SELECT * FROM t').get())
  look('exec', () => db.exec('BEGIN'))
  db.close()
  rmSync(dirname(file), { recursive: true })
})

same('BEGIN prepared anew does not begin to read', ({ DatabaseSync }, look) => {
  const file = join(realpathSync(mkdtempSync(join(tmpdir(), 'fusion-cache-'))), 'a.db')
  const db = new DatabaseSync(file)
  const begin = db.prepare('BEGIN')
  look('none', () => db.prepare('SELECT * FROM nope'))
  look('begin', () => begin.get())
  const other = new DatabaseSync(file)
  look('checkpoint', () => db.exec('PRAGMA wal_checkpoint(TRUNCATE)'))
  look('write', () => other.exec('CREATE TABLE nope (a)'))
  look('read', () => db.prepare('SELECT * FROM nope').all())
  db.close()
  other.close()
  rmSync(dirname(file), { recursive: true })
})

same('values of one call are not those of the next, though numbers stay bound', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec(`CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT COLLATE NOCASE);
    INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL)`)
  // Binding the limit or the pattern makes SQLite prepare the statement anew.
  const statement = db.prepare(
    'SELECT *, ?3 AS c, typeof(?3) AS d FROM t WHERE (a > ?1 OR ?1 IS NULL) AND b IS NOT ?4 LIMIT ?2',
  )
  const values = [
    [1, 2, 3],
    [1, 2, 3],
    [1, 3, 3n],
    [1, 3, 3],
    [null, 3, 'x', 'one'],
    [null, 3, 'x', 'one'],
    [0, 3n],
    [0, 3],
    [null, 1, new Uint8Array([1, 2]), 'two'],
    [0, 10, NaN],
    [0, 10, -0],
    [0, 10, 0],
    [0, 10, true],
    [0, 10, null],
    [0, 10],
  ] as never[][]
  for (const [number, some] of values.entries()) {
    for (const method of ['all', 'get', 'iterate'] as const) {
      look(`${number} ${method}`, () => {
        const rows = statement[method](...some)
        return method === 'iterate' ? [...(rows as Iterable<unknown>)] : rows
      })
    }
    look(`${number} expanded`, () => statement.expandedSQL)
  }
  const like = db.prepare('SELECT a FROM t WHERE b LIKE ? LIMIT ?')
  for (const some of [
    ['t%', 5],
    ['t%', 5],
    ['o%', 5],
    [null, 5],
    ['%', 1],
    ['%', 5],
  ]) {
    look(`like ${some.join()}`, () => like.all(...some))
  }
})

same('rows of a statement that makes many are as those before', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const columns = [
    ['1 AS a', '2 AS b'],
    ['1 AS a', '2 AS b', '3 AS a'],
    ['1 AS "2"', '2 AS "1"', '3 AS "01"', '4 AS "-1"', '5 AS z'],
    ['1 AS "__proto__"', '2 AS b'],
    ['1 AS constructor', '2 AS ""', '3 AS toString', '4 AS "null"', '5 AS "a-b"'],
    [`1 AS "a'b"`, '2 AS "a""b"', '3 AS "`${x}"', '4 AS "\\"', '5 AS "\u2028\n"', '6 AS "*/ //"', '7 AS "ü😀"'],
    Array.from({ length: 63 }, (_, i) => `${i} AS c${i}`),
    Array.from({ length: 65 }, (_, i) => `${i} AS c${i}`),
  ]
  const described = (rows: unknown[]) =>
    rows.map((row) => [Object.getPrototypeOf(row), Object.entries(Object.getOwnPropertyDescriptors(row))])
  for (const list of columns) {
    const sql = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450) SELECT ${list} FROM n`
    const statement = db.prepare(sql)
    for (const round of [1, 2]) {
      const rows = statement.all()
      look(`${round} all`, () => described([rows[0], rows[198], rows[199], rows[200], rows[449]]))
      look(`${round} get`, () => described([statement.get()]))
      look(`${round} iterate`, () => described([...statement.iterate()].slice(-1)))
    }
  }
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)')
  const statement = db.prepare('SELECT * FROM t')
  for (let i = 0; i < 300; i++) statement.get()
  for (const change of ['RENAME COLUMN a TO c', 'ADD COLUMN d DEFAULT 4', 'DROP COLUMN b']) {
    db.exec(`ALTER TABLE t ${change}`)
    look(change, () => described([statement.get(), ...statement.all(), ...statement.iterate()]))
  }
})
