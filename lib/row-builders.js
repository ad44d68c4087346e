'use strict'

// Functions that make row objects of values.
//
// A row has a null prototype, and V8 keeps the properties of an object that is made with one in a
// hash table. Filling an empty one, name by name, makes it grow again and again. A literal that
// lists the names is copied as a whole, with a table of the right size, and storing the values in
// a copy is then cheap. Such a literal has to be written in source text, which takes V8 some time:
// only what makes many rows is worth it.

/** Rows after which a literal is worth it. */
const MANY = 200
/** Columns up to which it is. */
const WIDEST = 64
/** Literals that are kept for other statements with the same columns. */
const KEPT = 256

const literals = new Map()

/** Makes rows with the names that it was made with. */
class RowMaker {
  constructor(names) {
    this.names = names
    this.left = MANY
    this.literal = null
  }

  /** A row of `values`. */
  row(values) {
    if (this.literal !== null) return this.literal.row(values)
    if (--this.left === 0) this.literal = literalOf(this.names)
    return fill({ __proto__: null }, this.names, values, 0)
  }

  /** Adds rows of `values`, which are those of whole rows, to `rows`. */
  rows(rows, values) {
    if (this.literal !== null) return this.literal.rows(rows, values)
    const { names } = this
    for (let at = 0; at < values.length; at += names.length) {
      rows.push(fill({ __proto__: null }, names, values, at))
      if (--this.left === 0) this.literal = literalOf(names)
    }
  }
}

function fill(row, names, values, at) {
  for (let i = 0; i < names.length; i++) row[names[i]] = values[at + i]
  return row
}

/** The functions that a literal with `names` makes rows with, or null if there can be none. */
function literalOf(names) {
  // In a literal, this name is no property's.
  if (names.length > WIDEST || names.includes('__proto__')) return null
  const key = JSON.stringify(names)
  let literal = literals.get(key)
  if (literal === undefined) {
    literal = compile(names.map((name) => JSON.stringify(name)))
    if (literals.size >= KEPT) literals.clear()
    literals.set(key, literal)
  }
  return literal
}

/** @param {string[]} names in the source text's quotes */
function compile(names) {
  const row = (at) => `const row = { __proto__: null, ${names.map((name) => `${name}: null`).join(', ')} }
    ${names.map((name, i) => `row[${name}] = values[${at}${i}]`).join('\n')}`
  try {
    return new Function(`'use strict'
      return {
        row(values) {
          ${row('')}
          return row
        },
        rows(rows, values) {
          for (let at = 0; at < values.length; at += ${names.length}) {
            ${row('at + ')}
            rows.push(row)
          }
        },
      }`)()
  } catch {
    // Node was started with --disallow-code-generation-from-strings.
    return null
  }
}

module.exports = { RowMaker }
