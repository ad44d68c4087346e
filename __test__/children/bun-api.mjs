// DatabaseSync from end to end: prints what was seen, one JSON text, the same on every runtime.
import { createRequire } from 'node:module'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import * as sqlite from '../../index.mjs'

const { DatabaseSync, StatementSync, Session, backup, engineInfo } = sqlite
const folder = mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-bun-'))
const seen = []

const plain = (_, value) => {
  if (typeof value === 'bigint') return `${value}n`
  if (value instanceof Uint8Array) return { bytes: [...value] }
  if (value === undefined) return 'undefined'
  return value
}

async function see(label, look) {
  try {
    const value = await look()
    const first = Array.isArray(value) ? value[0] : value
    const bare = typeof first === 'object' && first !== null && Object.getPrototypeOf(first) === null
    seen.push([label, value, bare ? 'null prototype' : typeof value])
  } catch (error) {
    const { name, message, code, errcode, errstr } = error
    seen.push([label, { name, message, code, errcode, errstr, isError: error instanceof Error }])
  }
}

const file = path.join(folder, 'a.db')
const db = new DatabaseSync(file)
await see('required', () => createRequire(import.meta.url)('../../index.js').DatabaseSync === DatabaseSync)
await see('names', () => Object.keys(sqlite).toSorted())
await see('exec', () => db.exec('CREATE TABLE t(id INTEGER PRIMARY KEY, v, b BLOB); PRAGMA journal_mode = WAL'))
const insert = db.prepare('INSERT INTO t(v, b) VALUES (:v, :b)')
await see('run', () => insert.run({ v: 'text', b: new Uint8Array([1, 2, 255]) }))
await see('run with a sigil', () => insert.run({ ':v': null, ':b': new Float64Array([0.5]) }))
await see('run in order', () => db.prepare('INSERT INTO t(v, b) VALUES (?, ?)').run(1.5, new Uint8Array()))
await see('run an array buffer', () => db.prepare('INSERT INTO t(v) VALUES (?)').run(new Uint8Array([7]).buffer))
await see('run a boolean', () => db.prepare('INSERT INTO t(v) VALUES (?)').run(true))
await see('text', () => db.prepare('SELECT ? AS a, ? AS b').get('日本語 🦊\0 after', '\uD800'))
await see('all', () => db.prepare('SELECT * FROM t').all())
await see('get', () => db.prepare('SELECT v FROM t WHERE id = ?').get(1))
await see('get nothing', () => db.prepare('SELECT v FROM t WHERE id = ?').get(99))
await see('iterate', () => [...db.prepare('SELECT id FROM t').iterate()])
await see('iterate a part', () => {
  for (const row of db.prepare('SELECT id FROM t').iterate()) return row
})
await see('iterator helpers', () =>
  db
    .prepare('SELECT id FROM t')
    .iterate()
    .map((row) => row.id)
    .toArray(),
)
await see('columns', () => db.prepare('SELECT id, v AS x, 1 FROM t').columns())
await see('arrays', () => {
  const statement = db.prepare('SELECT id, v FROM t')
  statement.setReturnArrays(true)
  return statement.all()
})
await see('bigints', () => {
  const statement = db.prepare('SELECT ? AS v, 1 AS one')
  statement.setReadBigInts(true)
  return [statement.get(2n ** 62n), statement.get(-(2n ** 63n))]
})
await see('too large to read', () => db.prepare('SELECT ? AS v').get(2n ** 62n))
await see('too large to bind', () => db.prepare('SELECT ? AS v').get(2n ** 63n))
await see('largest safe', () => db.prepare('SELECT ? AS v').get(BigInt(Number.MAX_SAFE_INTEGER)))
await see('numbers', () => db.prepare('SELECT ? AS a, ? AS b, typeof(?) AS c').get(-0, Number.MAX_VALUE, 1))
await see('texts', () => {
  const statement = db.prepare('SELECT :a AS a -- comment')
  statement.get({ a: "it's" })
  return [statement.sourceSQL, statement.expandedSQL]
})
await see('unknown name', () => db.prepare('SELECT :a').get({ b: 1 }))
await see('syntax', () => db.exec('selec'))
await see('constraint', () => db.exec('INSERT INTO t(id) VALUES (1)'))
await see('wrong value', () => db.prepare('SELECT ?').get(Symbol('x')))
await see('wrong SQL', () => db.prepare(1))
await see('no statement', () => db.prepare(''))
await see('wrong path', () => new DatabaseSync(1))
await see('no such folder', () => new DatabaseSync(path.join(os.tmpdir(), 'no', 'such', 'folder.db')))
await see('without new', () => DatabaseSync(':memory:'))
await see('illegal', () => new StatementSync())
await see('illegal session', () => new Session())
await see('foreign receiver', () => StatementSync.prototype.all.call({}))
await see('transaction', () => {
  const was = db.isTransaction
  db.exec('BEGIN')
  const is = db.isTransaction
  db.exec('ROLLBACK')
  return [was, is]
})
await see('location', () => path.basename(db.location()))
await see('features', () =>
  db
    .prepare(
      `SELECT sqrt(2) AS math, json('[1]') AS json, (SELECT group_concat(value) FROM json_each('[1,2]')) AS each`,
    )
    .get(),
)
await see('fts5', () => {
  db.exec(`CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('a quick fox'), ('a slow one')`)
  return db.prepare('SELECT rowid, x FROM f WHERE f MATCH ?').all('qui*')
})
await see('tag store', () => {
  const store = db.createTagStore(2)
  return [store.all`SELECT ${1} AS x`, store.get`SELECT ${'a'} AS y`, [...store.iterate`SELECT 3 AS z`], store.size]
})

