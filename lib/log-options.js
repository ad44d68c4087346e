'use strict'

// Options of HardenedDatabase and appendAgentLogs: their defaults, and their checks.

const { scheduleOptions } = require('./backup-files.js')
const { KEEP_COPIES, flag, integer } = require('./option-checks.js')
const { invalidArgType, invalidArgValue, outOfRange } = require('./errors.js')
const {
  DEFENSIVE,
  DOUBLE_QUOTED_STRINGS,
  EXTENSIONS,
  FOREIGN_KEYS,
  READ_ONLY,
  databaseOptions,
} = require('./options.js')

const MIB = 1024 * 1024

/** Name, default, smallest, largest. Durations are in milliseconds, sizes in bytes. */
const NUMBERS = [
  ['busyTimeout', 5000, 0, 2 ** 31 - 1],
  ['journalSizeLimit', 4 * MIB, 0, 2 ** 40],
  ['batchRows', 1000, 1, 1_000_000],
  ['batchBytes', MIB, 1, 256 * MIB],
  ['linger', 500, 0, 60_000],
  ['awaitedLinger', 0, 0, 60_000],
  ['queueBytes', 64 * MIB, 1024, 4096 * MIB],
  ['retryDeadline', 60_000, 0, 2 ** 31 - 1],
  ['checkpointFrames', 100, 1, 2 ** 31 - 1],
  ['checkpointIdle', 2000, 10, 2 ** 31 - 1],
  ['checkpointInterval', 300_000, 10, 2 ** 31 - 1],
  ['closeTimeout', 5000, 0, 2 ** 31 - 1],
  ['keepCopies', KEEP_COPIES, 1, 2 ** 31 - 1],
]
const BOOLEANS = [
  ['foreignKeys', true],
  ['mustExist', false],
  ['flushBeforeReads', false],
  ['allowHardLinks', false],
  ['allowNetworkFileSystem', false],
  ['createTable', false],
]
const STARTUP_CHECKS = ['quick', 'full', 'background', 'off']
const ON_CORRUPTION = ['recover', 'throw', 'report']
const JOURNAL_MODES = ['wal', 'keep']
const SYNCHRONOUS = ['NORMAL', 'FULL', 'EXTRA']
/** Options by which a file's one writer works: a second handle may not ask for others. */
const OF_THE_WRITER = new Set([
  'journalSizeLimit',
  'batchRows',
  'batchBytes',
  'linger',
  'awaitedLinger',
  'queueBytes',
  'retryDeadline',
  'checkpointFrames',
  'checkpointIdle',
  'checkpointInterval',
  'keepCopies',
  'synchronous',
  'changeCounter',
  'columns',
  'createTable',
  'foreignKeys',
  'enableForeignKeyConstraints',
  'enableDoubleQuotedStringLiterals',
  'journalMode',
  'allowHardLinks',
  'allowNetworkFileSystem',
])
/** Options of DatabaseSync, which checks them, that the profile or the log has a use for as well. */
const OF_BOTH = ['timeout', 'enableForeignKeyConstraints', 'enableDoubleQuotedStringLiterals']
/** Those of a handle alone. */
const OF_DATABASE_SYNC = [
  'open',
  'readOnly',
  'defensive',
  'allowExtension',
  'limits',
  'readBigInts',
  'returnArrays',
  'allowBareNamedParameters',
  'allowUnknownNamedParameters',
  'foreignHandles',
]

/** Every option that is the log's, the profile's or the opening's. */
const OWN = new Set([
  ...[...NUMBERS, ...BOOLEANS].map(([name]) => name),
  'synchronous',
  'journalMode',
  'changeCounter',
  'columns',
  'startupCheck',
  'onCorruption',
  'backups',
])
const ALL = new Set([...OWN, ...OF_BOTH, ...OF_DATABASE_SYNC])
/** Those that mean nothing without a handle. */
const OF_A_HANDLE = new Set([
  'closeTimeout',
  'startupCheck',
  'backups',
  'mustExist',
  'flushBeforeReads',
  ...OF_DATABASE_SYNC,
])

/** Columns that every entry has a value for, or may have. */
const FIELDS = ['taskId', 'timestamp', 'text', 'type', 'detail', 'agent']

/** The option `columns`, checked. SQLite ignores the case of ASCII letters in a column's name. */
function furtherColumns(given) {
  if (given === undefined) return []
  if (!Array.isArray(given)) throw invalidArgType('The "options.columns" argument must be an array of strings.')
  const names = new Set(FIELDS.map((field) => field.toLowerCase()))
  for (const name of given) {
    if (typeof name !== 'string' || name === '' || name.includes('\0')) {
      throw invalidArgType('The "options.columns" argument must hold non-empty strings without null bytes.')
    }
    const lower = name.replace(/[A-Z]/g, (letter) => letter.toLowerCase())
    if (names.has(lower)) throw outOfRange(`"options.columns" names ${name}, which is written already.`)
    names.add(lower)
  }
  return [...given]
}

