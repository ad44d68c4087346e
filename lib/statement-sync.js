'use strict'

const { types } = require('node:util')
const { binding } = require('./native.js')
const { illegalConstructor, illegalInvocation, invalidArgType, invalidState } = require('./errors.js')
const { faceOf } = require('./native-class.js')
const { arrange, bound } = require('./parameters.js')
const { NONE } = require('./prepared.js')
const { ints, doubles, bigints, DONE } = require('./report.js')

// Constants, for V8 to know which functions these are.
const { all, get, next, run } = binding

/** Whoever has it may make statements and iterators. */
const token = Symbol('token')

const asArray = (...values) => values

/** Loose statements go with the StatementSync that they are for. */
const loose = new FinalizationRegistry((prepared) => {
  if (prepared.number !== NONE) prepared.finalize()
})

/** An iteration that was left in the middle ends when nobody can continue it. */
const abandoned = new FinalizationRegistry(({ prepared, lease }) => {
  // A loose statement may have been collected, and finalised, with its iteration.
  if (prepared.number !== NONE && prepared.inUse && prepared.lease === lease && prepared.connection.isOpen) {
    binding.reset(prepared.number)
    prepared.connection.takeBack(prepared)
  }
})

/** Whether `values` are not simply the values of the parameters, in order. */
function needArranging(values) {
  const first = values[0]
  if ((typeof first === 'object' && first !== null) || typeof first === 'function') return true
  for (let i = 1; i < values.length; i++) {
    if (typeof values[i] === 'object' && types.isSharedArrayBuffer(values[i])) return true
  }
  return false
}

/** Throws unless called with a StatementSync. */
let requireStatement
let optionsOf
/** An iteration of `statement` is over, or gave way to another call. */
let forgetIteration
/** The last step of an iteration of `statement` failed with an error of SQLite, or did not (null). */
let setFailure

class Statement {
  #connection
  #prepared
  #options
  /** The iteration that this statement is in the middle of. */
  #iteration = null
  /** What the last step of an iteration failed with. */
  #failure = null
  /** The values of the last call. */
  #values = []

  constructor(given, prepared, options) {
    if (given !== token) throw illegalConstructor()
    this.#connection = prepared.connection
    this.#prepared = prepared
    this.#options = options
    if (prepared.loose) loose.register(this, prepared)
  }

