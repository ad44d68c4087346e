'use strict'

// A database on a network file system: DatabaseSync opens it, as node:sqlite does, and warns.

const { binding, process } = require('./native.js')
const { shown } = require('./shown.js')

/** Warns where the database of the connection `number` is the first of this process on a network's mount. */
function warnOfNetwork(number) {
  const name = binding.newNetwork(number)
  if (name === undefined) return
  const path = binding.location(number, 'main')
  const warning = new Error(
    `${shown(path)} is on a network file system (${shown(name)}). Processes on different machines, or on two sides of a ` +
      "virtual machine's wall, do not share the WAL's index there and corrupt the database. Move it to a local disk; " +
      'where one machine alone uses it, it may stay',
  )
  Object.defineProperty(warning, 'name', { value: 'FusionSqliteWarning', configurable: true, writable: true })
  process.emitWarning(Object.assign(warning, { code: 'FUSION_NETWORK_FS', path }))
}

module.exports = { warnOfNetwork }
