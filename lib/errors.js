'use strict'

// Errors as Node makes them: a plain class of JavaScript with an own `code`. Names and SQLite's
// lines in a message are escaped (./shown.js); `path` is exact.

const { shown } = require('./shown.js')

function withCode(error, code) {
  error.code = code
  return error
}

/** An argument of the wrong type. */
function invalidArgType(message) {
  return withCode(new TypeError(message), 'ERR_INVALID_ARG_TYPE')
}

/** An argument of the right type that makes no sense. */
function invalidArgValue(message) {
  return withCode(new TypeError(message), 'ERR_INVALID_ARG_VALUE')
}

/** An argument of the right type with an impossible value. */
function outOfRange(message) {
  return withCode(new RangeError(message), 'ERR_OUT_OF_RANGE')
}

/** A call that the object's state does not allow. */
function invalidState(message) {
  return withCode(new Error(message), 'ERR_INVALID_STATE')
}

/** Extensions, asked for in a process that runs under Node's permission model. */
function extensionsForbidden() {
  const message = 'Cannot load SQLite extensions when the permission model is enabled.'
  return withCode(new Error(message), 'ERR_LOAD_SQLITE_EXTENSION')
}

/** A method called on an object that is not of its class. */
function illegalInvocation() {
  return new TypeError('Illegal invocation')
}

/** A class whose objects only this package makes. */
function illegalConstructor() {
  return withCode(new Error('Illegal constructor'), 'ERR_ILLEGAL_CONSTRUCTOR')
}

/** A class called without `new`. */
function constructCallRequired() {
  return withCode(new TypeError('Cannot call constructor without `new`'), 'ERR_CONSTRUCT_CALL_REQUIRED')
}

/** A URL that does not lead to a file. */
function invalidUrlScheme() {
  return withCode(new TypeError('The URL must be of scheme file:'), 'ERR_INVALID_URL_SCHEME')
}

/** A second open of a file that asks for another way of writing than the first. */
function optionsConflict(path) {
  const error = new Error(
    'this process already has a log open on this file, with other options. The first open decides ' +
      "for the file's one writer: use the same options everywhere.",
  )
  return Object.assign(withCode(error, 'ERR_FUSION_OPTIONS_CONFLICT'), { path })
}

/** `code` of a repair that was not written, because SQLite can read more of the original. */
const LOSS = 'ERR_FUSION_LOSS'

const CORRUPT = { errcode: 11, errstr: 'database disk image is malformed' }
const NOTADB = { errcode: 26, errstr: 'file is not a database' }

/** What to do about a file, by what is wrong with it. */
function advice(path, health) {
  const has = (type) => health.findings.some((finding) => finding.type === type)
  if (has('notADatabase')) {
    return 'Check the path; if this was the database, keep it with its -wal, and recover it or restore a backup'
  }
  if (has('staleWal')) {
    return 'The -wal can be put aside only while no other process has the database open: close it in every process'
  }
  if (has('unclearWal')) {
    return (
      'The -wal may hold commits that are nowhere else: keep both files together. To put it aside and go on ' +
      `without it: npx fusion-sqlite doctor ${path}`
    )
  }
  if (has('replaced')) return 'Close the database in every process before it is opened again'
  return `Keep the file and its -wal together. To see what is wrong and repair it: npx fusion-sqlite doctor ${path}`
}

/**
 * A file that is damaged, as `health` says; `cause` is the error that said so first, if one did.
 * Where a repair was not written because of what it would have lost, `cause` has the comparison,
 * and so has this error.
 */
function damaged(path, health, cause) {
  const isNone = health?.findings.some((finding) => finding.type === 'notADatabase')
  const { errcode, errstr } = cause ?? (isNone ? NOTADB : CORRUPT)
  const text = isNone ? 'it is not a SQLite database, or its first page was overwritten' : health?.text
  const message =
    `the database is damaged, and nothing was written to it: ${text || cause?.message}. ` +
    `${advice(path, health ?? { findings: [] })}.`
  const error = new Error(shown(message), cause === undefined ? undefined : { cause })
  const comparison = cause?.comparison
  return Object.assign(withCode(error, 'ERR_FUSION_DAMAGED'), {
    errcode,
    errstr,
    path,
    health,
    ...(comparison !== undefined && { comparison }),
  })
}

/** The same of a file that was not repaired, because of `cause`. */
function unrepaired(path, health, cause) {
  const error = damaged(path, health)
  // A loss is a person's to decide: it could be repaired.
  const why = cause.code === LOSS ? 'It was not repaired' : 'It could not be repaired'
  error.message += ` ${why}: ${shown(cause.message)}`
  error.cause = cause
  if (cause.comparison !== undefined) error.comparison = cause.comparison
  return error
}

/** A damaged file whose repair met another connection's lock: `cause`. Trying again may help. */
function inUse(path, health, cause) {
  const message =
    `the database is damaged, and could not be repaired while it is in use; nothing was changed: ${health.text}. ` +
    `What was in the way: ${cause.message}. End the process that holds the lock, or have it close the database, and ` +
    `open it again. Who that is: npx fusion-sqlite info ${path}; what is damaged: npx fusion-sqlite doctor ${path}.`
  const { errcode, errstr } = cause
  return Object.assign(withCode(new Error(shown(message), { cause }), cause.code), { errcode, errstr, path, health })
}

module.exports = {
  LOSS,
  constructCallRequired,
  damaged,
  extensionsForbidden,
  illegalConstructor,
  illegalInvocation,
  inUse,
  invalidArgType,
  invalidArgValue,
  invalidState,
  invalidUrlScheme,
  optionsConflict,
  outOfRange,
  unrepaired,
}
