'use strict'

// The limits of a connection: options of DatabaseSync's constructor, and the object of its
// property `limits`, whose properties are always what SQLite says.

const { inspect } = require('node:util')
const { binding } = require('./native.js')
const { illegalConstructor, invalidArgType, outOfRange } = require('./errors.js')

/** SQLite's numbers of the limits (sqlite3_limit). */
const IDS = {
  __proto__: null,
  length: 0,
  sqlLength: 1,
  column: 2,
  exprDepth: 3,
  compoundSelect: 4,
  vdbeOp: 5,
  functionArg: 6,
  attach: 7,
  likePatternLength: 8,
  variableNumber: 9,
  triggerDepth: 10,
}
const NAMES = Object.keys(IDS)
const LARGEST = 2 ** 31 - 1

/** Whether node:sqlite accepts `value` as an integer: V8's int32, which -0 is not. */
function isInteger(value) {
  return Number.isInteger(value) && !Object.is(value, -0) && value <= LARGEST && value >= -LARGEST - 1
}

/** The limits among the options of a database, by SQLite's numbers. */
function limitOptions(limits) {
  const values = []
  if (limits === undefined) return values
  if ((typeof limits !== 'object' || limits === null) && typeof limits !== 'function') {
    throw invalidArgType('The "options.limits" argument must be an object.')
  }
  for (const name of NAMES) {
    const value = limits[name]
    if (value === undefined) continue
    if (!isInteger(value)) {
      throw invalidArgType(`The "options.limits.${name}" argument must be an integer.`)
    }
    if (value < 0) throw outOfRange(`The "options.limits.${name}" argument must be non-negative.`)
    values.push([IDS[name], value])
  }
  return values
}

/** Gives `connection` the limits that limitOptions() found. */
function applyLimits(connection, limits) {
  for (const [id, value] of limits) binding.setLimit(connection.number, id, value)
}

/** A value for a limit: Infinity stands for as much as SQLite was built for. */
function limitValue(value) {
  if (value === Infinity) return LARGEST
  if (!isInteger(value)) throw invalidArgType('Limit value must be a non-negative integer or Infinity.')
  if (value < 0) throw outOfRange('Limit value must be non-negative.')
  return value
}

/** Constructs nothing; it has no name in node:sqlite, either. */
const [noConstructor] = [
  function () {
    throw illegalConstructor()
  },
]
const prototype = Object.create(Object.prototype, {
  constructor: { value: noConstructor, writable: true, enumerable: false, configurable: true },
})

/** Has util.inspect show what it stands for, not that it is a proxy; looks at the target only. */
const targetPrototype = Object.create(prototype, {
  [inspect.custom]: {
    value() {
      return { ...this }
    },
  },
})

/**
 * @param {() => Connection} open returns the database's open connection; throws if it is closed
 * @param {() => boolean} isOpen whether the database is open
 */
function makeLimits(open, isOpen) {
  // Holds the values, too: util.inspect looks at a proxy's target.
  const target = Object.create(targetPrototype)
  for (const name of NAMES) {
    Object.defineProperty(target, name, { value: 0, writable: true, enumerable: true, configurable: false })
  }
  const read = (name) => (target[name] = binding.limit(open().number, IDS[name]))
  const write = (name, given) => {
    const connection = open()
    binding.setLimit(connection.number, IDS[name], limitValue(given))
    // A statement that is kept may be one that could not be prepared any more.
    connection.forget()
    read(name)
  }
  const proxy = new Proxy(target, {
    get(_, name, receiver) {
      return name in IDS ? read(name) : Reflect.get(target, name, receiver)
    },
    set(_, name, value) {
      if (!(name in IDS)) return Reflect.set(target, name, value)
      write(name, value)
      return true
    },
    getOwnPropertyDescriptor(_, name) {
      // Object.keys() asks for descriptors, too, and works on a closed database's limits.
      if (name in IDS && isOpen()) read(name)
      return Reflect.getOwnPropertyDescriptor(target, name)
    },
    defineProperty(_, name, descriptor) {
      if (!(name in IDS)) return Reflect.defineProperty(target, name, descriptor)
      if (!('value' in descriptor)) return false
      write(name, descriptor.value)
      return true
    },
    ownKeys() {
      return [...Reflect.ownKeys(target).filter((name) => !(name in IDS)), ...NAMES]
    },
    getPrototypeOf() {
      return prototype
    },
    preventExtensions() {
      return false
    },
  })
  return {
    /** The object. The proxy's target gets the values of `connection`: util.inspect reads it. */
    at(connection) {
      for (const name of NAMES) target[name] = binding.limit(connection.number, IDS[name])
      return proxy
    },
  }
}

module.exports = { applyLimits, limitOptions, makeLimits }
