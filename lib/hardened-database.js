'use strict'

const { EventEmitter } = require('node:events')
const binding = require('../binding.js')
const { AgentLog } = require('./agent-log.js')
const { DatabaseSync } = require('./database-sync.js')
const { invalidArgType, invalidState } = require('./errors.js')
const { flushAtExit } = require('./exit.js')
const { kNumber, kOpen, kTransactionEnded } = require('./internal.js')
const { logOptions, profileArguments } = require('./log-options.js')

const EVENTS = ['error', 'corrupt', 'replaced', 'healed', 'checkpoint', 'rejected', 'backpressure']
const MODES = ['passive', 'full', 'restart', 'truncate']

/** Handles of databases that were left to the garbage collector. */
const leftOpen = new FinalizationRegistry((log) => log.release())

/** `path` as the native open takes it. */
function pathText(path) {
  return typeof path === 'string' ? path : Buffer.from(path).toString()
}

function knownEvent(event) {
  if (EVENTS.includes(event)) return event
  throw invalidArgType(`The "event" argument must be one of ${EVENTS.join(', ')}.`)
}

class HardenedDatabase extends DatabaseSync {
  #options
  #insists
  #emitter = new EventEmitter()
  /** Null while closed, and for a database that was opened to be read only. */
  #log = null
  #inMemory = false

  constructor(path, options) {
    const { options: checked, base, insists } = logOptions(options)
    const open = base.open
    super(
      path,
      { ...base, open: false },
      {
        [kOpen]: (given) => binding.openHardened(pathText(given), checked.readOnly, ...profileArguments(checked)),
      },
    )
    this.#options = checked
    this.#insists = insists
    if (open) this.open()
  }

  open() {
    super.open()
    if (this.#options.readOnly) return
    this.#inMemory = this.location() === null
    try {
      // A listener that captured `this` would keep a forgotten database alive.
      const self = new WeakRef(this)
      this.#log = new AgentLog(this[kNumber](), null, this.#options, this.#insists, (...event) => {
        const database = self.deref()
        if (database !== undefined) HardenedDatabase.#tell(database, ...event)
      })
      leftOpen.register(this, this.#log, this)
      flushAtExit()
    } catch (error) {
      super.close()
      throw error
    }
  }

  /** Without a file there is no writer: entries that a ROLLBACK gave back are written here. */
  [kTransactionEnded]() {
    if (this.#inMemory) this.#log?.transactionEnded()
  }

  static #tell(database, name, first, second) {
    const emitter = database.#emitter
    if (emitter.listenerCount(name) > 0) {
      emitter.emit(name, first, second)
    } else if (name === 'error' || name === 'corrupt' || name === 'replaced') {
      // An 'error' nobody listens to must not end the process: the entries are kept.
      process.emitWarning(first)
    } else if (name === 'rejected') {
      process.emitWarning(`a log entry of task ${second?.taskId} was rejected: ${first.message}`, {
        type: 'FusionSqliteWarning',
        code: 'FUSION_LOG_ENTRY_REJECTED',
      })
    }
  }

  #openLog() {
    if (this.#log === null) {
      const readOnly = this.isOpen && this.#options.readOnly
      throw invalidState(readOnly ? 'the database was opened to be read only' : 'database is not open')
    }
    return this.#log
  }

  appendAgentLogs(entries) {
    try {
      return this.#openLog().append(entries)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  appendAgentLog(entry) {
    return this.#openLog().appendOne(entry)
  }

  flushAgentLogs() {
    try {
      return this.#openLog().flush()
    } catch (error) {
      return Promise.reject(error)
    }
  }

  flushAgentLogsSync(timeoutMs = this.#options.closeTimeout) {
    if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0)) {
      throw invalidArgType('The "timeoutMs" argument must be a number of milliseconds, 0 or more.')
    }
    this.#openLog().flushSync(timeoutMs)
  }

  takePending() {
    return this.#openLog().takePending()
  }

  checkpoint(mode = 'passive') {
    try {
      if (!MODES.includes(mode)) {
        throw invalidArgType(`The "mode" argument must be one of ${MODES.join(', ')}.`)
      }
      return this.#openLog().checkpoint(mode)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  stats() {
    return this.#openLog().stats()
  }

  on(event, listener) {
    this.#emitter.on(knownEvent(event), listener)
    return this
  }

  once(event, listener) {
    this.#emitter.once(knownEvent(event), listener)
    return this
  }

  off(event, listener) {
    this.#emitter.off(knownEvent(event), listener)
    return this
  }

  close() {
    const log = this.#log
    if (log !== null) {
      this.#endTransaction()
      log.flushSync(this.#options.closeTimeout)
      if (AgentLog.waitEnded(this.#letGo(), this.#options.closeTimeout)) this.#removeWal()
    }
    super.close()
  }

  async closeAsync() {
    if (this.#log !== null) {
      this.#endTransaction()
      await this.#log.flush()
      // Other calls may have closed it meanwhile, or begun a transaction.
      if (this.#log !== null) {
        this.#endTransaction()
        const inOrder = await AgentLog.whenEnded(this.#letGo())
        if (inOrder && this.isOpen) this.#removeWal()
      }
      if (!this.isOpen) return
    }
    super.close()
  }

  /** Closing rolls back; before the flush, because the writer waits for that, or for the connection. */
  #endTransaction() {
    if (this.isTransaction) this.exec('ROLLBACK')
    binding.giveUp(this[kNumber]())
  }

  /** Gives the log up. Returns what waits for its writer's end, if this was the last handle. */
  #letGo() {
    const log = this.#log
    this.#log = null
    leftOpen.unregister(this)
    return log.release()
  }

  /** Lets the connection take the WAL with it: the writer has emptied it, so that is quick. */
  #removeWal() {
    binding.checkpointOnClose(this[kNumber]())
  }

  deserialize(...args) {
    if (this.#log !== null) {
      throw invalidState('a database with a log cannot be replaced: open another one with new DatabaseSync()')
    }
    super.deserialize(...args)
  }

  [Symbol.dispose]() {
    if (this.isOpen) this.close()
  }

  async [Symbol.asyncDispose]() {
    if (this.isOpen) await this.closeAsync()
  }
}

module.exports = { HardenedDatabase }
