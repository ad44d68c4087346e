// Sessions and changesets.

import test from 'ava'
import { constants, type DatabaseSync as NodeDatabase } from 'node:sqlite'
import * as ours from '../index.js'
import { run } from './helpers/child.ts'
import { same, type Api } from './helpers/differential.ts'

const any = (value: unknown) => value as never
const TABLES =
  'CREATE TABLE data (key INTEGER PRIMARY KEY, value TEXT); CREATE TABLE other (key INTEGER PRIMARY KEY, value TEXT)'

function open(Database: Api['DatabaseSync'], sql = ''): NodeDatabase {
  const db = new Database(':memory:')
  db.exec(TABLES)
  db.exec(sql)
  return db
}

function changesetOf(Database: Api['DatabaseSync'], sql: string, before = ''): Uint8Array {
  const db = open(Database, before)
  const session = db.createSession()
  db.exec(sql)
  return session.changeset()
}

const INSERTS = "INSERT INTO data VALUES (1, 'x'), (2, 'y'); INSERT INTO other VALUES (1, 'o')"
const rows = (db: NodeDatabase) => [db.prepare('SELECT * FROM data').all(), db.prepare('SELECT * FROM other').all()]
const getting = (key: string, get: () => unknown) => Object.defineProperty({}, key, { get })

same("createSession's options", ({ DatabaseSync }, look) => {
  const db = open(DatabaseSync)
  const options = [undefined, null, 1, 'a', {}, [], () => {}]
  for (const table of [1, null, undefined, '', 'nope', 'data', 'data\0x']) options.push({ table })
  for (const name of [1, null, undefined, '', 'nope', 'main', 'main\0x']) options.push({ db: name })
  options.push({ table: 1, db: 1 }, Object.create({ table: 1 }))
  for (const [index, option] of options.entries()) {
    look(`options ${index}`, () => {
      const session = db.createSession(any(option))
      db.exec("INSERT INTO data (value) VALUES ('v'); INSERT INTO other (value) VALUES ('w')")
      return [session.constructor.name, session.changeset(), session.patchset()]
    })
  }
  look('none', () => db.createSession().changeset())
  look('throwing', () => db.createSession(any(getting('table', () => JSON.parse('{')))))
  const closed = new DatabaseSync(':memory:', { open: false })
  look('closed', () => closed.createSession())
  look('closed, bad options', () => closed.createSession(any(1)))
})

same('what is recorded', ({ DatabaseSync }, look) => {
  const db = open(DatabaseSync, "INSERT INTO data VALUES (1, 'a'), (2, 'b')")
  db.exec("CREATE TABLE nokey (a); ATTACH ':memory:' AS x; CREATE TABLE x.y (a PRIMARY KEY, b)")
  const session = db.createSession()
  const attached = db.createSession({ db: 'x' })
  const one = db.createSession({ table: 'other' })
  const sets = (label: string) => {
    for (const each of [session, attached, one]) {
      look(label, () => [each.changeset(), each.patchset(), each.changeset().buffer.byteLength])
    }
  }
  sets('nothing')
  db.exec("UPDATE data SET value = 'c' WHERE key = 1; DELETE FROM data WHERE key = 2")
  db.exec("INSERT INTO nokey VALUES (1); INSERT INTO x.y VALUES ('k', zeroblob(9)), (1.5, -7)")
  sets('changes')
  db.exec("BEGIN; INSERT INTO other VALUES (9223372036854775807, 'é'); ROLLBACK; INSERT INTO other VALUES (5, NULL)")
  sets('rolled back')
  db.exec('ALTER TABLE other ADD COLUMN z')
  sets('altered')
  db.exec('DROP TABLE other; DETACH x')
  sets('dropped')
})

