'use strict'

// fileInfo(path): what can be said of a database file without changing it.

const { filePath } = require('./file-path.js')
const { runTask, taskOptions } = require('./task.js')

/** See index.d.ts. */
async function fileInfo(path, options) {
  return runTask('fileInfo', { path: filePath(path) }, taskOptions(options))
}

module.exports = { fileInfo }
