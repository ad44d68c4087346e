'use strict'

// fileInfo(path): what can be said of a database file without changing it.

const { keepCopies } = require('./option-checks.js')
const { filePath } = require('./file-path.js')
const { runTask, taskOptions } = require('./task.js')

/** See index.d.ts. */
async function fileInfo(path, options) {
  const watch = taskOptions(options, ['keepCopies'])
  return runTask('fileInfo', { path: filePath(path), keepCopies: keepCopies(options ?? {}) }, watch)
}

module.exports = { fileInfo }
