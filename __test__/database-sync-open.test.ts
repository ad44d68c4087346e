// Opening and closing a DatabaseSync: paths, options, states and their errors.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import { DatabaseSync, HardenedDatabase } from '../index.js'
import { same } from './helpers/differential.ts'

const directory = realpathSync(mkdtempSync(join(tmpdir(), 'fusion-sqlite-')))
test.after.always(() => rmSync(directory, { recursive: true, force: true }))

const any = (value: unknown) => value as never

same('paths', ({ DatabaseSync }, look) => {
  const file = join(directory, 'paths.db')
  const url = pathToFileURL(file)
  const detached = new Uint8Array(4)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const paths: unknown[] = [
    ':memory:',
    '',
    file,
    Buffer.from(file),
    new Uint8Array([1, 0, 2]),
    detached,
    url,
    new URL(`${url}?mode=ro`),
    { href: url.href },
    { href: 1 },
    { href: 'FILE:///a' },
    {
      get href() {
        throw new Error('getter')
      },
    },
    new URL('http://localhost/a'),
    'a\0b',
    `file:${file}?mode=ro`,
    'file:shared?mode=memory&cache=shared',
    'file:/in?vfs=memdb',
    join(directory, 'no', 'such'),
    directory,
    undefined,
    null,
    1,
    1n,
    true,
    Symbol('path'),
    {},
    [],
    () => 'path',
  ]
  paths.forEach((path, index) => {
    look(`${index}`, () => {
      const db = new DatabaseSync(any(path))
      const seen = [db.isOpen, db.location(), db.prepare('SELECT count(*) n FROM sqlite_schema').get()]
      db.close()
      return seen
    })
  })
  look('no arguments', () => new DatabaseSync(...([] as unknown as [string])))
  look('without new', () => (DatabaseSync as unknown as () => void)())
})

same('options that are no objects', ({ DatabaseSync }, look) => {
  for (const options of [undefined, null, 1, 'a', true, 1n, [], () => {}]) {
    look(String(options), () => new DatabaseSync(':memory:', any(options)).isOpen)
  }
  look(
    'a getter that throws',
    () =>
      new DatabaseSync(':memory:', {
        get timeout(): number {
          throw new RangeError('x')
        },
      }),
  )
  look('order of reading', () => {
    const read: string[] = []
    new DatabaseSync(':memory:', new Proxy({}, { get: (_, key) => void read.push(String(key)) }))
    return read
  })
})

for (const option of [
  'open',
  'readOnly',
  'enableForeignKeyConstraints',
  'enableDoubleQuotedStringLiterals',
  'timeout',
  'readBigInts',
  'returnArrays',
  'allowBareNamedParameters',
  'allowUnknownNamedParameters',
  'defensive',
  'allowExtension',
  'limits',
]) {
  same(`types of the option ${option}`, ({ DatabaseSync }, look) => {
    for (const value of [1, 0, 'a', '', null, undefined, {}, [], 1n, NaN, 1.5, -1, -0, 2 ** 31, 2 ** 31 - 1]) {
      look(String(value), () => void new DatabaseSync(':memory:', { open: false, [option]: value }))
    }
  })
}

same('what options do', ({ DatabaseSync }, look) => {
  const memory = (options: object) => new DatabaseSync(':memory:', options)
  for (const on of [true, false]) {
    look('foreign keys', () => memory({ enableForeignKeyConstraints: on }).prepare('PRAGMA foreign_keys').get())
    look('double-quoted strings', () => memory({ enableDoubleQuotedStringLiterals: on }).prepare('SELECT "a"').get())
    look('double-quoted strings in a schema', () =>
      memory({ enableDoubleQuotedStringLiterals: on }).exec('CREATE TABLE t (a CHECK (a <> "b"))'),
    )
    look('defensive', () =>
      memory({ defensive: on }).exec(
        'CREATE TABLE a (b); PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = sql',
      ),
    )
    look('read big integers', () => memory({ readBigInts: on }).prepare('SELECT 1').get())
    look('return arrays', () => memory({ returnArrays: on }).prepare('SELECT 1').all())
    look('bare names', () => memory({ allowBareNamedParameters: on }).prepare('SELECT $a').get({ a: 1 }))
    look('unknown names', () => memory({ allowUnknownNamedParameters: on }).prepare('SELECT 1').get({ a: 1 }))
    look('open', () => memory({ open: on }).isOpen)
  }
  for (const timeout of [undefined, 0, -1, 1, 2 ** 31 - 1]) {
    look('timeout', () => memory({ timeout }).prepare('PRAGMA busy_timeout').get())
  }
  look('defaults', () => {
    const db = memory({})
    return [
      'foreign_keys',
      'busy_timeout',
      'journal_mode',
      'synchronous',
      'recursive_triggers',
      'wal_autocheckpoint',
      'cache_size',
      'trusted_schema',
      'defer_foreign_keys',
      'temp_store',
    ].map((pragma) => db.prepare(`PRAGMA ${pragma}`).get())
  })
})

