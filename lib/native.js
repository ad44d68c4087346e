'use strict'

// The addon, as this copy of the package's JavaScript uses it. Copies may be loaded into realms
// other than the addon's (a test file of Jest's, a context of node:vm): errors that the addon makes
// get the prototype that they have in this one, so that `instanceof Error` says what it should.

const binding = require('../binding.js')

const { errors } = binding.realm()

/** Prototype of a class of the addon's realm to that of this one's. */
const prototypes = new Map([Error, TypeError, RangeError].map((Own, i) => [errors[i].prototype, Own.prototype]))

/** `error` as one of this realm. */
function own(error) {
  if (typeof error !== 'object' || error === null) return error
  const prototype = prototypes.get(Object.getPrototypeOf(error))
  return prototype === undefined ? error : Object.setPrototypeOf(error, prototype)
}

function wrapped(native) {
  if (typeof native !== 'function') return native
  return (...args) => {
    try {
      return native(...args)
    } catch (error) {
      throw own(error)
    }
  }
}

const isHome = errors[0] === Error

module.exports = {
  /** The native functions. */
  binding: isHome
    ? binding
    : Object.fromEntries(Object.entries(binding).map(([name, value]) => [name, wrapped(value)])),
  own: isHome ? (error) => error : own,
  /** The process itself: Jest gives its test files a copy, whose events do not come. */
  process: binding.realm().process,
}
