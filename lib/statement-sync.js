'use strict'

const { types } = require('node:util')
const { binding } = require('./native.js')
const {
  illegalConstructor,
  illegalInvocation,
  invalidArgType,
  invalidArgValue,
  invalidState,
  outOfRange,
} = require('./errors.js')
const { features } = require('./features.js')
const { faceOf } = require('./class-facade.js')
const { arrange, bound } = require('./parameters.js')
const { NONE, SEVERAL } = require('./statement-cache.js')
const { channel, discard, publish, trace } = require('./queries.js')
const { ints, doubles, bigints, DONE } = require('./report.js')

// Constants, for V8 to know which functions these are.
const { all, get, next, run } = binding

/** The constructors require it: only this module makes statements and iterators. */
const token = Symbol('token')

const asArray = (...values) => values

/** Loose statements go with the StatementSync that they are for. */
const loose = new FinalizationRegistry((prepared) => {
  if (prepared.number !== NONE) prepared.finalize()
})

/** Resets the statement of an unfinished iteration once its iterator is collected. */
const abandoned = new FinalizationRegistry(({ prepared, lease }) => {
  // A loose statement may have been collected, and finalised, with its iteration.
  if (prepared.number !== NONE && prepared.inUse && prepared.lease === lease && prepared.connection.isOpen) {
    binding.reset(prepared.number)
    prepared.connection.checkIn(prepared)
  }
})

/** Whether `values` are not simply the values of the parameters, in order. */
function needArranging(values) {
  const first = values[0]
  if ((typeof first === 'object' && first !== null) || typeof first === 'function' || first === undefined) return true
  for (let i = 1; i < values.length; i++) {
    if (values[i] === undefined || (typeof values[i] === 'object' && types.isSharedArrayBuffer(values[i]))) return true
  }
  return false
}

/** What a statement is doing: nothing, reading the caller's parameters, running; or it is closed. */
const IDLE = 0
const BINDING = 1
const RUNNING = 2
const CLOSED = 3

/** SQLite's numbers of the counters that stat() knows (sqlite3_stmt_status). */
const COUNTERS = {
  __proto__: null,
  fullscanStep: 1,
  sort: 2,
  autoindex: 3,
  vmStep: 4,
  reprepare: 5,
  run: 6,
  filterMiss: 7,
  filterHit: 8,
  memused: 99,
}

/** Numbers the StatementSyncs of this thread. */
let lastUser = 0

/** Whether this thread has asked for counters: from then on statements do not share SQLite's. */
let counting = false

/** A statement of SQLite for `sql` that is not in use. */
function take(connection, sql) {
  return counting ? connection.prepareAlone(sql) : connection.prepared(sql)
}

/** A number as a result: `exact` where it is no safe integer, which is refused or rounded. */
function wide(number, exact) {
  if (!Number.isSafeInteger(number) && features.exactResults) {
    throw outOfRange(`Value is too large to be represented as a JavaScript number: ${exact}`)
  }
  return number
}

