// Databases as bytes, and bytes as databases.

import { spawnSync } from 'node:child_process'
import dc from 'node:diagnostics_channel'
import { mkdtempSync, realpathSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import * as ours from '../index.js'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never
const SQL = 'CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)'
const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'fusion-serialize-')))
let files = 0

const describe = (bytes: Uint8Array) => [
  bytes.constructor.name,
  bytes.length,
  bytes.buffer.byteLength,
  String.fromCharCode(...bytes.subarray(0, 15)),
]

same('serialize', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  look('empty', () => describe(db.serialize()))
  db.exec(SQL)
  for (const name of [undefined, null, 1, {}, 'main', 'main\0x', 'temp', 'nope', '']) {
    look(String(name), () => describe(db.serialize(any(name))))
  }
  db.exec("ATTACH ':memory:' AS x; CREATE TABLE x.y (a)")
  look('attached', () => describe(db.serialize('x')))
  db.close()
  look('closed', () => db.serialize(any(1)))
  look('receiver', () => DatabaseSync.prototype.serialize.call({} as never))
})

same("deserialize's arguments", ({ DatabaseSync }, look) => {
  const source = new DatabaseSync(':memory:')
  source.exec(SQL)
  const bytes = source.serialize()
  const detached = new Uint8Array(bytes)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  const junk = new Uint8Array(100).fill(7)
  const strange = [
    undefined,
    null,
    1,
    'a',
    {},
    new ArrayBuffer(3),
    new DataView(new ArrayBuffer(3)),
    new Uint16Array(2),
  ]
  for (const buffer of [...strange, new Uint8Array(0), detached, shared, junk, Buffer.from(bytes)]) {
    const db = new DatabaseSync(':memory:')
    look('buffer', () => db.deserialize(buffer as never))
    look('rows', () => db.prepare('SELECT * FROM t').all())
  }
  const options: unknown[] = [undefined, null, 1, 'a', () => {}, [], Object.create({ dbName: 1 })]
  for (const dbName of [1, null, undefined, '', 'main', 'temp', 'nope', 'x']) options.push({ dbName })
  for (const option of options) {
    const db = new DatabaseSync(':memory:')
    db.exec("ATTACH ':memory:' AS x")
    const statement = db.prepare('SELECT 1')
    look('options', () => db.deserialize(bytes, option as never))
    look('rows', () => db.prepare('SELECT * FROM t').all())
    look('statement', () => statement.all())
  }
  for (const thrown of [new Error('mine'), null, 5]) {
    const option = {
      get dbName() {
        throw thrown
      },
    }
    look('throwing', () => new DatabaseSync(':memory:').deserialize(bytes, any(option)))
  }
  const buffer = new Uint8Array(bytes)
  const detaching = {
    get dbName() {
      structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
      return 'main'
    },
  }
  const db = new DatabaseSync(':memory:')
  look('detaching', () => db.deserialize(buffer, detaching))
  look('rows', () => db.prepare('SELECT * FROM t').all())
  look('empty and bad options', () => db.deserialize(new Uint8Array(0), any(1)))
  look('closed', () => new DatabaseSync(':memory:', { open: false }).deserialize(any(1)))
})

same('what deserialize does to what was there', ({ DatabaseSync }, look) => {
  const source = new DatabaseSync(':memory:')
  source.exec(SQL)
  const bytes = source.serialize()
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a, b); INSERT INTO t VALUES (7, 8), (9, 10)')
  const statement = db.prepare('SELECT * FROM t')
  const iterator = statement.iterate()
  iterator.next()
  const session = db.createSession()
  look('deserialize', () => db.deserialize(bytes))
  look('open', () => [db.isOpen, db.isTransaction, db.location()])
  look('statement', () => statement.all())
  look('iterator', () => iterator.next())
  look('return', () => iterator.return!())
  look('text', () => statement.sourceSQL)
  look('setting', () => statement.setReadBigInts(true))
  look('same text again', () => db.prepare('SELECT * FROM t').all())
  db.exec('CREATE TABLE k (a INTEGER PRIMARY KEY); INSERT INTO k VALUES (1)')
  look('session', () => session.changeset())
  look('grows', () => {
    db.exec(
      'WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 5000) INSERT INTO t SELECT x FROM c',
    )
    return db.prepare('SELECT count(*) AS c FROM t').get()
  })
  db.exec('BEGIN')
  look('in a transaction', () => db.deserialize(bytes))
  look('transaction', () => db.isTransaction)
  db.exec('INSERT INTO t VALUES (9)')
  look('in a write transaction', () => db.deserialize(bytes))
  look('rows', () => [db.isTransaction, db.prepare('SELECT * FROM t').all()])
  db.close()
  look('closed', () => session.changeset())
})

