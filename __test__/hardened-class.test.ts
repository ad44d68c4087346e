// HardenedDatabase as a class: Node's emitter, node:sqlite's options, memory and URIs, settings that a
// program changes by PRAGMA, missing and foreign files.

import { EventEmitter, errorMonitor, getEventListeners, getMaxListeners, on, once, setMaxListeners } from 'node:events'
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync as NodeDatabase } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase } from '../index.js'
import {
  Other,
  count,
  createSchema,
  database,
  entries,
  entry,
  folder,
  nextEvent,
  open,
  openInMemory,
  run,
} from './support.ts'

type Failure = Error & { code: string; path?: string }

// The emitter

/** What an emitter does in one scenario, as text. */
type Scenario = (emitter: EventEmitter, log: (...what: unknown[]) => void) => void

const listen = (emitter: EventEmitter, method: string, log: (...what: unknown[]) => void) => {
  const call = emitter as unknown as Record<string, (name: string, listener: (...args: unknown[]) => void) => unknown>
  emitter.on('mine', () => log('before'))
  const listener = function (this: unknown, ...args: unknown[]) {
    log('heard', this === emitter, args)
  }
  log('this', call[method]?.call(emitter, 'mine', listener) === emitter)
  log(emitter.emit('mine', 1, 'two', 3, 4), emitter.emit('mine'), emitter.listenerCount('mine'))
}

const unlisten = (emitter: EventEmitter, method: string, log: (...what: unknown[]) => void) => {
  const call = emitter as unknown as Record<string, (name: string, listener: () => void) => unknown>
  const one = () => log('one')
  const two = () => log('two')
  emitter.on('removeListener', (name, listener) => log('removed', name, listener === one))
  emitter.on('mine', one).on('mine', two).once('mine', one)
  log('this', call[method]?.call(emitter, 'mine', one) === emitter, emitter.emit('mine'))
  call[method]?.call(emitter, 'mine', one)
  call[method]?.call(emitter, 'nothing', one)
  log(emitter.emit('mine'), emitter.listenerCount('mine'))
}

const MINE = Symbol('mine')

const SCENARIOS: Record<string, Scenario> = {
  on: (emitter, log) => listen(emitter, 'on', log),
  addListener: (emitter, log) => listen(emitter, 'addListener', log),
  once: (emitter, log) => listen(emitter, 'once', log),
  prependListener: (emitter, log) => listen(emitter, 'prependListener', log),
  prependOnceListener: (emitter, log) => listen(emitter, 'prependOnceListener', log),
  off: (emitter, log) => unlisten(emitter, 'off', log),
  removeListener: (emitter, log) => unlisten(emitter, 'removeListener', log),
  removeAllListeners: (emitter, log) => {
    emitter.on('a', () => log('a')).on('b', () => log('b'))
    log(emitter.removeAllListeners('a') === emitter, emitter.eventNames())
    log(emitter.removeAllListeners() === emitter, emitter.eventNames())
  },
  emit: (emitter, log) => {
    log(emitter.emit('no listener'))
    const error = new Error('of the program')
    try {
      emitter.emit('error', error)
    } catch (thrown) {
      log(thrown === error)
    }
    emitter.on(errorMonitor, (seen) => log('monitor', seen === error))
    emitter.on('error', (seen) => log('error', seen === error))
    log(emitter.emit('error', error))
    emitter.once('throws', () => {
      throw error
    })
    try {
      emitter.emit('throws')
    } catch (thrown) {
      log(thrown === error)
    }
    log(emitter.listenerCount('throws'))
  },
  listeners: (emitter, log) => {
    const listener = () => {}
    emitter.once('a', listener)
    log(emitter.listeners('a')[0] === listener, emitter.listeners('b'))
  },
  rawListeners: (emitter, log) => {
    const listener = () => log('raw')
    emitter.once('a', listener)
    const [raw] = emitter.rawListeners('a') as (((...args: unknown[]) => void) & { listener: () => void })[]
    log(raw !== listener, raw?.listener === listener)
    raw?.()
    log(emitter.listenerCount('a'))
  },
  listenerCount: (emitter, log) => {
    const listener = () => {}
    emitter.on('a', listener).once('a', () => {})
    log(emitter.listenerCount('a'), emitter.listenerCount('a', listener), emitter.listenerCount('b'))
  },
  eventNames: (emitter, log) => {
    emitter.on('checkpoint', () => {}).on(MINE, () => {})
    log(emitter.eventNames())
  },
  setMaxListeners: (emitter, log) => {
    log(emitter.setMaxListeners(3) === emitter, emitter.getMaxListeners())
    for (const bad of [-1, 'x', Number.NaN]) {
      try {
        emitter.setMaxListeners(bad as number)
      } catch (error) {
        log((error as Failure).code, (error as Failure).message)
      }
    }
    setMaxListeners(7, emitter)
    log(getMaxListeners(emitter))
  },
  getMaxListeners: (emitter, log) => log(emitter.getMaxListeners(), getMaxListeners(emitter)),
}

