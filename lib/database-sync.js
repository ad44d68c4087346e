'use strict'

// What few programs use (sessions, tag stores, functions) is required where it is used: a process
// pays for it then.

const { types } = require('node:util')
const { binding } = require('./native.js')
const {
  constructCallRequired,
  extensionsForbidden,
  illegalInvocation,
  invalidArgType,
  invalidArgValue,
  invalidState,
} = require('./errors.js')
const { checkForeign } = require('./other-sqlite.js')
const { features } = require('./features.js')
const { kClosable, kClose, kNumber, kOpen } = require('./internal.js')
const { applyLimits, makeLimits } = require('./limits.js')
const { faceOf } = require('./class-facade.js')
const {
  changesetOptions,
  databaseOptions,
  databasePath,
  deserializeTarget,
  sessionOptions,
  statementOptions,
  tagStoreCapacity,
} = require('./options.js')
const { Connection } = require('./statement-cache.js')
const { channel, publish, trace } = require('./queries.js')
const { ints } = require('./report.js')
const { makeStatement } = require('./statement-sync.js')
const { warnOfNetwork } = require('./network.js')

/** Libraries recognise node:sqlite's objects by this symbol. Ours stand in for them. */
const kSqliteType = Symbol.for('sqlite-type')

/** Scripts of one statement that are run often: each connection prepares them once. */
const FREQUENT = new Set(['BEGIN', 'BEGIN IMMEDIATE', 'COMMIT'])

class Database {
  #path
  #options
  /** Opens the connection: see kOpen. */
  #opener
  /** Null while the database is not open. */
  #connection = null
  /** Whether loadExtension() may be called. */
  #extensions
  #limits = null

