'use strict'

// Checks of a file, off this thread. See src/health.

const { invalidArgType } = require('./errors.js')
const { filePath } = require('./file-path.js')
const { Awaitable, runTask, taskOptions } = require('./task.js')

const KINDS = ['quick', 'full']

/** The arguments of a check, checked. `closing` is the signal that the caller's database is closed. */
function checkArguments(path, options = {}, closing = undefined) {
  const watch = taskOptions(options, ['kind'])
  const { kind = 'full' } = options
  if (!KINDS.includes(kind)) throw invalidArgType(`The "options.kind" argument must be one of ${KINDS.join(', ')}.`)
  if (closing !== undefined) {
    watch.signal = watch.signal === undefined ? closing : AbortSignal.any([watch.signal, closing])
  }
  return [{ path, kind }, watch]
}

/** Checks a file. An awaited promise keeps the process alive. */
function checkFile(path, options, closing) {
  return Awaitable.of(async (started) =>
    runTask('check', ...checkArguments(filePath(path), options, closing), false, started),
  )
}

/** See index.d.ts. */
function check(path, options) {
  return checkFile(path, options)
}

/** Checks a file without keeping the process alive. */
function checkInBackground(path, closing) {
  return runTask('check', ...checkArguments(path, { kind: 'quick' }, closing), false)
}

module.exports = { check, checkFile, checkInBackground }