function outcome(emitter: EventEmitter, scenario: Scenario): unknown[] {
  const seen: unknown[] = []
  emitter.on('newListener', (name, listener) => seen.push(['new', name, typeof listener]))
  try {
    scenario(emitter, (...what) => seen.push(what))
    for (const bad of [undefined, null, 1, 'x']) emitter.on('bad', bad as never)
  } catch (error) {
    seen.push([(error as Failure).code, (error as Failure).message])
  }
  return seen
}

/** A database, as the emitter that it is in every respect but `instanceof`. */
const emitterOf = (db: HardenedDatabase) => db as unknown as EventEmitter

test("every method of this Node's EventEmitter is there and behaves as on an emitter", (t) => {
  const own = new Set(['constructor', '_events', '_eventsCount', '_maxListeners'])
  const names = Object.getOwnPropertyNames(EventEmitter.prototype).filter((name) => !own.has(name))
  t.deepEqual(names.toSorted(), Object.keys(SCENARIOS).toSorted(), 'a scenario for each method, and no other')
  for (const name of names) {
    t.is(typeof Reflect.get(HardenedDatabase.prototype, name), 'function', name)
    const scenario = SCENARIOS[name] as Scenario
    t.deepEqual(outcome(emitterOf(openInMemory(t)), scenario), outcome(new EventEmitter(), scenario), name)
  }
  for (const symbol of Object.getOwnPropertySymbols(EventEmitter.prototype)) t.true(symbol in openInMemory(t))
})

test('an emitter has no properties that a database has not', (t) => {
  const plain = new DatabaseSync(':memory:')
  t.deepEqual(Object.keys(openInMemory(t)), Object.keys(plain))
  plain.close()
})

test("Node's functions on emitters take a database", async (t) => {
  const db = open(t)
  const first = once(db, 'checkpoint')
  await db.appendAgentLogs(entries(1))
  await db.checkpoint('truncate')
  t.is(((await first) as [{ mode: string }])[0].mode, 'truncate')
  t.deepEqual(db.eventNames(), [], 'no listener is left behind')

  const aborting = new AbortController()
  const iterator = on(db, 'check', { signal: aborting.signal })
  t.is(getEventListeners(emitterOf(db), 'check').length, 1)
  db.emit('check', 'of the program')
  t.deepEqual((await iterator.next()).value, ['of the program'])
  aborting.abort()
  await t.throwsAsync(iterator.next(), { name: 'AbortError' })
  t.deepEqual(db.eventNames(), [])

  const stopped = new AbortController()
  const never = once(db, 'replaced', { signal: stopped.signal })
  stopped.abort()
  await t.throwsAsync(never, { name: 'AbortError' })
  t.deepEqual(db.eventNames(), [])
  const failed = t.throwsAsync(once(db, 'backup'), { message: 'of the program' })
  db.emit('error', new Error('of the program'))
  await failed
})