same('a read-only database', ({ DatabaseSync }, look) => {
  const file = join(directory, 'read-only.db')
  new DatabaseSync(file).exec('CREATE TABLE IF NOT EXISTS t (a)')
  const db = new DatabaseSync(file, { readOnly: true })
  look('read', () => db.prepare('SELECT * FROM t').all())
  look('write', () => db.exec('INSERT INTO t VALUES (1)'))
  look('write prepared', () => db.prepare('INSERT INTO t VALUES (1)').run())
  look('missing', () => new DatabaseSync(join(directory, 'missing.db'), { readOnly: true }))
})

same('a locked database', ({ DatabaseSync }, look) => {
  const file = join(directory, 'locked.db')
  const holder = new DatabaseSync(file)
  holder.exec('CREATE TABLE IF NOT EXISTS t (a); BEGIN IMMEDIATE')
  const db = new DatabaseSync(file, { timeout: 1 })
  look('exec', () => db.exec('INSERT INTO t VALUES (1)'))
  look('run', () => db.prepare('INSERT INTO t VALUES (1)').run())
  look('begin', () => db.exec('BEGIN IMMEDIATE'))
  holder.close()
  look('afterwards', () => db.prepare('INSERT INTO t VALUES (1)').run().changes)
  db.close()
})

same('states', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:', { open: false })
  const calls = (label: string) => {
    look(`${label} isOpen`, () => db.isOpen)
    look(`${label} isTransaction`, () => db.isTransaction)
    look(`${label} exec`, () => db.exec('SELECT 1'))
    look(`${label} exec()`, () => db.exec(any(undefined)))
    look(`${label} prepare`, () => db.prepare('SELECT 1').get())
    look(`${label} prepare()`, () => db.prepare(any(undefined)))
    look(`${label} location`, () => db.location())
    look(`${label} location of`, () => [db.location('main'), db.location('temp'), db.location('none')])
    look(`${label} location()`, () => db.location(any(null)))
  }
  calls('before')
  look('dispose unopened', () => db[Symbol.dispose]())
  look('open', () => db.open())
  calls('open')
  look('open again', () => db.open())
  look('close', () => db.close())
  calls('closed')
  look('close again', () => db.close())
  look('dispose closed', () => db[Symbol.dispose]())
  look('reopen', () => db.open())
  calls('reopened')
  look('dispose', () => db[Symbol.dispose]())
  look('disposed', () => db.isOpen)
})

same('transactions', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)')
  for (const sql of [
    'BEGIN',
    'SAVEPOINT a',
    'RELEASE a',
    'COMMIT',
    'SAVEPOINT b',
    'ROLLBACK TO b',
    'RELEASE b',
    'BEGIN',
    'INSERT OR ROLLBACK INTO t VALUES (1)',
    'COMMIT',
  ]) {
    look(`exec ${sql}`, () => db.exec(sql))
    look('isTransaction', () => db.isTransaction)
  }
  for (const sql of ['BEGIN IMMEDIATE', 'BEGIN', 'INSERT INTO t VALUES (2)', 'ROLLBACK', 'ROLLBACK']) {
    look(`run ${sql}`, () => db.prepare(sql).run())
    look('isTransaction', () => db.isTransaction)
  }
})

