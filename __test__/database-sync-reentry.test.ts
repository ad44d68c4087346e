// Every call from every kind of callback: refused with an error where SQLite or the running call
// would be harmed, and otherwise without an effect on the running call. Never a crash.

import dc from 'node:diagnostics_channel'
import * as node from 'node:sqlite'
import test from 'ava'
import * as ours from '../index.js'
import { type Api, failure, show } from './helpers/differential.ts'

const SCHEMA = `CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3);
  CREATE TABLE log (a); CREATE TABLE changed (k INTEGER PRIMARY KEY, v)`

/** A statement of today's node:sqlite, also where @types/node knows an older one. */
interface Statement {
  get(...values: unknown[]): unknown
  all(...values: unknown[]): unknown[]
  run(...values: unknown[]): unknown
  iterate(...values: unknown[]): IterableIterator<unknown>
  close(): void
  stat(counter: string): number
  resetStats(): void
  [Symbol.dispose](): void
  columns(): unknown[]
  setReadBigInts(enabled: boolean): void
  setReturnArrays(enabled: boolean): void
  sourceSQL: string
  expandedSQL: string
}

class Scene {
  readonly db
  readonly otherDb
  readonly session
  readonly other: Statement
  readonly image
  readonly changeset
  statement!: Statement
  iterator: IterableIterator<unknown> | undefined
  parameters: unknown[] = []

  constructor({ DatabaseSync }: Api) {
    this.db = new DatabaseSync(':memory:')
    this.otherDb = new DatabaseSync(':memory:')
    this.db.exec(SCHEMA)
    const recorded = this.db.createSession({ table: 'changed' })
    this.db.exec('INSERT INTO changed VALUES (1, 2)')
    this.changeset = recorded.changeset()
    recorded.close()
    this.db.exec('UPDATE changed SET v = 7')
    this.image = this.otherDb.serialize()
    this.session = this.db.createSession()
    this.other = this.prepare('SELECT count(*) n FROM log')
  }

  prepare(sql: string): Statement {
    return this.db.prepare(sql) as unknown as Statement
  }

  /** How many rows there are, if the database is still there. */
  after(): unknown {
    return this.prepare('SELECT (SELECT count(*) FROM t) t, (SELECT count(*) FROM log) log').get()
  }
}

const CALLS: Record<string, (scene: Scene) => unknown> = {
  'own get': ({ statement }) => statement.get(),
  'own all': ({ statement }) => statement.all(),
  'own run': ({ statement }) => statement.run(),
  'own iterate': ({ statement }) => [...statement.iterate()],
  'own close': ({ statement }) => statement.close(),
  'own dispose': ({ statement }) => statement[Symbol.dispose](),
  'own sourceSQL': ({ statement }) => statement.sourceSQL,
  'own expandedSQL': ({ statement }) => statement.expandedSQL,
  'own columns': ({ statement }) => statement.columns().length,
  'own stat': ({ statement }) => statement.stat('sort'),
  'own resetStats': ({ statement }) => statement.resetStats(),
  'own setReadBigInts': ({ statement }) => statement.setReadBigInts(true),
  'own setReturnArrays': ({ statement }) => statement.setReturnArrays(true),
  next: ({ iterator }) => iterator?.next(),
  return: ({ iterator }) => iterator?.return!(),
  'other get': ({ other }) => other.get(),
  'other all': ({ other }) => other.all(),
  'other run': ({ other }) => other.run(),
  'other iterate': ({ other }) => [...other.iterate()],
  'other close': ({ other }) => other.close(),
  'other dispose': ({ other }) => other[Symbol.dispose](),
  close: ({ db }) => db.close(),
  dispose: ({ db }) => db[Symbol.dispose](),
  open: ({ db }) => db.open(),
  exec: ({ db }) => db.exec('SELECT 1'),
  insert: ({ db }) => db.exec('INSERT INTO log VALUES (1)'),
  create: ({ db }) => db.exec('CREATE TABLE IF NOT EXISTS made (a)'),
  prepare: (scene) => scene.prepare('SELECT 1').get(),
  function: ({ db }) => db.function('another', () => 1),
  'own function': ({ db }) => db.function('f', () => 1),
  aggregate: ({ db }) => db.aggregate('g2', { start: 0, step: () => 1 }),
  setAuthorizer: ({ db }) => db.setAuthorizer(null),
  serialize: ({ db }) => db.serialize().length > 0,
  deserialize: ({ db, image }) => db.deserialize(image),
  createSession: ({ db }) => typeof db.createSession(),
  applyChangeset: ({ db, changeset }) => db.applyChangeset(changeset),
  location: ({ db }) => db.location(),
  isTransaction: ({ db }) => db.isTransaction,
  limits: ({ db }) => (db.limits.attach = Math.min(db.limits.attach, 5)),
  enableDefensive: ({ db }) => db.enableDefensive(false),
  createTagStore: ({ db }) => db.createTagStore().get`SELECT ${1} a`,
  changeset: ({ session }) => session.changeset().length,
  'session close': ({ session }) => session.close(),
  'session dispose': ({ session }) => session[Symbol.dispose](),
  'other database close': ({ otherDb }) => otherDb.close(),
}