test('captureRejections is as Node has it', async (t) => {
  const before = EventEmitter.captureRejections
  EventEmitter.captureRejections = true
  t.teardown(() => {
    EventEmitter.captureRejections = before
  })
  const db = openInMemory(t)
  const caught = nextEvent(db, 'error')
  db.on('of the program', async () => {
    throw new Error('rejected')
  })
  db.emit('of the program')
  t.is(((await caught)[0] as Error).message, 'rejected')
})

test('an error that the package reports without a listener is a warning; a monitor sees it', async (t) => {
  const other = new Other(t, 'no-table.mjs', [path.join(folder(t), 'a.db')])
  const { code, output } = await other.ended
  t.is(code, 0, output)
  t.regex(output, /monitor ERR_FUSION_SCHEMA/)
  t.regex(output, /\[ERR_FUSION_SCHEMA\].*agentLogEntries/)
})

// Options

/** Values for every option of node:sqlite, valid and not. */
const VALUES: Record<string, unknown[]> = {
  open: [true, null, 1, undefined],
  readOnly: [false, null, 'no', undefined],
  enableForeignKeyConstraints: [true, false, null, 0, undefined],
  enableDoubleQuotedStringLiterals: [true, false, null, 0, undefined],
  timeout: [0, 1000, -5, 1.5, 2 ** 31, '5', null, 5n, undefined],
  readBigInts: [true, null, 1, undefined],
  returnArrays: [true, null, 1, undefined],
  allowBareNamedParameters: [false, null, 1, undefined],
  allowUnknownNamedParameters: [true, null, 1, undefined],
  allowExtension: [true, false, null, 1, undefined],
  defensive: [true, false, null, 1, undefined],
  limits: [{}, { attach: 3 }, { attach: -1 }, { attach: 'x' }, null, 5, undefined],
}

/** What the class makes of one option. */
function made(Class: typeof DatabaseSync, options: object): unknown {
  try {
    const db = new Class(':memory:', options as never)
    const pragma = (name: string) => Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0]
    const attempt = (action: () => unknown) => {
      try {
        return action()
      } catch (error) {
        return (error as Failure).message
      }
    }
    const seen = {
      foreignKeys: pragma('foreign_keys'),
      attach: db.limits.attach,
      rows: db.prepare('SELECT 1 AS one').all(),
      quoted: attempt(() => db.prepare('SELECT "text" AS t').get()),
      defensive: attempt(() => {
        db.exec('PRAGMA writable_schema = ON; CREATE TABLE t (a); UPDATE sqlite_schema SET sql = sql')
        return 'written'
      }),
      extension: attempt(() => db.loadExtension('/nowhere')),
      bare: attempt(() => db.prepare('SELECT $a AS a').get({ a: 1 })),
    }
    db.close()
    return seen
  } catch (error) {
    return [(error as Failure).name, (error as Failure).code, (error as Failure).message]
  }
}

for (const [name, values] of Object.entries(VALUES)) {
  test(`option ${name} is taken as DatabaseSync takes it`, (t) => {
    for (const value of values) {
      t.deepEqual(made(HardenedDatabase, { [name]: value }), made(DatabaseSync, { [name]: value }), String(value))
    }
  })
}

test("a path's mistake is reported before an option's, as in node:sqlite", (t) => {
  for (const Class of [NodeDatabase, HardenedDatabase]) {
    t.throws(() => new Class(7 as never, { open: 1 } as never), { message: /"path" argument/ })
  }
})

test('two names of one option must agree', (t) => {
  const busy = (options: object) => {
    const db = open(t, options, ':memory:')
    return db.prepare('PRAGMA busy_timeout').get()?.timeout
  }
  t.is(busy({}), 5000)
  t.is(busy({ timeout: 7 }), 7)
  t.is(busy({ timeout: 7, busyTimeout: 7 }), 7)
  t.is(busy({ timeout: undefined, busyTimeout: 8 }), 8)
  t.is(busy({ timeout: -1 }), 0)
  const differ = { code: 'ERR_INVALID_ARG_VALUE', message: /two names of one option/ }
  t.throws(() => busy({ timeout: 7, busyTimeout: 8 }), differ)
  t.throws(() => busy({ foreignKeys: true, enableForeignKeyConstraints: false }), differ)
  t.is(busy({ foreignKeys: false, enableForeignKeyConstraints: false }), 5000)
})