/** Sets `options[own]` from node:sqlite's option `other`, of the value `value`; both may be given, if they agree. */
function alias(given, options, own, other, value) {
  if (given[other] === undefined) return
  if (given[own] !== undefined && given[own] !== null && options[own] !== value) {
    throw invalidArgValue(`"options.${other}" and "options.${own}" are two names of one option, and differ.`)
  }
  options[own] = value
}

/** The options given, checked, over the defaults; with `hasHandle` false those of appendAgentLogs(). */
function logOptions(given, hasHandle = true) {
  if (given === undefined) given = {}
  // All of node:sqlite's options, and that these are options at all, are checked as there.
  const { open, settings, timeout } = databaseOptions(given, true)
  const options = {}
  const base = {}
  let explicitOptions = false
  for (const name of Object.keys(given)) {
    if (!hasHandle && OF_A_HANDLE.has(name)) {
      throw invalidArgType(`"options.${name}" is no option of appendAgentLogs(): it is one of a HardenedDatabase.`)
    }
    if (!ALL.has(name)) {
      throw invalidArgType(
        `"options.${name}" is no option of HardenedDatabase: the options are ${[...ALL].join(', ')}.`,
      )
    }
    if (OF_THE_WRITER.has(name) && given[name] !== undefined) explicitOptions = true
  }
  for (const [name, ...range] of NUMBERS) options[name] = integer(given, name, ...range)
  for (const [name, otherwise] of BOOLEANS) options[name] = flag(given, name, otherwise)
  for (const name of OF_DATABASE_SYNC) if (name in given) base[name] = given[name]
  base.open = open
  alias(given, options, 'busyTimeout', 'timeout', timeout)
  alias(given, options, 'foreignKeys', 'enableForeignKeyConstraints', (settings & FOREIGN_KEYS) !== 0)
  options.readOnly = (settings & READ_ONLY) !== 0
  options.doubleQuotedStrings = (settings & DOUBLE_QUOTED_STRINGS) !== 0
  options.defensive = (settings & DEFENSIVE) !== 0
  options.allowExtension = (settings & EXTENSIONS) !== 0
  options.journalMode = given.journalMode ?? undefined
  if (options.journalMode !== undefined && !JOURNAL_MODES.includes(options.journalMode)) {
    throw outOfRange(`"options.journalMode" must be one of ${JOURNAL_MODES.join(', ')}.`)
  }
  options.synchronous = given.synchronous ?? 'NORMAL'
  if (!SYNCHRONOUS.includes(options.synchronous)) {
    throw outOfRange(`"options.synchronous" must be one of ${SYNCHRONOUS.join(', ')}.`)
  }
  options.startupCheck = given.startupCheck
  if (options.startupCheck !== undefined && !STARTUP_CHECKS.includes(options.startupCheck)) {
    throw outOfRange(`"options.startupCheck" must be one of ${STARTUP_CHECKS.join(', ')}.`)
  }
  options.onCorruption = given.onCorruption ?? 'recover'
  if (!ON_CORRUPTION.includes(options.onCorruption)) {
    throw outOfRange(`"options.onCorruption" must be one of ${ON_CORRUPTION.join(', ')}.`)
  }
  options.changeCounter = given.changeCounter === undefined ? 'lastModified' : given.changeCounter
  if (options.changeCounter !== null && typeof options.changeCounter !== 'string') {
    throw invalidArgType('The "options.changeCounter" argument must be a string or null.')
  }
  // A key that is asked for must have its table; the default is for databases that have one.
  options.needsCounter = typeof given.changeCounter === 'string'
  options.columns = furtherColumns(given.columns)
  options.backups = scheduleOptions(given.backups)
  return { options, base, explicitOptions }
}

/** The profile's part, in the order in which src/node/agent_log.rs reads it. */
function profileArguments(options) {
  return [
    options.busyTimeout,
    options.synchronous,
    options.journalSizeLimit,
    options.allowHardLinks,
    options.allowNetworkFileSystem,
    (options.foreignKeys ? 1 : 0) |
      (options.doubleQuotedStrings ? 2 : 0) |
      (options.defensive ? 4 : 0) |
      (options.journalMode === 'keep' ? 8 : 0),
  ]
}

/** What the native openHardened takes after the path. */
function openingArguments(options) {
  const how =
    (options.readOnly ? 1 : 0) |
    (options.mustExist ? 2 : 0) |
    (options.journalMode === 'wal' ? 4 : 0) |
    (options.allowExtension ? 8 : 0)
  return [how, ...profileArguments(options)]
}

/** The log's part, likewise. */
function logArguments(options) {
  return [
    options.batchRows,
    options.batchBytes,
    options.linger,
    options.awaitedLinger,
    options.queueBytes,
    options.retryDeadline,
    options.changeCounter,
    options.checkpointFrames,
    options.checkpointIdle,
    options.checkpointInterval,
    ...profileArguments(options),
    options.onCorruption === 'recover',
    options.needsCounter,
    options.createTable,
    options.columns.join('\0'),
    options.keepCopies,
  ]
}

module.exports = { logArguments, logOptions, openingArguments }