same('the life of a session', ({ DatabaseSync, Session }, look) => {
  const db = open(DatabaseSync)
  const session = db.createSession()
  look('keys', () => [Reflect.ownKeys(session), Object.getPrototypeOf(session) === Session.prototype])
  look('close', () => session.close())
  look('close again', () => session.close())
  look('read', () => session.changeset())
  look('dispose', () => session[Symbol.dispose]())
  const left = db.createSession()
  const disposed = db.createSession()
  disposed[Symbol.dispose]()
  look('disposed', () => disposed.patchset())
  db.close()
  for (const method of ['changeset', 'patchset', 'close'] as const) look(method, () => left[method]())
  look('dispose of a closed one', () => left[Symbol.dispose]())
  db.open()
  for (const method of ['changeset', 'patchset', 'close'] as const) look(method, () => left[method]())
  for (const receiver of [undefined, null, 1, {}, db, Object.create(session), new Proxy(session, {})]) {
    for (const method of ['changeset', 'patchset', 'close', Symbol.dispose] as const) {
      look('receiver', () => (Session.prototype[method] as () => unknown).call(receiver))
    }
  }
  look('new', () => new (Session as never as new () => object)())
  look('call', () => (Session as never as () => object)())
  look('subclass', () => new (class extends (Session as never as new () => object) {})())
})

same("applyChangeset's arguments", ({ DatabaseSync }, look) => {
  const inserts = changesetOf(DatabaseSync, INSERTS)
  const detached = new Uint8Array(inserts)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const shared = new Uint8Array(new SharedArrayBuffer(inserts.length))
  shared.set(inserts)
  const buffers = [
    undefined,
    null,
    1,
    'a',
    {},
    new ArrayBuffer(3),
    new DataView(new ArrayBuffer(3)),
    new Uint16Array(2),
  ]
  for (const buffer of [...buffers, Buffer.from('abc'), new Uint8Array(0), detached, shared, inserts.subarray(0, 30)]) {
    look('buffer', () => open(DatabaseSync).applyChangeset(buffer as never))
  }
  const options: unknown[] = [undefined, null, 1, 'a', {}, [], () => {}, { onConflict: 1, filter: 1 }]
  for (const value of [undefined, null, 1, {}, () => {}]) options.push({ onConflict: value }, { filter: value })
  options.push(Object.create({ filter: 1 }), Object.create({ onConflict: 1 }))
  for (const option of options) {
    look('options', () => {
      const db = open(DatabaseSync)
      return [db.applyChangeset(inserts, option as never), rows(db)]
    })
  }
  look('detached by a getter', () => {
    const buffer = new Uint8Array(inserts)
    const db = open(DatabaseSync)
    const option = getting('onConflict', () => void structuredClone(buffer.buffer, { transfer: [buffer.buffer] }))
    return [db.applyChangeset(buffer, option), rows(db)]
  })
  look('closed', () => new DatabaseSync(':memory:', { open: false }).applyChangeset(any(1)))
})

same('conflicts', ({ DatabaseSync }, look) => {
  const inserts = changesetOf(DatabaseSync, INSERTS)
  const answers = [0, 1, 2, 3, -1, -0, 1.5, NaN, 2 ** 32, undefined, null, '1', {}, true, 1n, Promise.resolve(0)]
  for (const answer of answers) {
    const db = open(DatabaseSync, "INSERT INTO data VALUES (1, 'other')")
    look('answer', () => db.applyChangeset(inserts, { onConflict: () => answer as never }))
    look('rows', () => [rows(db), db.isTransaction])
  }
  const values: [string, string, string][] = [
    ["UPDATE data SET value = 'b'", "INSERT INTO data VALUES (1, 'a')", "INSERT INTO data VALUES (1, 'z')"],
    ["UPDATE data SET value = 'b'", "INSERT INTO data VALUES (1, 'a')", ''],
    ['DELETE FROM data', "INSERT INTO data VALUES (1, 'a')", "INSERT INTO data VALUES (1, 'z')"],
    ["INSERT INTO data VALUES (1, 'b')", '', "CREATE UNIQUE INDEX i ON data (value); INSERT INTO data VALUES (7, 'b')"],
  ]
  for (const [change, before, target] of values) {
    for (const answer of [constants.SQLITE_CHANGESET_OMIT, constants.SQLITE_CHANGESET_REPLACE]) {
      const db = open(DatabaseSync, target)
      const seen: unknown[] = []
      const onConflict = function (this: unknown, ...args: unknown[]) {
        seen.push(args, this)
        return answer
      }
      look(change, () => db.applyChangeset(changesetOf(DatabaseSync, change, before), { onConflict }))
      look('seen', () => [seen, rows(db)])
    }
  }
  for (const answer of [0, 1, 2]) {
    const db = open(DatabaseSync, 'CREATE TABLE child (a PRIMARY KEY, b REFERENCES data)')
    const other = open(DatabaseSync, 'PRAGMA foreign_keys = OFF; CREATE TABLE child (a PRIMARY KEY, b REFERENCES data)')
    const session = other.createSession()
    other.exec('INSERT INTO child VALUES (1, 99)')
    look('foreign key', () => db.applyChangeset(session.changeset(), { onConflict: () => answer }))
    look('child', () => db.prepare('SELECT * FROM child').all())
  }
})

