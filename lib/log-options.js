'use strict'

// Options of HardenedDatabase and appendAgentLogs: their defaults, and their checks.

const { scheduleOptions } = require('./backups.js')
const { invalidArgType, outOfRange } = require('./errors.js')

const MIB = 1024 * 1024

/** Name, default, smallest, largest. Durations are in milliseconds, sizes in bytes. */
const NUMBERS = [
  ['busyTimeout', 5000, 0, 2 ** 31 - 1],
  ['journalSizeLimit', 4 * MIB, 0, 2 ** 40],
  ['batchRows', 1000, 1, 1_000_000],
  ['batchBytes', MIB, 1, 256 * MIB],
  ['linger', 500, 0, 60_000],
  ['awaitedLinger', 5, 0, 60_000],
  ['queueBytes', 64 * MIB, 1024, 4096 * MIB],
  ['retryDeadline', 60_000, 0, 2 ** 31 - 1],
  ['checkpointFrames', 100, 1, 2 ** 31 - 1],
  ['checkpointIdle', 2000, 10, 2 ** 31 - 1],
  ['checkpointInterval', 300_000, 10, 2 ** 31 - 1],
  ['closeTimeout', 5000, 0, 2 ** 31 - 1],
]
const BOOLEANS = [
  ['readOnly', false],
  ['foreignKeys', true],
  ['allowHardLinks', false],
  ['allowNetworkFileSystem', false],
]
const STARTUP_CHECKS = ['quick', 'full', 'background', 'off']
const ON_CORRUPTION = ['recover', 'throw', 'report']
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
  'synchronous',
  'changeCounter',
  'foreignKeys',
  'allowHardLinks',
  'allowNetworkFileSystem',
])
/** What DatabaseSync's constructor checks itself. */
const OF_DATABASE_SYNC = new Set([
  'open',
  'readBigInts',
  'returnArrays',
  'allowBareNamedParameters',
  'allowUnknownNamedParameters',
  'foreignHandles',
])
/** What node:sqlite calls differently, and what the profile decides. */
const ELSEWHERE = {
  timeout: 'busyTimeout',
  enableForeignKeyConstraints: 'foreignKeys',
  enableDoubleQuotedStringLiterals: null,
  defensive: null,
  allowExtension: null,
  limits: null,
}

function unknown(name) {
  if (name in ELSEWHERE) {
    const other = ELSEWHERE[name]
    return other === null ? `the hardened profile decides it` : `it is called "${other}" here`
  }
  const known = [...NUMBERS, ...BOOLEANS].map(([option]) => option)
  known.push('synchronous', 'changeCounter', 'startupCheck', 'onCorruption', 'backups', ...OF_DATABASE_SYNC)
  return `the options are ${known.join(', ')}`
}

/** The options given, checked, over the defaults. */
function logOptions(given) {
  if (given === undefined) given = {}
  if (typeof given !== 'object' || given === null) {
    throw invalidArgType('The "options" argument must be an object.')
  }
  const options = {}
  const base = { open: true }
  let insists = false
  for (const name of Object.keys(given)) {
    if (OF_DATABASE_SYNC.has(name)) base[name] = given[name]
    else if (
      name !== 'synchronous' &&
      name !== 'changeCounter' &&
      name !== 'startupCheck' &&
      name !== 'onCorruption' &&
      name !== 'backups' &&
      ![...NUMBERS, ...BOOLEANS].some(([option]) => option === name)
    ) {
      throw invalidArgType(`"options.${name}" is no option of HardenedDatabase: ${unknown(name)}.`)
    }
    if (OF_THE_WRITER.has(name) && given[name] !== undefined) insists = true
  }
  for (const [name, otherwise, smallest, largest] of NUMBERS) {
    const value = given[name] ?? otherwise
    if (typeof value !== 'number') {
      throw invalidArgType(`The "options.${name}" argument must be a number.`)
    }
    if (!Number.isInteger(value) || value < smallest || value > largest) {
      throw outOfRange(
        `The value of "options.${name}" is out of range. ` +
          `It must be an integer from ${smallest} to ${largest}. Received ${value}`,
      )
    }
    options[name] = value
  }
  for (const [name, otherwise] of BOOLEANS) {
    const value = given[name] ?? otherwise
    if (typeof value !== 'boolean') {
      throw invalidArgType(`The "options.${name}" argument must be a boolean.`)
    }
    options[name] = value
  }
  if (base.open === undefined) base.open = true
  if (typeof base.open !== 'boolean') {
    throw invalidArgType('The "options.open" argument must be a boolean.')
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
  options.backups = scheduleOptions(given.backups)
  return { options, base, insists }
}

/** The profile's part, in the order in which src/node/agent_log.rs reads it. */
function profileArguments(options) {
  return [
    options.busyTimeout,
    options.synchronous,
    options.journalSizeLimit,
    options.allowHardLinks,
    options.allowNetworkFileSystem,
    options.foreignKeys,
  ]
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
  ]
}

module.exports = { logArguments, logOptions, profileArguments }
