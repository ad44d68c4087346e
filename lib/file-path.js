'use strict'

// The file that an argument names. A relative path is of the directory that is current when a call is
// made, whenever and on whatever thread the work is done: everything resolves its paths here.

const { isAbsolute, resolve } = require('node:path')
const { fileURLToPath, pathToFileURL } = require('node:url')
const { invalidArgType, invalidArgValue, invalidState } = require('./errors.js')
const { databasePath } = require('./options.js')
const { shown } = require('./shown.js')

/** A `file:` URI of SQLite's that names no file: nothing in it is of a directory. */
const WITHOUT_FILE = /^file:(\/\/[^/]*)?(:memory:|[^?#]*\?[^#]*\b(mode=memory|vfs=))/

/** `text` in the current directory. Only Windows may lose its `..`: elsewhere what is before may be a link. */
function absolute(text) {
  if (isAbsolute(text)) return text
  return process.platform === 'win32' ? resolve(text) : `${folder()}${text.replace(/^(\.\/+)+/, '')}`
}

/** The current directory, with its slash. */
function folder() {
  const current = process.cwd()
  return current.endsWith('/') ? current : `${current}/`
}

function absoluteUri(uri) {
  if (uri.startsWith('file:/') || WITHOUT_FILE.test(uri)) return uri
  return `${pathToFileURL(`${process.cwd()}/`).href}${uri.slice('file:'.length)}`
}

/**
 * What `path`, of a kind that node:sqlite takes, names from now on: text, or bytes where they are no text.
 * A URL without parameters becomes the path of its file.
 * @returns {string | Buffer}
 */
function resolvedPath(path, name = 'path') {
  const given = databasePath(path, name)
  let text = given
  if (typeof given !== 'string') {
    const bytes = Buffer.from(given)
    text = bytes.toString()
    if (!Buffer.from(text).equals(bytes)) {
      return bytes[0] === 0x2f || process.platform === 'win32' ? bytes : Buffer.concat([Buffer.from(folder()), bytes])
    }
  }
  if (text === '' || text === ':memory:') return text
  if (!text.startsWith('file:')) return absolute(text)
  const uri = absoluteUri(text)
  return fileOf(uri) ?? uri
}

/**
 * The file that a resolved path names; null where it names none, takes parameters, or is no text.
 * @param {string | Buffer} path
 */
function fileOf(path) {
  if (typeof path !== 'string' || path === '' || path === ':memory:') return null
  if (!path.startsWith('file:')) return path
  try {
    const url = new URL(path)
    return path.startsWith('file:///') && url.search === '' && url.hash === '' ? fileURLToPath(url) : null
  } catch {
    return null
  }
}

/** What does for a database without a file what an operation does for a file. */
const INSTEAD = {
  check: "db.prepare('PRAGMA integrity_check').all() checks it",
  backup: "await backup(db, path), the module's function, copies it into a file",
  restore: 'db.deserialize(bytes) replaces its content, and a backup is opened as a database of its own',
  recover: 'nothing of it is on a disk that could be damaged; open a copy of it that was saved',
}

/** What `operation` of a database in memory, or of a temporary one, throws. */
function withoutFile(operation) {
  return invalidState(
    `the database is in memory, or a temporary one, and has no file, so that ${operation}() has nothing to work on: ` +
      `${INSTEAD[operation]}`,
  )
}

/** The file that the argument `name` names; throws where it names none. */
function filePath(path, name = 'path') {
  const resolved = resolvedPath(path, name)
  if (typeof resolved !== 'string') throw invalidArgValue(`The "${name}" argument must be a path in UTF-8.`)
  const file = fileOf(resolved)
  if (file !== null) return file
  if (resolved === '' || resolved === ':memory:' || (WITHOUT_FILE.test(resolved) && !resolved.includes('vfs='))) {
    throw invalidArgType(
      `The "${name}" argument must be the path of a file: ${shown(JSON.stringify(resolved))} names a database in memory ` +
        'or a temporary one, which only its own connection can read. backup(db, path) copies it into a file.',
    )
  }
  throw invalidArgType(`The "${name}" argument must be the path or the file: URL of a file, without parameters.`)
}

module.exports = { fileOf, filePath, resolvedPath, withoutFile }