await see('session', () => {
  const other = new DatabaseSync(':memory:')
  other.exec('CREATE TABLE s(id INTEGER PRIMARY KEY, v)')
  db.exec('CREATE TABLE s(id INTEGER PRIMARY KEY, v)')
  const session = db.createSession({ table: 's' })
  db.exec(`INSERT INTO s VALUES (1, 'one'), (2, 'two')`)
  const changes = session.changeset()
  const patches = session.patchset()
  session.close()
  const asked = []
  const applied = other.applyChangeset(changes, {
    filter: (table) => {
      asked.push(table)
      return true
    },
  })
  const conflict = other.applyChangeset(changes, { onConflict: (kind) => (asked.push(kind), 0) })
  return [changes.length, patches.length, applied, conflict, asked, other.prepare('SELECT * FROM s').all()]
})
await see('thrown in a conflict', () => {
  const session = db.createSession()
  db.exec(`INSERT INTO s VALUES (3, 'three')`)
  db.applyChangeset(session.changeset(), {
    onConflict() {
      throw new RangeError('mine')
    },
  })
})
await see('serialize', () => {
  const copy = new DatabaseSync(':memory:')
  copy.deserialize(db.serialize())
  return copy.prepare('SELECT count(*) AS n FROM t').get()
})
await see('backup', async () => {
  let steps = 0
  const pages = await backup(db, path.join(folder, 'b.db'), { rate: 2, progress: () => void steps++ })
  const copy = new DatabaseSync(path.join(folder, 'b.db'), { readOnly: true })
  return [
    pages > 2,
    steps > 0,
    copy.prepare('PRAGMA integrity_check').all(),
    copy.prepare('SELECT count(*) AS n FROM t').get(),
  ]
})
await see('backup nowhere', () => backup(db, path.join(os.tmpdir(), 'no', 'such', 'folder.db')))
await see('closed inside an iteration', () => {
  const other = new DatabaseSync(':memory:')
  for (const row of other.prepare('SELECT 1 AS x UNION SELECT 2').iterate()) {
    seen.push(['row', row.x])
    other.close()
  }
})
await see('engine', () => {
  const { sqliteVersion, lockKind, foreignCheck } = engineInfo()
  return { sqliteVersion, lockKind, foreignCheck }
})
db.close()
await see('closed', () => db.prepare('SELECT 1'))
await see('statement of a closed database', () => insert.run(1, 2))
await see('closed twice', () => db.close())
await see('disposed', () => db[Symbol.dispose]())
rmSync(folder, { recursive: true })
console.log(JSON.stringify(seen, plain))
