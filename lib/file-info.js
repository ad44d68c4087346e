'use strict'

// fileInfo(path): what can be said of a database file without changing it.

const { databasePath } = require('./options.js')
const { runTask, taskOptions } = require('./task.js')

/** A path as text. */
function pathText(path) {
  const file = databasePath(path)
  return typeof file === 'string' ? file : Buffer.from(file).toString()
}

/** See index.d.ts. */
async function fileInfo(path, options) {
  return runTask('fileInfo', { path: pathText(path) }, taskOptions(options))
}

module.exports = { fileInfo, pathText }