  static {
    requireStatement = (value) => {
      if (typeof value !== 'object' || value === null || !(#prepared in value)) {
        throw illegalInvocation()
      }
    }
    optionsOf = (statement) => statement.#options
    forgetIteration = (statement) => {
      statement.#iteration = null
    }
    setFailure = (statement, error) => {
      statement.#failure = error
    }
  }

  get(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const options = this.#options
    let row
    prepared.inUse = true
    try {
      const given = this.#values
      const { number } = prepared
      const maker = options.returnArrays ? asArray : prepared.rowMaker()
      // The same call three times: spreading takes its time, and most have no value or one.
      if (given.length === 0) row = get(number, options.readBigInts, maker)
      else if (given.length === 1) row = get(number, options.readBigInts, maker, given[0])
      else row = get(number, options.readBigInts, maker, ...given)
    } catch (error) {
      this.#failed(prepared)
      throw error
    }
    prepared.inUse = false
    if (ints[0] !== 0) this.#connection.attend(ints[0], prepared)
    return row
  }

  all(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const options = this.#options
    const rows = []
    prepared.inUse = true
    prepared.rows = rows
    try {
      all(
        prepared.number,
        options.readBigInts,
        options.returnArrays ? prepared.arraysMaker() : prepared.objectsMaker(),
        ...this.#values,
      )
    } catch (error) {
      this.#failed(prepared)
      throw error
    }
    prepared.inUse = false
    prepared.rows = null
    if (ints[0] !== 0) this.#connection.attend(ints[0], prepared)
    return rows
  }

  run(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    prepared.inUse = true
    try {
      run(prepared.number, ...this.#values)
    } catch (error) {
      this.#failed(prepared)
      throw error
    }
    prepared.inUse = false
    const flags = ints[0]
    let result
    if (this.#options.readBigInts) {
      result = { changes: bigints[4], lastInsertRowid: bigints[5] }
    } else if (ints[3] === 0) {
      result = { changes: ints[1], lastInsertRowid: ints[2] }
    } else {
      result = { changes: doubles[2], lastInsertRowid: doubles[3] }
    }
    if (flags !== 0) this.#connection.attend(flags, prepared)
    return result
  }

  iterate(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const connection = this.#connection
    connection.lend(prepared)
    try {
      binding.start(prepared.number, ...this.#values)
    } catch (error) {
      connection.takeBack(prepared)
      throw error
    }
    const iteration = new Iteration(this, prepared)
    this.#iteration = iteration
    return new StatementIterator(token, iteration)
  }

  columns() {
    requireStatement(this)
    const prepared = this.#look()
    const facts = binding.columns(prepared.number)
    const columns = []
    for (let at = 0; at < facts.length; at += 5) {
      columns.push({
        __proto__: null,
        column: facts[at],
        database: facts[at + 1],
        name: facts[at + 2],
        table: facts[at + 3],
        type: facts[at + 4],
      })
    }
    return columns
  }

  setAllowBareNamedParameters(enabled) {
    requireStatement(this)
    this.#set('bareNames', enabled, 'allowBareNamedParameters')
  }

  setAllowUnknownNamedParameters(enabled) {
    requireStatement(this)
    this.#set('unknownNames', enabled, 'enabled')
  }

  setReadBigInts(enabled) {
    requireStatement(this)
    this.#set('readBigInts', enabled, 'readBigInts')
  }

  setReturnArrays(enabled) {
    requireStatement(this)
    this.#set('returnArrays', enabled, 'returnArrays')
  }

  get sourceSQL() {
    requireStatement(this)
    return binding.sourceSQL(this.#look().number)
  }

  get expandedSQL() {
    requireStatement(this)
    const prepared = this.#look()
    if (this.#iteration !== null) return binding.expandedSQL(prepared.number, true)
    const values = bound(this.#values, prepared.parameterNames().length)
    return binding.expandedSQL(prepared.number, false, ...values)
  }

  #set(option, enabled, argument) {
    this.#open()
    if (typeof enabled !== 'boolean') {
      throw invalidArgType(`The "${argument}" argument must be a boolean.`)
    }
    this.#options = { ...this.#options, [option]: enabled }
  }

  #open() {
    if (!this.#connection.isOpen) throw invalidState('statement has been finalized')
  }

  /** The statement of SQLite to ask about this one's text. An iteration goes on. */
  #look() {
    this.#open()
    return this.#iteration === null ? this.#free() : this.#prepared
  }

  /** A statement of SQLite for this one's text that is not in use. */
  #free() {
    let prepared = this.#prepared
    if (prepared.number === NONE || prepared.inUse || !this.#connection.isOwn(prepared)) {
      prepared = this.#connection.prepared(prepared.sql)
      this.#prepared = prepared
      if (prepared.loose) loose.register(this, prepared)
    }
    prepared.recent = true
    return prepared
  }

  /** The statement of SQLite for a call with `values`, which become this statement's. */
  #borrow(values) {
    this.#open()
    if (this.#iteration !== null) this.#iteration.invalidate()
    if (this.#failure !== null) {
      const { message, code, errcode, errstr } = this.#failure
      this.#failure = null
      // As in node:sqlite, where resetting the statement fails as its last step did.
      throw Object.assign(new Error(message), { code, errcode, errstr })
    }
    let prepared = this.#free()
    if (values.length > 0 && (prepared.named || needArranging(values))) {
      const names = prepared.parameterNames()
      const arranged = []
      this.#values = arranged
      arrange(names, values, this.#options, arranged)
      values = arranged
      // The caller's getters may have closed the database or used this statement.
      this.#open()
      if (this.#iteration !== null) this.#iteration.invalidate()
      prepared = this.#free()
    }
    this.#values = values
    return prepared
  }

  #failed(prepared) {
    const flags = ints[0]
    prepared.inUse = false
    prepared.rows = null
    if (flags !== 0) this.#connection.attend(flags, prepared)
  }
}

const ACTIVE = 0
const INVALIDATED = 1
const OVER = 2

/** What an iterator and its statement both know. */
class Iteration {
  constructor(statement, prepared) {
    this.statement = statement
    this.prepared = prepared
    this.state = ACTIVE
    this.registered = false
  }

  next() {
    const { prepared } = this
    const { connection } = prepared
    if (!connection.isOpen) throw invalidState('statement has been finalized')
    if (this.state === INVALIDATED) throw invalidState('iterator was invalidated')
    if (this.state === OVER) return { __proto__: null, done: true, value: null }
    const options = optionsOf(this.statement)
    let value
    try {
      value = next(prepared.number, options.readBigInts, options.returnArrays ? asArray : prepared.rowMaker())
    } catch (error) {
      const flags = ints[0]
      // What a user function throws may be anything, null too.
      setFailure(this.statement, error?.errcode === undefined ? null : error)
      if (flags !== 0) connection.attend(flags, prepared)
      throw error
    }
    setFailure(this.statement, null)
    const flags = ints[0]
    if ((flags & DONE) !== 0) {
      this.release(OVER)
      value = null
    } else if (!this.registered) {
      this.registered = true
      abandoned.register(this, { prepared, lease: prepared.lease })
    }
    if (flags !== 0) connection.attend(flags, prepared)
    // A literal of constants, which V8 copies as it is: see row-makers.js.
    const result = { __proto__: null, done: false, value: null }
    if ((flags & DONE) !== 0) result.done = true
    else result.value = value
    return result
  }

  return() {
    if (!this.prepared.connection.isOpen) throw invalidState('statement has been finalized')
    if (this.state === ACTIVE) {
      this.stop(OVER)
      setFailure(this.statement, null)
    }
    this.state = OVER
    return { __proto__: null, done: true, value: null }
  }

  invalidate() {
    this.stop(INVALIDATED)
  }

  stop(state) {
    binding.reset(this.prepared.number)
    const flags = ints[0]
    this.release(state)
    if (flags !== 0) this.prepared.connection.attend(flags, this.prepared)
  }

  /** The statement of SQLite has been reset. */
  release(state) {
    this.state = state
    forgetIteration(this.statement)
    this.prepared.connection.takeBack(this.prepared)
  }
}

class StatementIterator extends Iterator {
  #iteration

  constructor(given, iteration) {
    if (given !== token) throw illegalConstructor()
    super()
    this.#iteration = iteration
  }

  next() {
    return StatementIterator.#of(this).next()
  }

  return() {
    return StatementIterator.#of(this).return()
  }

  static #of(value) {
    if (typeof value !== 'object' || value === null || !(#iteration in value)) {
      throw illegalInvocation()
    }
    return value.#iteration
  }
}

const StatementSync = faceOf(Statement, 'StatementSync', function () {
  throw illegalConstructor()
})
faceOf(StatementIterator, 'StatementSyncIterator', function () {
  throw illegalConstructor()
})

/** A StatementSync that uses `prepared`. */
function makeStatement(prepared, options) {
  return new Statement(token, prepared, options)
}

module.exports = { StatementSync, makeStatement }
