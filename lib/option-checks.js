'use strict'

// Checks of the options that node:sqlite does not have. Null counts as not given.

const { invalidArgType, outOfRange } = require('./errors.js')

/** How many copies that hold nothing which the database does not are kept of each kind (src/engine/kept.rs). */
const KEEP_COPIES = 3

/** `options`, whose names must be among `known`. */
function known(options, names, where = 'options') {
  if (typeof options !== 'object' || options === null) {
    throw invalidArgType(`The "${where}" argument must be an object.`)
  }
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue
    throw invalidArgType(`"${where}.${name}" is no option here: the options are ${names.join(', ')}.`)
  }
  return options
}

/** An integer from `smallest` to `largest`. */
function integer(options, name, otherwise, smallest, largest) {
  const value = options[name] ?? otherwise
  if (typeof value !== 'number') throw invalidArgType(`The "options.${name}" argument must be a number.`)
  if (!Number.isInteger(value) || value < smallest || value > largest) {
    throw outOfRange(
      `The value of "options.${name}" is out of range. ` +
        `It must be an integer from ${smallest} to ${largest}. Received ${value}`,
    )
  }
  return value
}

function flag(options, name, otherwise) {
  const value = options[name] ?? otherwise
  if (typeof value !== 'boolean') throw invalidArgType(`The "options.${name}" argument must be a boolean.`)
  return value
}

/** The option `keepCopies`. */
const keepCopies = (options, otherwise = KEEP_COPIES) => integer(options, 'keepCopies', otherwise, 1, 2 ** 31 - 1)

module.exports = { KEEP_COPIES, flag, integer, keepCopies, known }