function refuseOther(table: string): boolean {
  if (table === 'other') throw new Error('second')
  return true
}

same('what the functions throw', ({ DatabaseSync }, look) => {
  const inserts = changesetOf(DatabaseSync, INSERTS)
  for (const thrown of [new Error('mine'), null, undefined, 5]) {
    for (const name of ['filter', 'onConflict']) {
      const db = open(DatabaseSync, "INSERT INTO data VALUES (1, 'other')")
      let calls = 0
      const throws = () => {
        calls++
        throw thrown
      }
      look(name, () => db.applyChangeset(inserts, { [name]: throws }))
      look('rows', () => [calls, rows(db), db.isTransaction])
    }
  }
  const db = open(DatabaseSync)
  look('second table', () => db.applyChangeset(inserts, { filter: refuseOther }))
  look('rows', () => rows(db))
})

same('what the functions do', ({ DatabaseSync }, look) => {
  const inserts = changesetOf(DatabaseSync, INSERTS)
  for (const answer of [true, false, 0, 1, '', 'x', undefined, null, {}, NaN]) {
    const db = open(DatabaseSync)
    look('filter', () => [db.applyChangeset(inserts, { filter: () => answer as boolean }), rows(db)])
  }
  const acts: ((db: NodeDatabase) => unknown)[] = [
    (db) => db.exec("INSERT INTO other VALUES (77, 'n')"),
    (db) => db.exec('COMMIT'),
    (db) => db.exec('ROLLBACK'),
    (db) => db.exec('DROP TABLE data'),
    (db) => db.applyChangeset(inserts, { onConflict: () => 0 }),
    (db) => rows(db),
    (db) => db.createSession().changeset().length,
    (db) => db.serialize().length,
    () => structuredClone(inserts.buffer, { transfer: [] }),
  ]
  for (const [index, act] of acts.entries()) {
    const db = open(DatabaseSync, "INSERT INTO data VALUES (1, 'other')")
    const onConflict = () => {
      act(db)
      return 0
    }
    look(`act ${index}`, () => db.applyChangeset(inserts, { onConflict }))
    look('after', () => [db.isOpen, db.isTransaction])
    look('rows', () => rows(db))
  }
  look('detached meanwhile', () => {
    const buffer = new Uint8Array(inserts)
    const db = open(DatabaseSync)
    const filter = () => {
      if (buffer.length > 0) structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
      return true
    }
    return [db.applyChangeset(buffer, { filter }), rows(db)]
  })
})

