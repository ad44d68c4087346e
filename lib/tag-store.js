'use strict'

const { types } = require('node:util')
const { illegalConstructor, illegalInvocation, invalidArgType, invalidArgValue } = require('./errors.js')
const { faceOf } = require('./class-facade.js')
const { isNamedParameters, requireBindable } = require('./parameters.js')
const { StatementSync, makeStatement, parameterCount } = require('./statement-sync.js')

/** The constructor requires it: only this module makes tag stores. */
const token = Symbol('token')

// Taken when this module is loaded: a later patch of the prototype does not affect tag stores.
const { all, get, iterate, run } = StatementSync.prototype

/** The text of a template with a parameter for each value. */
function textOf(strings, values) {
  if (!Array.isArray(strings) || types.isProxy(strings)) {
    throw invalidArgType('First argument must be an array of strings (template literal).')
  }
  let text = ''
  for (let i = 0; i < strings.length; i++) {
    let part
    try {
      part = strings[i]
    } catch {
      // As in node:sqlite, the same as no string.
    }
    if (typeof part !== 'string') throw invalidArgType('Template literal parts must be strings.')
    text += i < values.length ? `${part}?` : part
  }
  return text
}

class TagStore {
  #database
  #capacity
  #options
  /** Gives the open connection of the database, or throws. */
  #connection
  /** Text to { statement, parameters, connection }, the least recently used first. */
  #statements = new Map()

  constructor(given, database, capacity, options, connection) {
    if (given !== token) throw illegalConstructor()
    this.#database = database
    this.#capacity = capacity
    this.#options = options
    this.#connection = connection
    Object.defineProperties(this, accessors)
  }

  get(strings, ...values) {
    return Reflect.apply(get, TagStore.#statement(this, strings, values), values)
  }

  all(strings, ...values) {
    return Reflect.apply(all, TagStore.#statement(this, strings, values), values)
  }

  iterate(strings, ...values) {
    return Reflect.apply(iterate, TagStore.#statement(this, strings, values), values)
  }

  run(strings, ...values) {
    return Reflect.apply(run, TagStore.#statement(this, strings, values), values)
  }

  clear() {
    TagStore.#require(this)
    this.#statements.clear()
  }

  static capacity(store) {
    TagStore.#require(store)
    return store.#capacity
  }

  static db(store) {
    TagStore.#require(store)
    return store.#database
  }

  static size(store) {
    TagStore.#require(store)
    return store.#statements.size
  }

  static #require(value) {
    if (typeof value !== 'object' || value === null || !(#statements in value)) throw illegalInvocation()
  }

  /** The statement for a template, whose values can be handed to it. */
  static #statement(store, strings, values) {
    TagStore.#require(store)
    store.#connection()
    const text = textOf(strings, values)
    const entry = store.#find(text)
    if (entry.parameters !== values.length) {
      throw invalidArgValue('SQLite parameters must be bound using template literal placeholders.')
    }
    // Statements take a first argument of this kind for named parameters.
    if (isNamedParameters(values[0])) requireBindable(values[0], 0)
    return entry.statement
  }

  #find(text) {
    const statements = this.#statements
    // The caller's array may have had getters, which may have closed the database.
    const connection = this.#connection()
    let entry = statements.get(text)
    if (entry !== undefined) {
      statements.delete(text)
      // Its statement is finalised if the database was closed or replaced since.
      if (entry.connection !== connection) entry = undefined
    }
    if (entry === undefined) {
      const statement = makeStatement(connection, text, this.#options)
      entry = {
        statement,
        parameters: parameterCount(statement),
        connection,
      }
      if (statements.size >= this.#capacity) statements.delete(statements.keys().next().value)
    }
    statements.set(text, entry)
    return entry
  }
}

/** Own properties of each store, as in node:sqlite. */
const accessors = Object.fromEntries(
  ['capacity', 'db', 'size'].map((name) => {
    const read = TagStore[name]
    const getter = function () {
      return read(this)
    }
    Object.defineProperty(getter, 'name', { value: '' })
    return [name, { get: getter, enumerable: true }]
  }),
)

faceOf(TagStore, 'SQLTagStore', function () {
  throw illegalConstructor()
})

/**
 * An SQLTagStore of `database` that keeps up to `capacity` statements.
 *
 * @param {() => Connection} connection gives the database's open connection, or throws
 */
function makeTagStore(database, capacity, options, connection) {
  return new TagStore(token, database, capacity, options, connection)
}

module.exports = { makeTagStore }
