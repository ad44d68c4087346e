'use strict'

// The arguments of DatabaseSync's constructor and of prepare(), checked in node:sqlite's order.

const { invalidArgType, invalidUrlScheme, outOfRange } = require('./errors.js')
const { features } = require('./features.js')
const { foreignHandles } = require('./other-sqlite.js')
const { limitOptions } = require('./limits.js')

/** Bits of the native `open`. */
const READ_ONLY = 1
const FOREIGN_KEYS = 2
const DOUBLE_QUOTED_STRINGS = 4
const DEFENSIVE = 8
const EXTENSIONS = 16

/** What is opened: a string, or bytes where the path was given as bytes. `name` is the argument's. */
function databasePath(path, name = 'path') {
  if (typeof path === 'string') {
    if (!path.includes('\0')) return path
  } else if (path instanceof Uint8Array) {
    // The bytes of a detached array cannot be searched.
    if (path.length === 0 || !path.includes(0)) return path
  } else if (typeof path === 'object' && path !== null) {
    let href
    try {
      href = path.href
    } catch {
      // As in node:sqlite, the same as no href at all.
    }
    if (typeof href === 'string' && !href.includes('\0')) {
      if (!href.startsWith('file:')) throw invalidUrlScheme()
      // SQLite reads file: URLs itself, with their parameters.
      return href
    }
  }
  throw invalidArgType(`The "${name}" argument must be a string, Uint8Array, or URL without null bytes.`)
}

function requireObject(options) {
  if ((typeof options !== 'object' || options === null) && typeof options !== 'function') {
    throw invalidArgType('The "options" argument must be an object.')
  }
}

function boolean(options, name, otherwise) {
  const value = options[name]
  if (value === undefined) return otherwise
  if (typeof value !== 'boolean') {
    throw invalidArgType(`The "options.${name}" argument must be a boolean.`)
  }
  return value
}

/** Whether `value` is an integer as SQLite has them: of 32 bits, and not -0. */
function isInt(value) {
  return typeof value === 'number' && (value | 0) === value && !Object.is(value, -0)
}

function busyTimeout(options) {
  const value = options.timeout
  if (value === undefined) return 0
  if (!isInt(value)) throw invalidArgType('The "options.timeout" argument must be an integer.')
  return Math.max(value, 0)
}

/** The settings of DatabaseSync's `options`, of which there may be none. */
function databaseOptions(given, isGiven) {
  if (isGiven) requireObject(given)
  const options = isGiven ? given : {}
  const open = boolean(options, 'open', true)
  let settings = 0
  if (boolean(options, 'readOnly', false)) settings |= READ_ONLY
  if (boolean(options, 'enableForeignKeyConstraints', true)) settings |= FOREIGN_KEYS
  if (boolean(options, 'enableDoubleQuotedStringLiterals', false)) {
    settings |= DOUBLE_QUOTED_STRINGS
  }
  const allowExtension = boolean(options, 'allowExtension', false)
  if (allowExtension) settings |= EXTENSIONS
  const timeout = busyTimeout(options)
  const readBigInts = boolean(options, 'readBigInts', false)
  const returnArrays = boolean(options, 'returnArrays', false)
  const bareNames = boolean(options, 'allowBareNamedParameters', true)
  const unknownNames = boolean(options, 'allowUnknownNamedParameters', false)
  if (boolean(options, 'defensive', true)) settings |= DEFENSIVE
  const limits = limitOptions(options.limits)
  return {
    open,
    settings,
    timeout,
    // Looked for before it is read: node:sqlite reads no such property, as a getter would notice.
    foreignHandles: foreignHandles('foreignHandles' in options ? options.foreignHandles : undefined),
    allowExtension,
    limits,
    statement: { readBigInts, returnArrays, bareNames, unknownNames },
  }
}

/** The settings of one statement: prepare()'s `options` over those of its database. */
function statementOptions(options, defaults) {
  if (options === undefined) return defaults
  requireObject(options)
  const returnArrays = boolean(options, 'returnArrays', defaults.returnArrays)
  const readBigInts = boolean(options, 'readBigInts', defaults.readBigInts)
  const bareNames = boolean(options, 'allowBareNamedParameters', defaults.bareNames)
  const unknownNames = boolean(options, 'allowUnknownNamedParameters', defaults.unknownNames)
  // A hint to SQLite, which is given it for every statement that is kept.
  if (features.persistentOption) boolean(options, 'persistent', false)
  return { readBigInts, returnArrays, bareNames, unknownNames }
}

function requireString(value, name) {
  if (typeof value !== 'string') throw invalidArgType(`The "options.${name}" argument must be a string.`)
  return value
}

function requireFunction(value, name) {
  if (typeof value !== 'function') throw invalidArgType(`The "options.${name}" argument must be a function.`)
  return value
}

/** What createSession()'s `options`, of which there may be none, ask to be recorded. */
function sessionOptions(options, isGiven) {
  if (!isGiven) return { table: '', db: 'main' }
  requireObject(options)
  // Unlike elsewhere, an own property that is undefined is a mistake.
  const own = (name, otherwise) => (Object.hasOwn(options, name) ? requireString(options[name], name) : otherwise)
  return { table: own('table', ''), db: own('db', 'main') }
}

/** applyChangeset()'s `options`. */
function changesetOptions(options) {
  if (options === undefined) return { onConflict: undefined, filter: undefined }
  requireObject(options)
  let { onConflict } = options
  if (onConflict !== undefined) requireFunction(onConflict, 'onConflict')
  const filter = Object.hasOwn(options, 'filter') ? requireFunction(options.filter, 'filter') : undefined
  return { onConflict, filter }
}

/** The database that deserialize()'s `options` name. */
function deserializeTarget(options) {
  if (options === undefined) return 'main'
  requireObject(options)
  const { dbName } = options
  return dbName === undefined ? 'main' : requireString(dbName, 'dbName')
}

/** createTagStore()'s `maxSize`. */
function tagStoreCapacity(maxSize) {
  if (maxSize === undefined) return 1000
  const message = 'The "maxSize" argument must be a positive integer.'
  if (typeof maxSize !== 'number') throw invalidArgType(message)
  if (!isInt(maxSize) || maxSize <= 0) throw outOfRange(message)
  return maxSize
}

/** backup()'s `options`, of which there may be none. */
function backupOptions(given, isGiven) {
  if (isGiven) requireObject(given)
  const options = isGiven ? given : {}
  const { rate = 100 } = options
  if (!isInt(rate)) throw invalidArgType('The "options.rate" argument must be an integer.')
  if (rate <= 0) throw outOfRange('The "options.rate" argument must be a positive integer.')
  const { source = 'main' } = options
  requireString(source, 'source')
  const { target = 'main' } = options
  requireString(target, 'target')
  const { progress } = options
  if (progress !== undefined) requireFunction(progress, 'progress')
  return { rate, source, target, progress }
}

module.exports = {
  DEFENSIVE,
  DOUBLE_QUOTED_STRINGS,
  EXTENSIONS,
  FOREIGN_KEYS,
  READ_ONLY,
  boolean,
  requireObject,
  backupOptions,
  changesetOptions,
  deserializeTarget,
  sessionOptions,
  tagStoreCapacity,
  databaseOptions,
  databasePath,
  statementOptions,
}
