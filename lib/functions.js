'use strict'

// Functions of SQL in JavaScript: the arguments of function() and aggregate(), checked in
// node:sqlite's order.

const { binding } = require('./native.js')
const { makeCalls } = require('./aggregate.js')
const { invalidArgType } = require('./errors.js')
const { features } = require('./features.js')
const { boolean, requireObject } = require('./options.js')

/** Bits of the native `defineFunction` and `defineAggregate`. */
const DETERMINISTIC = 1
const DIRECT_ONLY = 2
const BIGINTS = 4

/** As number of arguments: any. */
const ANY = -1
/** As number of arguments: one that SQLite refuses. */
const IMPOSSIBLE = -(2 ** 31)

const NAME_IS_NO_STRING = 'The "name" argument must be a string.'

/** A function's `length`, which may be anything. `name` is the function's. */
function countOf(length, name) {
  if (typeof length === 'number' && (length | 0) === length) return length
  if (features.integerLengths) throw invalidArgType(`The "${name}.length" property must be an integer.`)
  if (typeof length !== 'number') return 0
  const count = Math.trunc(length)
  return Math.abs(count) < 2 ** 31 ? count : IMPOSSIBLE
}

/**
 * Registers a function with SQLite by `define`, and keeps the JavaScript functions alive that
 * SQLite may call.
 *
 * @param {() => Connection} open returns the database's open connection; throws if it is closed
 */
function register(open, name, argc, functions, define) {
  // Getters of the options may have closed or deserialized the database.
  const connection = open()
  define(connection.number, name, argc >>> 0)
  // SQLite identifies a function by its name, up to the first NUL, and its number of arguments.
  const [known] = name.split('\0', 1)
  connection.functions.set(`${known.toLowerCase()}/${argc}`, functions)
  // A kept statement may call another function than a statement that is prepared from now on.
  connection.forget()
}

/** `function(name, function)` and `function(name, options, function)`. */
function defineFunction(open, args) {
  open()
  const name = args[0]
  if (typeof name !== 'string') throw invalidArgType(NAME_IS_NO_STRING)
  let settings = 0
  let varargs = false
  if (args.length >= 3) {
    const options = args[1]
    requireObject(options)
    if (boolean(options, 'useBigIntArguments', false)) settings |= BIGINTS
    varargs = boolean(options, 'varargs', false)
    if (boolean(options, 'deterministic', false)) settings |= DETERMINISTIC
    if (boolean(options, 'directOnly', false)) settings |= DIRECT_ONLY
  }
  const body = args.length < 3 ? args[1] : args[2]
  if (typeof body !== 'function') throw invalidArgType('The "function" argument must be a function.')
  const argc = varargs ? ANY : countOf(body.length, 'function')
  register(open, name, argc, body, (number, ...signature) =>
    binding.defineFunction(number, ...signature, settings, body),
  )
}

/** What node:sqlite makes of a name that is no string. */
function nameOf(value) {
  try {
    return typeof value === 'symbol' ? '' : String(value)
  } catch {
    return ''
  }
}

/** `aggregate(name, options)` */
function defineAggregate(open, args) {
  open()
  if (typeof args[0] !== 'string' && features.aggregateNeedsOptions) throw invalidArgType(NAME_IS_NO_STRING)
  const name = nameOf(args[0])
  const options = args[1]
  if (Object(options) !== options && features.aggregateNeedsOptions) requireObject(options)
  const start = options.start
  if (start === undefined) {
    throw invalidArgType('The "options.start" argument must be a function or a primitive value.')
  }
  const step = options.step
  if (typeof step !== 'function') throw invalidArgType('The "options.step" argument must be a function.')
  const result = options.result
  let settings = 0
  if (boolean(options, 'useBigIntArguments', false)) settings |= BIGINTS
  const varargs = boolean(options, 'varargs', false)
  if (boolean(options, 'directOnly', false)) settings |= DIRECT_ONLY
  const inverse = options.inverse
  if (inverse !== undefined && typeof inverse !== 'function') {
    throw invalidArgType('The "options.inverse" argument must be a function.')
  }
  let argc = ANY
  if (!varargs) {
    // The first parameter is what was accumulated.
    argc = Math.max(countOf(step.length, 'options.step') - 1, 0)
    if (inverse !== undefined) argc = Math.max(argc, countOf(inverse.length, 'options.inverse') - 1)
  }
  const calls = makeCalls({ start, step, inverse, result }, argc)
  register(open, name, argc, calls, (number, ...signature) =>
    binding.defineAggregate(number, ...signature, settings, ...calls),
  )
}

module.exports = { defineAggregate, defineFunction }