/** Throws unless called with a StatementSync. */
let requireStatement
let optionsOf
/** The step of an iteration of `statement` begins: throws unless it may. */
let beginStep
let endStep
/** Throws unless `statement` is open. */
let requireOpen
/** The number of parameters of `statement`. */
let parameterCount
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
  #state = IDLE
  /** Identifies this StatementSync in Prepared.user. */
  #user = ++lastUser

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
    requireOpen = (statement) => statement.#open()
    beginStep = (statement) => {
      if (statement.#state !== IDLE || !statement.#connection.isOpen) statement.#refuseCall()
      if (channel.hasSubscribers !== statement.#connection.traced) trace(statement.#connection)
      statement.#state = RUNNING
    }
    parameterCount = (statement) => statement.#prepared.parameterNames().length
    endStep = (statement) => {
      if (statement.#connection.traced) publish(statement.#connection)
      statement.#state = IDLE
    }
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
    try {
      const given = this.#values
      const { number } = prepared
      const maker = options.returnArrays ? asArray : prepared.rowMaker()
      // The same call three times: spreading takes its time, and most have no value or one.
      if (given.length === 0) row = get(number, options.readBigInts, maker)
      else if (given.length === 1) row = get(number, options.readBigInts, maker, given[0])
      else row = get(number, options.readBigInts, maker, ...given)
    } catch (error) {
      this.#end(prepared)
      throw error
    }
    this.#end(prepared)
    return row
  }

  all(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const options = this.#options
    const rows = []
    prepared.rows = rows
    try {
      all(
        prepared.number,
        options.readBigInts,
        options.returnArrays ? prepared.arraysMaker() : prepared.objectsMaker(),
        ...this.#values,
      )
    } catch (error) {
      prepared.rows = null
      this.#end(prepared)
      throw error
    }
    prepared.rows = null
    this.#end(prepared)
    return rows
  }

  run(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const { readBigInts } = this.#options
    let result
    try {
      run(prepared.number, ...this.#values)
      if (readBigInts) {
        result = { changes: bigints[4], lastInsertRowid: bigints[5] }
      } else if (ints[3] === 0) {
        result = { changes: ints[1], lastInsertRowid: ints[2] }
      } else {
        result = { changes: wide(doubles[2], bigints[4]), lastInsertRowid: wide(doubles[3], bigints[5]) }
      }
    } catch (error) {
      this.#end(prepared)
      throw error
    }
    this.#end(prepared)
    return result
  }

  iterate(...values) {
    requireStatement(this)
    const prepared = this.#borrow(values)
    const connection = this.#connection
    connection.checkOut(prepared)
    try {
      binding.start(prepared.number, ...this.#values)
    } catch (error) {
      connection.checkIn(prepared)
      throw error
    } finally {
      this.#state = IDLE
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

  close() {
    requireStatement(this)
    if (this.#state !== IDLE || !this.#connection.isOpen) this.#refuse()
    this.#close()
  }

  [Symbol.dispose]() {
    requireStatement(this)
    if (this.#state === CLOSED || !this.#connection.isOpen) return
    if (this.#state !== IDLE) this.#refuse()
    this.#close()
  }

  stat(counter) {
    requireStatement(this)
    this.#open()
    if (typeof counter !== 'string') throw invalidArgType('The "counter" argument must be a string.')
    const op = COUNTERS[counter]
    if (op === undefined) throw invalidArgValue('The "counter" argument is not a valid statistic name.')
    if (!this.#isCounted()) return op === COUNTERS.memused ? binding.stat(this.#look().number, op) : 0
    return binding.stat(this.#prepared.number, op)
  }

  resetStats() {
    requireStatement(this)
    this.#open()
    if (this.#isCounted()) binding.resetStats(this.#prepared.number)
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
    if (this.#iteration !== null || this.#state === RUNNING) return binding.expandedSQL(prepared.number, true)
    const values = bound(this.#values, prepared.parameterNames().length)
    return binding.expandedSQL(prepared.number, false, ...values)
  }

  #set(option, enabled, argument) {
    this.#open()
    if (typeof enabled !== 'boolean') {
      throw invalidArgType(`The "${argument}" argument must be a boolean.`)
    }
    this.#options = { ...this.#options, [option]: enabled }
    // The step of an iteration that has called back has yet to read its row.
    if (option === 'readBigInts' && this.#state === RUNNING && this.#iteration !== null) {
      binding.readBigInts(this.#prepared.number, enabled)
    }
  }

  #open() {
    if (this.#state === CLOSED || !this.#connection.isOpen) throw invalidState('statement has been finalized')
  }

  /** Says why nothing can be done with it. */
  #refuse() {
    this.#open()
    throw invalidState('statement is already being executed')
  }

  /** The same of a call that runs it, which an authorizer may not make at all. */
  #refuseCall() {
    this.#open()
    binding.requireUsable(this.#connection.number)
    this.#refuse()
  }

  #close() {
    if (this.#iteration !== null) {
      this.#iteration.stop(OVER)
      discard(this.#connection)
    }
    this.#state = CLOSED
    const prepared = this.#prepared
    // In a callback SQLite may be preparing a statement; then this one goes when it is collected.
    if (prepared.loose && prepared.number !== NONE && !binding.isBusy(this.#connection.number)) prepared.finalize()
  }

  /**
   * Whether the statement of SQLite has this one's counters; if so, it is this one's alone from
   * here on, and so is the next that this one takes. Before the first such question statements are
   * shared, and the counters of one that several have used are those of all.
   */
  #isCounted() {
    counting = true
    const prepared = this.#prepared
    if (prepared.number === NONE || (prepared.user !== this.#user && prepared.user !== SEVERAL)) return false
    if (!prepared.loose && prepared.user === this.#user) {
      this.#connection.giveAway(prepared)
      loose.register(this, prepared)
    }
    return true
  }

  /** The statement of SQLite to ask about this one's text. An iteration goes on. */
  #look() {
    this.#open()
    return this.#iteration === null && this.#state !== RUNNING ? this.#free() : this.#prepared
  }

  /** A statement of SQLite for this one's text that is not in use. */
  #free() {
    let prepared = this.#prepared
    if (
      prepared.number === NONE ||
      prepared.inUse ||
      (counting && !prepared.loose) ||
      !this.#connection.isOwn(prepared)
    ) {
      prepared = take(this.#connection, prepared.sql)
      this.#prepared = prepared
      if (prepared.loose) loose.register(this, prepared)
    }
    prepared.recent = true
    return prepared
  }

  /**
   * The statement of SQLite for a call with `values`, which become this statement's. From here to
   * #end() nothing else can be done with this statement: SQLite may call the caller's functions.
   */
  #borrow(values) {
    const connection = this.#connection
    if (this.#state !== IDLE || !connection.isOpen) this.#refuseCall()
    if (channel.hasSubscribers !== connection.traced) trace(connection)
    if (this.#iteration !== null) this.#iteration.invalidate()
    if (this.#failure !== null) {
      const { message, code, errcode, errstr } = this.#failure
      this.#failure = null
      // As in node:sqlite, where resetting the statement fails as its last step did.
      throw Object.assign(new Error(message), { code, errcode, errstr })
    }
    let prepared = this.#free()
    if (values.length > 0 && (prepared.named || needArranging(values))) {
      values = this.#arranged(prepared, values)
      prepared = this.#free()
    }
    this.#values = values
    this.#state = RUNNING
    prepared.inUse = true
    if (prepared.user !== this.#user) prepared.user = prepared.user === 0 ? this.#user : SEVERAL
    return prepared
  }

  /** `values` by position. Runs the caller's getters. */
  #arranged(prepared, values) {
    const names = prepared.parameterNames()
    const arranged = []
    this.#values = arranged
    this.#state = BINDING
    try {
      arrange(names, values, this.#options, arranged)
    } finally {
      this.#state = IDLE
    }
    // The getters may have closed the database.
    this.#open()
    return arranged
  }

  /** A call is over. */
  #end(prepared) {
    const flags = ints[0]
    prepared.inUse = false
    if (this.#connection.traced) publish(this.#connection)
    this.#state = IDLE
    if (flags !== 0) this.#connection.applyReport(flags, prepared)
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
    /** Makes a row, as the statement is set by then: a function in SQL may have set it. */
    this.make = (...values) => (optionsOf(statement).returnArrays ? values : prepared.maker().row(values))
  }

  next() {
    const { prepared, statement } = this
    const { connection } = prepared
    if (!this.begin()) {
      if (this.state === INVALIDATED) throw invalidState('iterator was invalidated')
      return { __proto__: null, done: true, value: null }
    }
    let value
    let flags
    try {
      value = next(prepared.number, optionsOf(statement).readBigInts, this.make)
      flags = ints[0]
    } catch (error) {
      flags = ints[0]
      endStep(statement)
      // What a user function throws may be anything, null too.
      setFailure(statement, error?.errcode === undefined ? null : error)
      if (flags !== 0) connection.applyReport(flags, prepared)
      throw error
    }
    endStep(statement)
    setFailure(statement, null)
    if ((flags & DONE) !== 0) {
      this.release(OVER)
      value = null
    } else if (!this.registered) {
      this.registered = true
      abandoned.register(this, { prepared, lease: prepared.lease })
    }
    if (flags !== 0) connection.applyReport(flags, prepared)
    // A literal of constants, which V8 copies as it is: see row-makers.js.
    const result = { __proto__: null, done: false, value: null }
    if ((flags & DONE) !== 0) result.done = true
    else result.value = value
    return result
  }

  return() {
    const { statement } = this
    if (this.begin()) {
      try {
        this.stop(OVER)
      } finally {
        endStep(statement)
      }
      setFailure(statement, null)
    }
    this.state = OVER
    return { __proto__: null, done: true, value: null }
  }

  /** Whether a step of the statement begins: the iteration is not over. */
  begin() {
    if (this.state === OVER) {
      requireOpen(this.statement)
      return false
    }
    beginStep(this.statement)
    if (this.state === ACTIVE) return true
    endStep(this.statement)
    return false
  }

  invalidate() {
    this.stop(INVALIDATED)
  }

  stop(state) {
    binding.reset(this.prepared.number)
    const flags = ints[0]
    this.release(state)
    if (flags !== 0) this.prepared.connection.applyReport(flags, this.prepared)
  }

  /** The statement of SQLite has been reset. */
  release(state) {
    this.state = state
    forgetIteration(this.statement)
    this.prepared.connection.checkIn(this.prepared)
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

/** A StatementSync of `connection` for `sql`. */
function makeStatement(connection, sql, options) {
  return new Statement(token, take(connection, sql), options)
}

module.exports = { StatementSync, makeStatement, parameterCount }
