'use strict'

// Checks of a file, off this thread. See src/health.

const { invalidArgType } = require('./errors.js')
const { databasePath } = require('./options.js')
const { runTask, taskOptions } = require('./task.js')

const KINDS = ['quick', 'full']

/**
 * Checks the file at `path`. `closing` is the signal that the caller's database is closed.
 * @param {boolean} keepsAlive whether the check keeps the process alive unless the options say so
 */
async function checkFile(path, options = {}, keepsAlive = true, closing = undefined) {
  const watch = taskOptions(options)
  const { kind = 'full', keepAlive = keepsAlive } = options
  if (!KINDS.includes(kind)) throw invalidArgType(`The "options.kind" argument must be one of ${KINDS.join(', ')}.`)
  if (typeof keepAlive !== 'boolean') throw invalidArgType('The "options.keepAlive" argument must be a boolean.')
  if (closing !== undefined) {
    watch.signal = watch.signal === undefined ? closing : AbortSignal.any([watch.signal, closing])
  }
  return runTask('check', { path, kind }, watch, keepAlive)
}

/** See index.d.ts. */
async function check(path, options) {
  const file = databasePath(path)
  return checkFile(typeof file === 'string' ? file : Buffer.from(file).toString(), options)
}

module.exports = { check, checkFile }