/** Where a callback comes from: the statement that calls it, and what has it called. */
const CALLBACKS: Record<string, { sql: string; install(scene: Scene, act: () => void): void }> = {
  function: {
    sql: 'SELECT f(a) v FROM t',
    install: ({ db }, act) => db.function('f', (a) => (act(), a)),
  },
  'function that writes': {
    sql: 'INSERT INTO log SELECT f(a) FROM t',
    install: ({ db }, act) => db.function('f', (a) => (act(), a)),
  },
  start: {
    sql: 'SELECT g(a) v FROM t',
    install: ({ db }, act) => db.aggregate('g', { start: () => (act(), 0), step: (sum: number, a) => sum + Number(a) }),
  },
  step: {
    sql: 'SELECT g(a) v FROM t',
    install: ({ db }, act) => db.aggregate('g', { start: 0, step: (sum: number, a) => (act(), sum + Number(a)) }),
  },
  result: {
    sql: 'SELECT g(a) v FROM t',
    install: ({ db }, act) =>
      db.aggregate('g', {
        start: 0,
        step: (sum: number, a) => sum + Number(a),
        result: (sum: number) => (act(), sum),
      }),
  },
  inverse: {
    sql: 'SELECT g(a) OVER (ORDER BY a ROWS 1 PRECEDING) v FROM t',
    install: ({ db }, act) =>
      db.aggregate('g', {
        start: 0,
        step: (sum: number, a) => sum + Number(a),
        inverse: (sum: number, a) => (act(), sum - Number(a)),
        result: (sum: number) => sum,
      }),
  },
  authorizer: { sql: 'SELECT a FROM t', install: ({ db }, act) => db.setAuthorizer(() => (act(), 0)) },
  getter: {
    sql: 'SELECT $a v, a FROM t',
    install: (scene, act) =>
      (scene.parameters = [{ get $a() { act(); return 1 } }]), // prettier-ignore
  },
  filter: { sql: 'SELECT 1', install: () => {} },
  onConflict: { sql: 'SELECT 1', install: () => {} },
  subscriber: { sql: 'SELECT a FROM t', install: () => {} },
}

const OUTER: Record<string, (scene: Scene) => unknown> = {
  get: ({ statement, parameters }) => statement.get(...parameters),
  all: ({ statement, parameters }) => statement.all(...parameters),
  run: ({ statement, parameters }) => statement.run(...parameters),
  iterate: (scene) => [...(scene.iterator = scene.statement.iterate(...scene.parameters))],
  next: (scene) => (scene.iterator = scene.statement.iterate(...scene.parameters)).next(),
}

/** What the call returns or throws, what the outer one does, and what is in the database afterwards. */
function play(api: Api, callback: string, outer: string, call: string): Record<string, string> {
  const { sql, install } = CALLBACKS[callback]!
  const scene = new Scene(api)
  const attempt = (body: () => unknown) => {
    try {
      return show(body())
    } catch (error) {
      return failure(error)
    }
  }
  let inner = 'not called'
  let isActive = false
  const act = () => {
    if (!isActive) return
    isActive = false
    inner = attempt(() => CALLS[call]!(scene))
  }
  install(scene, act)
  const isChangeset = callback === 'filter' || callback === 'onConflict'
  // Preparing calls the authorizer: the statement is another then.
  scene.statement = scene.prepare(callback === 'authorizer' ? 'SELECT 5 a' : sql)
  if (callback === 'subscriber') dc.subscribe('sqlite.db.query', act)
  isActive = true
  const result = attempt(() => {
    if (callback === 'authorizer') return scene.prepare(sql).all()
    if (!isChangeset) return OUTER[outer]!(scene)
    return scene.db.applyChangeset(scene.changeset, {
      filter: () => (callback === 'filter' && act(), true),
      onConflict: () => (callback === 'onConflict' && act(), 2),
    })
  })
  isActive = false
  if (callback === 'subscriber') dc.unsubscribe('sqlite.db.query', act)
  return { inner, result, after: attempt(() => scene.after()) }
}

/** Where node:sqlite is wrong: what a getter's close() is answered with, and what a subscriber's write adds to. */
const known = (callback: string, outer: string, call: string) =>
  (callback === 'getter' && ['close', 'dispose', 'deserialize'].includes(call)) ||
  (callback === 'subscriber' && call === 'applyChangeset' && outer === 'run')

// Older ones crash, or let the call change what runs.
const isSafe = Number(process.versions.node.split('.')[0]) >= 26 && 'stat' in node.StatementSync.prototype

for (const callback of Object.keys(CALLBACKS)) {
  const outers = ['authorizer', 'filter', 'onConflict'].includes(callback) ? ['all'] : Object.keys(OUTER)
  test(`every call from ${callback}`, (t) => {
    let called = 0
    for (const outer of outers) {
      const undisturbed = play(ours as unknown as Api, callback, outer, 'isTransaction')
      for (const call of Object.keys(CALLS)) {
        const where = `${call} from ${callback} in ${outer}`
        const seen = play(ours as unknown as Api, callback, outer, call)
        if (seen['inner'] !== 'not called') called++
        if (isSafe && !known(callback, outer, call)) {
          t.deepEqual(seen, play(node as unknown as Api, callback, outer, call), where)
        }
        // Refused: nothing has happened.
        if (seen['inner']!.includes('ERR_INVALID_STATE') && !known(callback, outer, call)) {
          t.deepEqual({ ...seen, inner: '' }, { ...undisturbed, inner: '' }, where)
        }
        if (/^own (get|all|run|iterate|close|dispose)$|^next$|^return$/.test(call) && !isIdle(callback, call, outer)) {
          t.regex(seen['inner']!, /statement is already being executed|not called/, where)
        }
      }
    }
    t.true(called > 40)
  })
}

/** Whether the statement is not running while it is used. */
function isIdle(callback: string, call: string, outer: string): boolean {
  if (['authorizer', 'filter', 'onConflict'].includes(callback)) return true
  // There is an iterator only where it is what runs, and a getter runs before there is one.
  return (call === 'next' || call === 'return') && (callback === 'getter' || !['iterate', 'next'].includes(outer))
}
