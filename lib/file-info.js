'use strict'

// fileInfo(path): what can be said of a database file without changing it.

const { invalidArgType } = require('./errors.js')
const { runTask, taskOptions } = require('./task.js')

/** See index.d.ts. */
async function fileInfo(path) {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw invalidArgType('The "path" argument must be a non-empty string without null bytes.')
  }
  return runTask('fileInfo', { path }, taskOptions())
}

module.exports = { fileInfo }