  constructor(args) {
    this.#path = databasePath(args[0])
    this.#options = databaseOptions(args[1], args.length > 1)
    this.#opener = args[2]?.[kOpen] ?? binding.open
    this.#extensions = this.#options.allowExtension
    Object.defineProperties(this, accessors)
    this[kSqliteType] = 'node:sqlite'
    // As in node:sqlite, not what a subclass has in place of open(): that one's fields are not
    // there yet.
    if (this.#options.open) Database.#open(this)
  }

  open() {
    Database.#open(this)
  }

  close() {
    Database.#close(this)
  }

  prepare(sql, options) {
    Database.#openConnectionOf(this)
    if (typeof sql !== 'string') throw invalidArgType('The "sql" argument must be a string.')
    const settings = statementOptions(options, this.#options.statement)
    // The getters of `options` may have closed or deserialized the database.
    return makeStatement(Database.#openConnectionOf(this), sql, settings)
  }

  exec(sql) {
    const connection = Database.#openConnectionOf(this)
    if (typeof sql !== 'string') throw invalidArgType('The "sql" argument must be a string.')
    if (channel.hasSubscribers !== connection.traced) trace(connection)
    const kept = FREQUENT.has(sql) && connection.authorizer === null ? connection.prepared(sql) : undefined
    let flags
    try {
      if (kept === undefined) binding.exec(connection.number, sql)
      else binding.run(kept.number)
    } finally {
      flags = ints[0]
      if (connection.traced) publish(connection)
      if (flags !== 0) connection.applyReport(flags, kept)
    }
  }

  location(dbName) {
    const connection = Database.#openConnectionOf(this)
    if (dbName === undefined) dbName = 'main'
    if (typeof dbName !== 'string') {
      throw invalidArgType('The "dbName" argument must be a string.')
    }
    return binding.location(connection.number, dbName)
  }

  createSession(...args) {
    // Before 26.10 the one method that looks at its arguments first.
    if (Database.#connectionOf(this) === null && features.sessionNeedsOpen) throw invalidState('database is not open')
    const { table, db } = sessionOptions(args[0], args.length > 0)
    const connection = Database.#openConnectionOf(this)
    return require('./session.js').makeSession(this, connection, binding.createSession(connection.number, table, db))
  }

  applyChangeset(changeset, options) {
    Database.#openConnectionOf(this)
    if (!types.isUint8Array(changeset)) throw invalidArgType('The "changeset" argument must be a Uint8Array.')
    const { onConflict, filter } = changesetOptions(options)
    // The getters of `options` may have closed the database.
    const connection = Database.#openConnectionOf(this)
    return connection.published(() => {
      try {
        return binding.applyChangeset(connection.number, changeset, onConflict, filter)
      } finally {
        if (ints[0] !== 0) connection.applyReport(ints[0])
      }
    })
  }

  serialize(dbName) {
    const connection = Database.#openConnectionOf(this)
    if (dbName === undefined) dbName = 'main'
    if (typeof dbName !== 'string') throw invalidArgType('The "dbName" argument must be a string.')
    return connection.published(() => binding.serialize(connection.number, dbName))
  }

  deserialize(buffer, options) {
    Database.#openConnectionOf(this)
    if (!types.isUint8Array(buffer)) throw invalidArgType('The "buffer" argument must be a Uint8Array.')
    if (buffer.length === 0) throw invalidArgValue('The "buffer" argument must not be empty.')
    // Copied before the getters of `options` run, which may detach it.
    const content = options === undefined ? buffer : new Uint8Array(buffer)
    const { length } = buffer
    const dbName = deserializeTarget(options)
    if (buffer.length !== length && features.resizeRefused) {
      throw invalidState('The "buffer" argument was resized while reading "options"')
    }
    const connection = Database.#openConnectionOf(this).succeed()
    this.#connection = connection
    connection.published(() => binding.deserialize(connection.number, content, dbName))
  }

  createTagStore(maxSize) {
    Database.#openConnectionOf(this)
    return require('./tag-store.js').makeTagStore(this, tagStoreCapacity(maxSize), this.#options.statement, () =>
      Database.#openConnectionOf(this),
    )
  }

  function(...args) {
    require('./functions.js').defineFunction(() => Database.#openConnectionOf(this), args)
  }

  aggregate(...args) {
    require('./functions.js').defineAggregate(() => Database.#openConnectionOf(this), args)
  }

  setAuthorizer(callback) {
    const connection = Database.#openConnectionOf(this)
    if (callback !== null && typeof callback !== 'function') {
      throw invalidArgType('The "callback" argument must be a function or null.')
    }
    connection.authorize(callback)
  }

  enableLoadExtension(allow) {
    const connection = Database.#openConnectionOf(this)
    if (typeof allow !== 'boolean') throw invalidArgType('The "allow" argument must be a boolean.')
    if (allow && !this.#options.allowExtension) {
      throw invalidState('Cannot enable extension loading because it was disabled at database creation.')
    }
    binding.enableLoadExtension(connection.number, allow)
    this.#extensions = allow
  }

  loadExtension(path, entryPoint) {
    const connection = Database.#openConnectionOf(this)
    if (!this.#extensions) throw invalidState('extension loading is not allowed')
    if (typeof path !== 'string') throw invalidArgType('The "path" argument must be a string.')
    try {
      if (typeof entryPoint === 'string') binding.loadExtension(connection.number, path, entryPoint)
      else binding.loadExtension(connection.number, path)
    } finally {
      // Its functions may take the place of others.
      connection.forget()
    }
  }

  enableDefensive(active) {
    const connection = Database.#openConnectionOf(this)
    if (typeof active !== 'boolean') throw invalidArgType('The "active" argument must be a boolean.')
    binding.enableDefensive(connection.number, active)
    connection.forget()
  }

  [Symbol.dispose]() {
    const connection = Database.#connectionOf(this)
    // As in node:sqlite, nothing in a callback.
    if (connection !== null && connection.isIdle) this[kClose]()
  }

  [kClose]() {
    Database.#close(this)
  }

  [kClosable]() {
    Database.#openConnectionOf(this).requireIdle('database cannot be closed while in a callback')
  }

  [kNumber]() {
    return Database.#openConnectionOf(this).number
  }

  static #open(database) {
    if (Database.#connectionOf(database) !== null) throw invalidState('database is already open')
    const { allowExtension, settings, timeout, foreignHandles, limits } = database.#options
    const opener = database.#opener
    const number = opener(database.#path, settings, timeout)
    try {
      // Node has process.permission under its permission model only.
      if (allowExtension && process.permission !== undefined) throw extensionsForbidden()
      checkForeign(number, foreignHandles)
      // A hardened database refuses such a file system, or was allowed to use it.
      if (opener === binding.open) warnOfNetwork(number)
    } catch (error) {
      binding.close(number)
      throw error
    }
    const connection = new Connection(number, database)
    applyLimits(connection, limits)
    database.#connection = connection
  }

  static #close(database) {
    Database.#openConnectionOf(database).close()
    database.#connection = null
  }

  static #connectionOf(database) {
    if (typeof database !== 'object' || database === null || !(#connection in database)) {
      throw illegalInvocation()
    }
    return database.#connection
  }

  static #openConnectionOf(database) {
    const connection = Database.#connectionOf(database)
    if (connection === null) throw invalidState('database is not open')
    return connection
  }

  /** The open connection of `database`, or undefined if that is no DatabaseSync. */
  static connection(database) {
    if (typeof database !== 'object' || database === null || !(#connection in database)) return undefined
    return Database.#openConnectionOf(database)
  }

  static isOpen(database) {
    return Database.#connectionOf(database) !== null
  }

  static limits(database) {
    const connection = Database.#openConnectionOf(database)
    database.#limits ??= makeLimits(
      () => Database.#openConnectionOf(database),
      () => database.#connection !== null,
    )
    return database.#limits.at(connection)
  }

  static isTransaction(database) {
    return binding.isTransaction(Database.#openConnectionOf(database).number)
  }
}

/** Own properties of each database, as in node:sqlite. */
const accessors = {
  isOpen: {
    get() {
      return Database.isOpen(this)
    },
    enumerable: true,
  },
  isTransaction: {
    get() {
      return Database.isTransaction(this)
    },
    enumerable: true,
  },
  limits: {
    get() {
      return Database.limits(this)
    },
    enumerable: true,
  },
}

const DatabaseSync = faceOf(Database, 'DatabaseSync', function (...args) {
  if (new.target === undefined) throw constructCallRequired()
  return Reflect.construct(Database, [args], new.target)
})
for (const key of [kClosable, kClose, kNumber]) Object.defineProperty(Database.prototype, key, { enumerable: false })

module.exports = { DatabaseSync, connectionOf: Database.connection }