test("the log's writer takes double-quoted strings where the handle does", async (t) => {
  const db = open(t, { enableDoubleQuotedStringLiterals: true })
  db.exec(
    'CREATE TABLE seen (a); CREATE TRIGGER s AFTER INSERT ON agentLogEntries BEGIN INSERT INTO seen VALUES ("x"); END',
  )
  t.is((await db.appendAgentLogs(entries(2))).committed, 2)
  t.is(db.prepare('SELECT count(*) AS n FROM seen').get()?.n, 2)
})

// Memory and URIs

test('a database in memory can be replaced, and its log goes on', async (t) => {
  const snapshot = (() => {
    const db = openInMemory(t)
    db.exec('CREATE TABLE mine (a); INSERT INTO mine VALUES (1)')
    return db.serialize()
  })()
  for (const name of [':memory:', '', 'file::memory:', 'file:x?mode=memory', 'file:/y?vfs=memdb']) {
    const db = open(t, { changeCounter: null }, name)
    db.deserialize(snapshot)
    t.is(db.prepare('SELECT a FROM mine').get()?.a, 1, name)
    t.is((await db.appendAgentLogs(entries(3))).committed, 3, name)
    t.is(count(db), 3)
    t.deepEqual((await db.checkpoint('truncate')).frames, 0)
    db.close()
  }
  const db = open(t)
  t.throws(() => db.deserialize(snapshot), { code: 'ERR_INVALID_STATE', message: /with a file/ })
  db.exec("ATTACH ':memory:' AS other")
  db.deserialize(snapshot, { dbName: 'other' })
  t.is(db.prepare('SELECT a FROM other.mine').get()?.a, 1)
})

test('URIs name what they name in node:sqlite', (t) => {
  const directory = folder(t)
  const file = path.join(directory, 'a b.db')
  const shared = [0, 1].map(() => open(t, undefined, 'file:shared?mode=memory&cache=shared'))
  shared[0]?.exec('CREATE TABLE both (a)')
  t.deepEqual(shared[1]?.prepare('SELECT * FROM both').all(), [])
  for (const name of [
    pathToFileURL(file),
    `${pathToFileURL(file)}?mode=rwc`,
    new URL(`${pathToFileURL(file)}?mode=rw`),
  ]) {
    const db = open(t, undefined, name as never)
    t.is(db.location(), file)
    db.close()
  }
  t.deepEqual(
    readdirSync(directory).filter((name) => !name.startsWith('a b.db')),
    [],
  )
})

// Settings that are changed by PRAGMA

/** Warnings of a program, run in a process of its own. */
async function warnings(t: ExecutionContext, file: string, ...sql: string[]): Promise<string[]> {
  const { code, output } = await run(t, 'pragmas.mjs', [file, ...sql])
  t.is(code, 0, output)
  return JSON.parse(output.slice(output.indexOf('['))) as string[]
}

test("a setting in which the log's writer does not follow is warned of, once a handle", async (t) => {
  const file = database(t)
  const seen = await warnings(
    t,
    file,
    'PRAGMA synchronous = FULL',
    'PRAGMA synchronous = FULL',
    'PRAGMA mmap_size = 65536',
  )
  t.is(seen.length, 2)
  t.regex(seen[0] ?? '', /synchronous = FULL holds for this connection alone.*NORMAL.*option synchronous/)
  t.regex(seen[1] ?? '', /mmap_size = 65536/)
  const [exclusive] = await warnings(t, file, 'PRAGMA locking_mode = EXCLUSIVE')
  t.regex(exclusive ?? '', /locking_mode = EXCLUSIVE/)
})