test('a deserialised file is left as it was', (t) => {
  const file = path.join(directory, `${files++}.db`)
  const source = new ours.DatabaseSync(':memory:')
  source.exec(SQL)
  const db = new ours.DatabaseSync(file)
  db.exec('CREATE TABLE mine (a)')
  db.deserialize(source.serialize())
  db.exec('INSERT INTO t VALUES (3)')
  t.is(db.location(), null)
  db.close()
  const again = new ours.DatabaseSync(file)
  t.deepEqual(
    again
      .prepare('SELECT name FROM sqlite_schema')
      .all()
      .map(({ name }) => name),
    ['mine'],
  )
  again.close()
})

test('a getter among the options may close the database', (t) => {
  const db = new ours.DatabaseSync(':memory:')
  const bytes = db.serialize()
  const options = {
    get dbName() {
      db.close()
      return 'main'
    },
  }
  t.throws(() => db.deserialize(bytes, options), { code: 'ERR_INVALID_STATE', message: 'database is not open' })
})

test('a database with a log cannot be replaced', (t) => {
  const db = new ours.HardenedDatabase(path.join(directory, `${files++}.db`))
  t.throws(() => db.deserialize(new ours.DatabaseSync(':memory:').serialize()), { code: 'ERR_INVALID_STATE' })
  t.true(db.isOpen)
  db.close()
})

same('an empty database that is read-only', ({ DatabaseSync }, look) => {
  for (const path of ['', ':memory:']) {
    const db = new DatabaseSync(path, { readOnly: true })
    look(path, () => [db.serialize(), db.serialize('temp')])
  }
})

test('functions, aggregates and the authorizer outlive deserialize()', async (t) => {
  const script = `
    const { DatabaseSync } = require(${JSON.stringify(path.join(import.meta.dirname, '..'))})
    const db = new DatabaseSync(':memory:')
    db.exec('CREATE TABLE t (a)')
    db.function('f', () => 'function')
    db.aggregate('g', { start: () => 'aggregate', step: (sofar, _) => sofar })
    db.setAuthorizer((code) => (code === 22 ? 1 : 0))
    db.deserialize(db.serialize())
    ;(async () => {
      for (let i = 0; i < 20; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)); }
      let denied
      try { db.exec('BEGIN') } catch (error) { denied = error.message }
      const row = db.prepare('SELECT f() f, g(1) g').get()
      console.log(JSON.stringify([row.f, row.g, denied]))
    })()`
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '-e', script], { encoding: 'utf8' })
  t.is(stderr, '')
  t.deepEqual(JSON.parse(stdout), ['function', 'aggregate', 'not authorized'])
})

same('a getter among the options may deserialize the database', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const replaced = <T extends object>(name: string, others: T) =>
    any(
      Object.defineProperty(others, name, { get: () => void db.deserialize(new DatabaseSync(':memory:').serialize()) }),
    )
  const start = { start: 0, step: (_: unknown, value: unknown) => value }
  look('prepare', () => db.prepare('SELECT 1 a', ...([replaced('readBigInts', {})] as never as [])).get())
  look('function', () => [db.function('f', replaced('varargs', {}), () => 7), db.prepare('SELECT f() a').get()])
  look('aggregate', () => [db.aggregate('g', replaced('varargs', start)), db.prepare('SELECT g(8) a').get()])
})

test('the subscribers to sqlite.db.query come and go across deserialize()', (t) => {
  const db = new ours.DatabaseSync(':memory:')
  const seen: unknown[] = []
  const listen = (message: unknown) => seen.push((message as ours.QueryMessage).sql)
  dc.subscribe('sqlite.db.query', listen)
  db.exec('SELECT 1')
  const image = db.serialize()
  seen.length = 0
  db.deserialize(image)
  dc.unsubscribe('sqlite.db.query', listen)
  db.exec('SELECT 2')
  dc.subscribe('sqlite.db.query', listen)
  db.exec('SELECT 3')
  dc.unsubscribe('sqlite.db.query', listen)
  t.deepEqual(
    seen.filter((sql) => String(sql).startsWith('SELECT')),
    ['SELECT 3'],
  )
})
