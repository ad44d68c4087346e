'use strict'

// Another SQLite of this process that has the same file open: what its finding is answered with.

const { invalidArgType } = require('./errors.js')
const { binding, process } = require('./native.js')
const { shown } = require('./shown.js')

const ANSWERS = new Set(['error', 'warn', 'ignore'])

const REMEDY =
  'Two copies of SQLite in one process drop the locks of each other, which corrupts the database. ' +
  'Open it through one of them only: start Node with --import fusion-sqlite/register to have node:sqlite ' +
  'replaced, and no other package open this file'

/** The option `foreignHandles`, checked. */
function foreignHandles(given) {
  const answer = given === undefined ? 'warn' : given
  if (!ANSWERS.has(answer)) {
    throw invalidArgType('The "options.foreignHandles" argument must be "error", "warn" or "ignore".')
  }
  return answer
}

function described(error, name, code, path) {
  Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true })
  return Object.assign(error, { code, path })
}

/** Looks for another SQLite that has the file of the connection `number` open, and answers it. */
function checkForeign(number, answer) {
  if (answer === 'ignore') return
  const path = binding.foreignSqlite(number)
  if (path === undefined) return
  const message = `another SQLite in this process has ${shown(path)} open. ${REMEDY}`
  if (answer === 'error') {
    throw described(new Error(message), 'Error', 'ERR_FUSION_FOREIGN_SQLITE', path)
  }
  if (!binding.isFirst(path)) return
  const warning = described(new Error(message), 'FusionSqliteWarning', 'FUSION_FOREIGN_SQLITE', path)
  process.emitWarning(warning)
}

module.exports = { checkForeign, foreignHandles }