same('exec', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const scripts: unknown[] = [
    '',
    ' ',
    ';',
    ';;',
    '-- nothing',
    '/* nothing */',
    '/* unended',
    '\ufeffSELECT 1',
    'SELECT 1',
    'CREATE TABLE a (x); INSERT INTO a VALUES (1); bad; INSERT INTO a VALUES (2)',
    'INSERT INTO a VALUES (3);\0bad',
    "INSERT INTO a VALUES ('\ud800'), ('é😀')",
    'SELECT * FROM a',
    'SELECT ?',
    'INSERT INTO a VALUES (?)',
    'INSERT INTO a VALUES (abs(-9223372036854775808))',
    'CREATE TABLE a (x)',
    'SELECT 1; -- end',
    '/**/ /* */ -- \n ; SELECT 2',
    'x',
    "'",
    1,
    null,
    undefined,
    {},
    new String('SELECT 1'),
  ]
  scripts.forEach((sql, index) => look(`${index}`, () => db.exec(any(sql))))
  look('rows', () => db.prepare('SELECT x, typeof(x) FROM a').all())
})

test('location names the file as SQLite resolved it, and an attached one by its name', (t) => {
  const file = join(directory, 'attached.db')
  const db = new DatabaseSync(':memory:')
  db.prepare('ATTACH ? AS other').run(file)
  t.is(db.location('other'), file)
  t.is(db.location(), null)
  db.close()
})

test('a closed database leaves no -wal', (t) => {
  const file = join(directory, 'wal.db')
  const db = new DatabaseSync(file)
  db.exec('PRAGMA journal_mode = WAL; CREATE TABLE t (a)')
  db.prepare('INSERT INTO t VALUES (?)').run(1)
  const statement = db.prepare('SELECT * FROM t')
  const iterator = statement.iterate()
  iterator.next()
  db.close()
  const reader = new DatabaseSync(file, { readOnly: true })
  t.deepEqual(reader.prepare('SELECT count(*) FROM t').get({}), Object.assign(Object.create(null), { 'count(*)': 1 }))
  reader.close()
})

same('a subclass with its own open() and close()', ({ DatabaseSync }, look) => {
  const calls: string[] = []
  class Mine extends DatabaseSync {
    #label = 'mine'
    override open() {
      calls.push(`open ${this.#label}`)
      super.open()
    }
    override close() {
      calls.push(`close ${this.#label}`)
      super.close()
    }
  }
  look('constructor', () => [new Mine(':memory:').isOpen, calls])
  const db = new Mine(':memory:', { open: false })
  look('open', () => [db.open(), db.isOpen, calls])
  look('dispose', () => [db[Symbol.dispose](), db.isOpen, calls])
  look('reopened', () => [db.open(), db.close(), db.isOpen, calls])
  look('an own close', () => {
    const other = new DatabaseSync(':memory:')
    other.close = () => calls.push('own')
    return [other[Symbol.dispose](), other.isOpen, calls]
  })
})

test('the end of a using calls what a subclass of HardenedDatabase closes with', (t) => {
  const calls: string[] = []
  class Mine extends HardenedDatabase {
    override close() {
      calls.push('close')
      super.close()
    }
  }
  const db = new Mine(join(directory, 'subclass.db'))
  db[Symbol.dispose]()
  t.deepEqual([db.isOpen, calls], [false, ['close']])
})

test("Node's permission model forbids extensions", (t) => {
  const script = `
    const modules = [require('node:sqlite'), require(${JSON.stringify(join(import.meta.dirname, '..'))})]
    const attempt = (body) => { try { return body() } catch ({ name, message, code, errcode }) { return { name, message, code, errcode } } }
    const seen = modules.map(({ DatabaseSync }) => [
      attempt(() => new DatabaseSync(':memory:', { allowExtension: true }).isOpen),
      attempt(() => new DatabaseSync(':memory:', { allowExtension: false }).isOpen),
      attempt(() => new DatabaseSync(':memory:', { allowExtension: true, open: false }).isOpen),
    ])
    console.log(JSON.stringify(seen))`
  const options = ['--no-warnings', '--permission', '--allow-addons', '--allow-fs-read=*']
  const { stdout, stderr } = spawnSync(process.execPath, [...options, '-e', script], { encoding: 'utf8' })
  t.is(stderr, '')
  const [expected, seen] = JSON.parse(stdout)
  t.is(expected[0].code, 'ERR_LOAD_SQLITE_EXTENSION')
  t.deepEqual(seen, expected)
})
