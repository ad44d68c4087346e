// Does what no program should do, at random but by a seed, in four workers and the main thread.
// Whatever is thrown is fine; a crash is not.
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { setImmediate as turn } from 'node:timers/promises'
import sqlite from '../../index.js'

const { DatabaseSync, HardenedDatabase, StatementSync, appendAgentLogs, backup } = sqlite

/** mulberry32 */
function random(seed) {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const SCHEMA = `CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v, b BLOB);
  CREATE TABLE IF NOT EXISTS __meta(key TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE IF NOT EXISTS tasks(id TEXT PRIMARY KEY);
  INSERT OR IGNORE INTO tasks VALUES ('T');
  CREATE TABLE IF NOT EXISTS agentLogEntries(id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL REFERENCES tasks(id),
    timestamp TEXT NOT NULL, text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT)`

async function torture(folder, seed, operations) {
  const next = random(seed)
  const upTo = (n) => Math.floor(next() * n)
  const pick = (array) => array[upTo(array.length)]
  const counts = {}
  let thrown = 0

  const shared = path.join(folder, 'shared.db')
  const files = [shared, path.join(folder, `own-${seed}.db`), ':memory:', '']
  const databases = []
  const statements = []
  const iterators = []
  const sessions = []
  const changesets = [new Uint8Array(8)]
  const images = [new Uint8Array(100)]

  /** Puts `made` somewhere at random, so that what was there is garbage. */
  const keep = (array, made, most) => {
    if (array.length < most) array.push(made)
    else array[upTo(most)] = made
    return made
  }
  const open = () => {
    const file = pick(files)
    const Kind = next() < 0.3 ? HardenedDatabase : DatabaseSync
    const db = new Kind(
      file,
      Kind === DatabaseSync ? { timeout: 20 } : { busyTimeout: 20, closeTimeout: 50, retryDeadline: 200 },
    )
    db.exec(SCHEMA)
    return keep(databases, db, 8)
  }
  const database = () => (databases.length === 0 || next() < 0.05 ? open() : pick(databases))
  const SQL = [
    'SELECT * FROM t',
    'SELECT id, v, b FROM t WHERE id > ? LIMIT 50',
    'INSERT INTO t(v, b) VALUES (?, ?) RETURNING *',
    'INSERT INTO t(v, b) VALUES (:v, :b)',
    'UPDATE t SET v = ? WHERE id % 7 = 0',
    'DELETE FROM t WHERE id % 3 = 0',
    'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 200) SELECT x, ? AS y FROM c',
    'PRAGMA user_version',
    'SELECT count(*) FROM agentLogEntries',
  ]
  const statement = () =>
    statements.length === 0 || next() < 0.3 ? keep(statements, database().prepare(pick(SQL)), 16) : pick(statements)
  const detached = () => {
    const bytes = new Uint8Array(upTo(1 << 14))
    structuredClone(0, { transfer: [bytes.buffer] })
    return bytes
  }
  /** Something wicked to do inside a call. */
  const mischief = () => {
    switch (upTo(7)) {
      case 0: return pick(databases)?.close()
      case 1: return void statement().all(1, 2)
      case 2: return void globalThis.gc?.()
      case 3: return void pick(iterators)?.next()
      case 4: return void pick(databases)?.exec('ROLLBACK; DROP TABLE IF EXISTS t')
      case 5: return void pick(sessions)?.close()
      default: throw pick([null, undefined, new Error('wicked'), 1n])
    }
  } // prettier-ignore
  const value = () => {
    switch (upTo(12)) {
      case 0: return null
      case 1: return next() * 1e6
      case 2: return BigInt.asIntN(64, BigInt(upTo(2 ** 32)) << 33n)
      case 3: return 'x'.repeat(upTo(3000))
      case 4: return 'ü\0🦊'.repeat(upTo(500))
      case 5: return new Uint8Array(upTo(20_000))
      case 6: return detached()
      case 7: return new DataView(new SharedArrayBuffer(64), 3, 5)
      case 8: return new Uint8Array(new ArrayBuffer(16, { maxByteLength: 64 }))
      case 9: return Symbol('no')
      case 10: return new ArrayBuffer(upTo(100))
      default: return 2n ** 70n
    }
  } // prettier-ignore
  /** Named parameters whose getters misbehave, also towards the buffers beside them. */
  const named = () => {
    const bytes = new Uint8Array(4096)
    return {
      get v() {
        if (next() < 0.5) mischief()
        if (next() < 0.5) structuredClone(0, { transfer: [bytes.buffer] })
        return bytes
      },
      get b() {
        if (next() < 0.2) mischief()
        return bytes
      },
    }
  }
  const options = (fields) =>
    Object.defineProperties(
      {},
      Object.fromEntries(
        Object.entries(fields).map(([key, value]) => [
          key,
          { enumerable: true, get: () => (next() < 0.3 && mischief(), value) },
        ]),
      ),
    )
  const entry = () => ({
    taskId: next() < 0.1 ? 'nobody' : 'T',
    type: 'text',
    get text() {
      if (next() < 0.1) mischief()
      return next() < 0.05 ? value() : `text ${upTo(1000)}`
    },
    get detail() {
      if (next() < 0.02)
        database()
          .appendAgentLogs?.([{ taskId: 'T', text: 'inner', type: 'text' }])
          ?.catch(() => {})
      return null
    },
  })
  // Not awaited: what it waits for may be a transaction that this very program has open.
  const wait = (promise) => void Promise.resolve(promise).catch(() => thrown++)

  const acts = {
    run: () => statement().run(value(), value()),
    runNamed: () => statement().run(named()),
    all: () => statement().all(value()),
    get: () => statement().get(value()),
    begin: () => database().exec(pick(['BEGIN', 'BEGIN IMMEDIATE', 'COMMIT', 'ROLLBACK', 'SAVEPOINT a', 'RELEASE a'])),
    recreate: () => database().exec(SCHEMA),
    drop: () => database().exec('ALTER TABLE t RENAME TO u; DROP TABLE u'),
    iterate: () => keep(iterators, statement().iterate(value()), 8).next(),
    next: () => pick(iterators)?.next(),
    return: () => pick(iterators)?.return(),
    inside: () => {
      let rows = 0
      const used = statement()
      for (const _ of used.iterate(1)) {
        if (next() < 0.2) used[pick(['run', 'get', 'all', 'iterate', 'columns'])](1)
        if (next() < 0.1) mischief()
        if (++rows > 30) break
      }
    },
    toggles: () => {
      const used = statement()
      used.setReturnArrays(next() < 0.5)
      used.setReadBigInts(next() < 0.5)
      return [used.columns(), used.expandedSQL, used.sourceSQL]
    },
    receivers: () =>
      StatementSync.prototype[pick(['all', 'get', 'run', 'iterate', 'columns'])].call(
        pick([{}, null, pick(databases), pick(sessions), Object.create(StatementSync.prototype)]),
      ),
    illegal: () => new (pick([StatementSync, sqlite.Session]))(1, 2),
    open,
    options: () =>
      keep(databases, new DatabaseSync(pick(files), options({ readOnly: false, timeout: 5, returnArrays: true })), 8),
    hardenedOptions: () =>
      keep(
        databases,
        new HardenedDatabase(pick(files), options({ busyTimeout: 5, closeTimeout: 50, retryDeadline: 200 })),
        8,
      ),
    close: () => pick(databases)?.close(),
    dispose: () => pick(databases)?.[Symbol.dispose](),
    reopen: () => pick(databases)?.open(),
    forget: () => databases.splice(upTo(databases.length), 1),
    session: () => keep(sessions, database().createSession(options({ table: 't' })), 8),
    changeset: () => keep(changesets, pick(sessions)?.[pick(['changeset', 'patchset'])](), 8),
    closeSession: () => pick(sessions)?.close(),
    apply: () => {
      const bytes = pick(changesets)?.slice()
      const detach = () => structuredClone(0, { transfer: [bytes.buffer] })
      return database().applyChangeset(bytes, {
        filter: () => (next() < 0.3 && mischief(), next() < 0.2 && detach(), true),
        onConflict: () => (next() < 0.3 && mischief(), upTo(3)),
      })
    },
    applyNoise: () => {
      const bytes = pick(changesets)?.slice()
      for (let i = 0; i < 3; i++) bytes[upTo(bytes.length)] = upTo(256)
      return database().applyChangeset(bytes, { onConflict: () => upTo(4) })
    },
    serialize: () => keep(images, database().serialize(), 4),
    deserialize: () => new DatabaseSync(':memory:').deserialize(pick(images)),
    deserializeHere: () => pick(databases)?.deserialize(next() < 0.3 ? detached() : pick(images)),
    deserializeNoise: () => {
      const bytes = pick(images).slice()
      for (let i = 0; i < 20; i++) bytes[upTo(bytes.length)] = upTo(256)
      const db = new DatabaseSync(':memory:')
      db.deserialize(bytes)
      return db.prepare('SELECT * FROM t').all()
    },
    backup: () =>
      wait(
        backup(database(), path.join(folder, `copy-${seed}-${upTo(3)}.db`), {
          rate: 1 + upTo(5),
          progress: () => next() < 0.2 && mischief(),
        }),
      ),
    tags: () => {
      const store = database().createTagStore(1 + upTo(3))
      for (const _ of store.iterate`SELECT ${value()} AS x`) mischief()
      return store.all`SELECT ${1}, ${'a'}`
    },
    append: () => wait(database().appendAgentLogs?.(Array.from({ length: upTo(30) }, entry))),
    appendOne: () => database().appendAgentLog?.(entry()),
    appendByPath: () => wait(appendAgentLogs(shared, [entry()], { retryDeadline: 200 })),
    flush: () => wait(database().flushAgentLogs?.()),
    flushSync: () => pick(databases)?.flushAgentLogsSync?.(upTo(20)),
    take: () => pick(databases)?.takePending?.(),
    checkpoint: () => wait(pick(databases)?.checkpoint?.(pick(['passive', 'full', 'restart', 'truncate']))),
    closeAsync: () => wait(pick(databases)?.closeAsync?.()),
    stats: () => pick(databases)?.stats?.(),
    listen: () => pick(databases)?.on?.(pick(['error', 'rejected', 'checkpoint']), () => mischief()),
    gc: () => next() < 0.2 && globalThis.gc?.(),
  }
  const names = Object.keys(acts)
  for (let i = 0; i < operations; i++) {
    const name = pick(names)
    counts[name] = (counts[name] ?? 0) + 1
    try {
      await acts[name]()
    } catch {
      thrown++
    }
    if (i % 50 === 0) await turn()
  }
  for (const db of databases) {
    try {
      if (db.isTransaction) db.exec('ROLLBACK')
      db.close()
    } catch {
      thrown++
    }
  }
  return { done: operations, thrown, kinds: Object.keys(counts).length }
}

// Listeners and callbacks throw on purpose.
process.on('uncaughtException', () => {})
process.on('unhandledRejection', () => {})
process.removeAllListeners('warning')

if (isMainThread) {
  const seed = Number(process.argv[2])
  const operations = Number(process.argv[3])
  const folder = mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-stress-'))
  const script = fileURLToPath(import.meta.url)
  const start = (number) => new Worker(script, { workerData: { folder, seed: seed + number, operations } })

  /** Terminates workers in the middle of what they do, one after the other. */
  async function terminateSome(next) {
    for (let i = 0; i < 6; i++) {
      const worker = start(100 + i)
      worker.on('error', () => {})
      await new Promise((resolve) => setTimeout(resolve, 60 + next() * 500))
      await worker.terminate()
    }
    return 'terminated'
  }

  const whole = [1, 2, 3].map((number) => {
    const { promise, resolve, reject } = Promise.withResolvers()
    let result
    // Ended from here: a promise may be left that waits for a transaction of a database that was
    // forgotten, which keeps the worker alive until the log's retry deadline.
    const worker = start(number)
    worker
      .on('message', (message) => {
        result = message
        void worker.terminate()
      })
      .on('error', reject)
      .on('exit', (code) => (result ? resolve(result) : reject(new Error(`a worker ended with ${code}`))))
    return promise
  })
  try {
    const results = await Promise.all([
      torture(folder, seed, Math.floor(operations / 4)),
      ...whole,
      terminateSome(random(seed)),
    ])
    console.log(JSON.stringify(results))
  } catch (error) {
    console.log(JSON.stringify({ failed: String(error?.stack ?? error) }))
    process.exitCode = 3
  }
  globalThis.gc?.()
  rmSync(folder, { recursive: true, force: true })
  // For the same reason.
  process.exit()
} else {
  const { folder, seed, operations } = workerData
  parentPort.postMessage(await torture(folder, seed, operations))
}