test('a callback cannot close or replace the database that a changeset is applied to', (t) => {
  const inserts = changesetOf(any(ours.DatabaseSync), INSERTS)
  for (const { act, message } of [
    { act: (db: ours.DatabaseSync) => db.close(), message: 'database cannot be closed while in a callback' },
    {
      act: (db: ours.DatabaseSync) => db.deserialize(db.serialize()),
      message: 'database cannot be deserialized while in a callback',
    },
  ]) {
    const db = new ours.DatabaseSync(':memory:')
    db.exec(TABLES)
    const statement = db.prepare('SELECT 1 AS a')
    t.throws(() => db.applyChangeset(inserts, { filter: () => (act(db), true) }), {
      code: 'ERR_INVALID_STATE',
      message,
    })
    t.true(db.isOpen)
    t.deepEqual({ ...statement.get() }, { a: 1 })
    t.true(db.applyChangeset(inserts))
    db.close()
  }
})

test('getters among the options may close the database', (t) => {
  const db = new ours.DatabaseSync(':memory:')
  const close = () => db.close()
  const closed = { code: 'ERR_INVALID_STATE', message: 'database is not open' }
  t.throws(() => db.createSession(getting('table', () => (close(), 'data'))), closed)
  db.open()
  t.throws(() => db.applyChangeset(new Uint8Array(0), getting('onConflict', close)), closed)
})

test('a callback cannot close a session', (t) => {
  const inserts = changesetOf(any(ours.DatabaseSync), INSERTS)
  const db = new ours.DatabaseSync(':memory:')
  db.exec(TABLES)
  const session = db.createSession()
  for (const close of ['close', Symbol.dispose] as const) {
    t.throws(() => db.applyChangeset(inserts, { filter: () => (session[close](), true) }), {
      code: 'ERR_INVALID_STATE',
      message: 'session cannot be closed while in a callback',
    })
  }
  t.true(session.changeset().length === 0)
  session.close()
  session[Symbol.dispose]()
  t.throws(() => session.changeset(), { message: 'session is not open' })
  t.true(db.applyChangeset(inserts))
  const next = db.createSession()
  db.exec('DELETE FROM data')
  t.true(next.changeset().length > 0)
  db.close()
  t.false(db.isOpen)
})

test('damaged changesets are errors', (t) => {
  const inserts = changesetOf(any(ours.DatabaseSync), INSERTS)
  for (let at = 0; at < inserts.length; at++) {
    for (const byte of [0, 1, 0x7f, 0xff]) {
      const damaged = new Uint8Array(inserts)
      damaged[at] = byte
      const db = new ours.DatabaseSync(':memory:')
      db.exec(TABLES)
      try {
        db.applyChangeset(damaged, { onConflict: () => 0 })
      } catch (error) {
        t.is((error as { code: string }).code, 'ERR_SQLITE_ERROR')
      }
      db.close()
    }
  }
  t.pass()
})

test('sessions and their databases are collected in any order', (t) => {
  const child = run(
    `
    const wait = () => new Promise((resolve) => setImmediate(resolve));
    const kept = [];
    const round = async () => {
      for (let i = 0; i < 300; i++) {
        let db = new sqlite.DatabaseSync(':memory:');
        db.exec('CREATE TABLE t (a PRIMARY KEY, b)');
        for (let s = 0; s < 5; s++) {
          const session = db.createSession();
          db.exec('INSERT INTO t VALUES (' + s + ', zeroblob(20000))');
          if (i % 50 === 0 && s === 2) kept.push(session);
          if (s === 3) session.close();
        }
        if (i % 3 === 0) db.close();
        if (i % 100 === 0) { gc(); await wait(); }
      }
      for (let i = 0; i < 5; i++) { gc(); await wait(); }
      return process.memoryUsage().rss;
    };
    (async () => {
      await round();
      const before = await round();
      await round();
      const grown = (await round()) - before;
      const lengths = kept.map((session) => { try { return session.changeset().length > 50000; } catch (error) { return error.message; } });
      console.log(grown < 60e6, [...new Set(lengths)].sort().join());
    })();
  `,
    '--expose-gc',
  )
  t.deepEqual([child.status, child.out], [0, 'true database is not open,true'], child.err)
})

test('Session is a class of its own', (t) => {
  t.true(new ours.DatabaseSync(':memory:').createSession() instanceof ours.Session)
})