test("the profile's own values, and what is set back at once, are no reason for a warning", async (t) => {
  const own =
    'PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 9; PRAGMA journal_mode = WAL'
  t.deepEqual(
    await warnings(
      t,
      database(t),
      own,
      'PRAGMA foreign_keys = OFF; PRAGMA foreign_keys = ON',
      'PRAGMA user_version = 3',
    ),
    [],
  )
})

test('wal_autocheckpoint is not obeyed, says so, and the writer goes on checkpointing', async (t) => {
  const file = database(t)
  const [warning, ...more] = await warnings(t, file, 'PRAGMA wal_autocheckpoint = 1000')
  t.regex(warning ?? '', /wal_autocheckpoint = 1000 is not obeyed.*checkpointFrames/)
  t.deepEqual(more, [])
  for (const pages of [1000, 0]) {
    const db = open(t, { checkpointFrames: 20, checkpointIdle: 60_000 }, file)
    db.prepare(`PRAGMA wal_autocheckpoint = ${pages}`).get()
    t.is(db.prepare('PRAGMA wal_autocheckpoint').get()?.wal_autocheckpoint, 0)
    db.exec('CREATE TABLE IF NOT EXISTS big (a)')
    // Commits of this connection, which no append of the log helps to notice.
    const made = () => {
      const { passive, restart, truncate } = db.stats().checkpoints
      return passive + restart + truncate
    }
    // A writer that comes late finds a WAL so long that it restarts it.
    while (made() === 0) {
      for (let i = 0; i < 10; i++) db.exec('INSERT INTO big VALUES (zeroblob(20000))')
      await new Promise((resolve) => setImmediate(resolve))
    }
    t.pass()
    db.close()
  }
})

// Missing and foreign files

test('mustExist opens what is there and makes nothing', async (t) => {
  const directory = folder(t)
  for (const missing of [path.join(directory, 'no.db'), path.join(directory, 'no', 'no.db')]) {
    for (const spelt of [missing, Buffer.from(missing), pathToFileURL(missing)]) {
      const make = () => new HardenedDatabase(spelt as never, { mustExist: true })
      t.is((t.throws(make, { code: 'ERR_FUSION_MISSING', message: /no such file/ }) as Failure).path, missing)
      await t.throwsAsync(HardenedDatabase.open(spelt, { mustExist: true }), { code: 'ERR_FUSION_MISSING' })
    }
  }
  t.deepEqual(readdirSync(directory), [])
  t.true(open(t, { mustExist: true }).isOpen)
})

/** Everything about a folder that opening a file in it may change. */
function state(directory: string): unknown {
  return readdirSync(directory)
    .toSorted()
    .map((name) => {
      const file = path.join(directory, name)
      return [name, statSync(file).mtimeMs, readFileSync(file).toString('base64')]
    })
}

/** A database of another application, with a rollback journal. */
function foreign(t: ExecutionContext): string {
  const file = path.join(folder(t), 'theirs.db')
  const node = new NodeDatabase(file)
  node.exec("CREATE TABLE theirs (a); INSERT INTO theirs VALUES ('x'); CREATE INDEX i ON theirs (a)")
  node.close()
  return file
}

test('a probe of what is no database changes nothing', async (t) => {
  const directory = folder(t)
  const text = path.join(directory, 'notes.txt')
  writeFileSync(text, 'These are notes, and no database.\n'.repeat(300))
  writeFileSync(path.join(directory, 'short.bin'), 'x')
  const before = state(directory)
  for (const options of [{}, { mustExist: true }, { readOnly: true }, { journalMode: 'keep' as const }]) {
    for (const name of readdirSync(directory)) {
      t.throws(() => new HardenedDatabase(path.join(directory, name), options), { message: /not a SQLite database/ })
      await t.throwsAsync(HardenedDatabase.open(path.join(directory, name), options))
    }
  }
  t.deepEqual(state(directory), before)
})

