'use strict'

// The file that an argument names: for what works on files, and not through a connection.

const { fileURLToPath } = require('node:url')
const { invalidArgType } = require('./errors.js')
const { databasePath } = require('./options.js')

/** A path as `databasePath` answers it, as text. */
function pathText(path) {
  return typeof path === 'string' ? path : Buffer.from(path).toString()
}

/**
 * The file that a path given to SQLite names; null where it names none, or takes parameters.
 * @param {string} path
 */
function fileOf(path) {
  if (path === '' || path === ':memory:') return null
  if (!path.startsWith('file:')) return path
  try {
    const url = new URL(path)
    return path.startsWith('file:///') && url.search === '' && url.hash === '' ? fileURLToPath(url) : null
  } catch {
    return null
  }
}

/** The file that the argument `name` names; throws where it names none. */
function filePath(path, name = 'path') {
  const file = fileOf(pathText(databasePath(path, name)))
  if (file !== null) return file
  throw invalidArgType(`The "${name}" argument must be the path or the file: URL of a file, without parameters.`)
}

module.exports = { fileOf, filePath, pathText }