test("a probe of another application's database changes nothing with journalMode 'keep', or readOnly", async (t) => {
  const file = foreign(t)
  const before = state(path.dirname(file))
  for (const options of [
    { journalMode: 'keep' as const },
    { journalMode: 'keep' as const, mustExist: true, startupCheck: 'full' as const },
    { readOnly: true },
    { readOnly: true, journalMode: 'keep' as const },
  ]) {
    const db = new HardenedDatabase(file, options)
    t.is(db.prepare('SELECT count(*) AS n FROM theirs').get()?.n, 1)
    t.true((await db.check()).ok)
    db.close()
    t.deepEqual(state(path.dirname(file)), before)
    const later = await HardenedDatabase.open(file, options)
    await later.closeAsync()
    t.deepEqual(state(path.dirname(file)), before)
  }
})

test('a database in WAL mode is left as it was by a handle that only reads', (t) => {
  const file = path.join(folder(t), 'wal.db')
  const node = new NodeDatabase(file)
  node.exec('PRAGMA journal_mode = WAL; CREATE TABLE theirs (a)')
  node.close()
  const before = state(path.dirname(file))
  const db = new HardenedDatabase(file)
  t.deepEqual(db.prepare('SELECT * FROM theirs').all(), [])
  db.close()
  t.deepEqual(state(path.dirname(file)), before)
})

// Reads that see what was handed over

test('flushBeforeReads: every read sees what was handed over before it', async (t) => {
  const file = database(t)
  const db = open(t, { flushBeforeReads: true, linger: 60_000 }, file)
  const all = db.prepare('SELECT text FROM agentLogEntries ORDER BY id')
  const read: Record<string, () => unknown> = {
    get: () => db.prepare('SELECT count(*) AS n FROM agentLogEntries').get()?.n,
    all: () => all.all().length,
    iterate: () => [...all.iterate()].length,
    tag: () => (db.createTagStore().get`SELECT count(*) AS n FROM agentLogEntries` as { n: number }).n,
  }
  let rows = 0
  for (const [name, how] of Object.entries(read)) {
    t.true(db.appendAgentLog(entry(name)))
    t.is(how(), ++rows, name)
    t.is(how(), rows, `${name} again`)
  }
  // Inside of transactions, one that writes and one that has read nothing.
  for (const begin of ['BEGIN IMMEDIATE', 'BEGIN']) {
    db.exec(begin)
    db.appendAgentLog(entry(begin))
    t.is(read.get?.(), ++rows, begin)
    db.exec('COMMIT')
    t.is(read.get?.(), rows)
  }
  // What is rolled back with the transaction comes again with the next read.
  db.exec('BEGIN IMMEDIATE')
  db.appendAgentLog(entry('back'))
  t.is(read.get?.(), ++rows)
  db.exec('ROLLBACK')
  t.is(read.get?.(), rows)
  db.function('inner', () => read.get?.() as number)
  db.appendAgentLog(entry('function'))
  t.is(db.prepare('SELECT inner() AS n').get()?.n, ++rows)
  await db.closeAsync()
  const plain = open(t, { linger: 60_000 }, file)
  plain.appendAgentLog(entry('lingers'))
  t.is(count(plain), rows)
  plain.flushAgentLogsSync()
  t.is(count(plain), rows + 1)
})

test('flushBeforeReads: a read waits for no longer than closeTimeout, and throws', (t) => {
  const db = open(t, { flushBeforeReads: true, closeTimeout: 50, changeCounter: null }, path.join(folder(t), 'new.db'))
  // A schema, so that the log makes no table.
  db.exec('CREATE TABLE other (a)')
  db.appendAgentLog(entry('no table'))
  t.throws(() => db.prepare('SELECT 1').get(), { code: 'ERR_FUSION_FLUSH_TIMEOUT' })
  createSchema(db)
  db.flushAgentLogsSync(10_000)
  t.is(count(db), 1)
})

test('a handle can be made in a folder that is made later', (t) => {
  const file = path.join(folder(t), 'later', 'a.db')
  const db = new HardenedDatabase(file, { open: false })
  mkdirSync(path.dirname(file))
  db.open()
  t.true(existsSync(file))
  db.close()
})
