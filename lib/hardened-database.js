'use strict'

const { EventEmitter } = require('node:events')
const binding = require('../binding.js')
const { AgentLog } = require('./agent-log.js')
const { Schedule, backupFile, restoreFile } = require('./backups.js')
const { checkFile, checkInBackground } = require('./check.js')
const { DatabaseSync } = require('./database-sync.js')
const { damaged, invalidArgType, invalidState } = require('./errors.js')
const { flushAtExit } = require('./exit.js')
const { pathText } = require('./file-path.js')
const { kClosable, kNumber, kOpen, kStartup, kTransactionEnded } = require('./internal.js')
const { logOptions, profileArguments } = require('./log-options.js')
const { recoverFile } = require('./repair.js')
const { databasePath } = require('./options.js')
const { shown, shownError } = require('./shown.js')
const { Startup, isUnsafe } = require('./startup.js')
const { runTask } = require('./task.js')

const EVENTS = [
  'error',
  'corrupt',
  'replaced',
  'healed',
  'checkpoint',
  'rejected',
  'backpressure',
  'backup',
  'check',
  'recovering',
  'recovered',
]
const MODES = ['passive', 'full', 'restart', 'truncate']

/** Handles of databases that were left to the garbage collector. */
const leftOpen = new FinalizationRegistry((log) => log.release())

/** Their backups that are made by themselves. */
const leftScheduled = new FinalizationRegistry((leave) => leave())

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
  /** Ends this handle's part in the file's backups that are made by themselves. */
  #leaveSchedule = null

  /** What was found when the file was opened, until it is told. */
  #startup = null
  /** Aborted when the database is closed: no check outlives it. */
  #closing = null
  /** Checks under way. */
  #checks = 0

  constructor(path, options) {
    const { options: checked, base, insists } = logOptions(options)
    const open = base.open
    let ahead = options?.[kStartup]
    super(
      path,
      { ...base, open: false },
      {
        [kOpen]: (given) => {
          const text = pathText(given)
          const startup = ahead ?? new Startup(text, checked)
          ahead = undefined
          const number = startup.open(() => binding.openHardened(text, checked.readOnly, ...profileArguments(checked)))
          this.#startup = startup
          return number
        },
      },
    )
    this.#options = checked
    this.#insists = insists
    if (open) this.open()
  }

  static async open(path, options) {
    const { options: checked } = logOptions(options)
    const startup = new Startup(pathText(databasePath(path)), checked)
    await startup.ahead()
    return new this(path, { ...options, open: true, [kStartup]: startup })
  }

  open() {
    super.open()
    this.#closing = new AbortController()
    this.#openWriter()
    this.#tellStartup()
  }

  #openWriter() {
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
      this.#schedule(self)
    } catch (error) {
      super.close()
      throw error
    }
  }

  /** Tells what was found when the file was opened, and checks it now if that is due. */
  #tellStartup() {
    const { health, background, found, recovered } = this.#startup
    this.#startup = null
    const self = new WeakRef(this)
    const signal = this.#closing.signal
    const tellRecovered = (repair) => {
      const database = self.deref()
      if (database === undefined || signal.aborted) return
      HardenedDatabase.#tell(database, 'recovering', repair.health)
      HardenedDatabase.#tell(database, 'recovered', repair.report)
    }
    const tell = (checked) => {
      const database = self.deref()
      if (database === undefined || signal.aborted) return
      HardenedDatabase.#tell(database, 'check', checked)
      // Of a file that is written to, the log's writer tells once it has stopped.
      if (database.#options.readOnly && isUnsafe(checked)) {
        HardenedDatabase.#tell(database, 'corrupt', damaged(checked.path, checked))
      }
    }
    if (recovered !== null) process.nextTick(tellRecovered, recovered)
    if (health !== null) process.nextTick(tell, health)
    if (!background) return
    const checking = checkInBackground(this.location(), signal)
    this.#countCheck(checking)
    checking.then(
      (checked) => tell({ ...checked, findings: [...checked.findings, ...found] }),
      (error) => {
        const database = self.deref()
        if (database !== undefined && !signal.aborted) HardenedDatabase.#tell(database, 'error', error)
      },
    )
  }

  /** Has backups made, where the options ask for them. */
  #schedule(self) {
    const { backups, busyTimeout } = this.#options
    if (backups === undefined || this.#inMemory) return
    this.#leaveSchedule = Schedule.join(this.location(), backups, busyTimeout, (...event) => {
      const database = self.deref()
      if (database !== undefined) HardenedDatabase.#tell(database, ...event)
    })
    leftScheduled.register(this, this.#leaveSchedule, this)
  }

  /** Without a file there is no writer: entries that a ROLLBACK gave back are written here. */
  [kTransactionEnded]() {
    if (this.#inMemory) this.#log?.transactionEnded()
  }

  static #tell(database, name, first, second) {
    if (name === 'corrupt' && first.code !== 'ERR_FUSION_DAMAGED') {
      const health = database.#health()
      if (isUnsafe(health)) first = damaged(first.path, health, first)
    }
    const emitter = database.#emitter
    if (emitter.listenerCount(name) > 0) {
      emitter.emit(name, first, second)
    } else if (name === 'error' || name === 'corrupt' || name === 'replaced') {
      // An 'error' nobody listens to must not end the process: the entries are kept.
      process.emitWarning(shownError(first))
    } else if (name === 'recovered') {
      process.emitWarning(first.text, { type: 'FusionSqliteWarning', code: 'FUSION_RECOVERED' })
    } else if (name === 'rejected') {
      process.emitWarning(shown(`a log entry of task ${second?.taskId} was rejected: ${first.message}`), {
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
    return { ...this.#openLog().stats(), health: this.#health() }
  }

  /** What was found last in the file; null if it was not checked since it was opened first. */
  #health() {
    const health = this.isOpen ? binding.lastHealth(this[kNumber]()) : undefined
    return health === undefined ? null : JSON.parse(health)
  }

  check(options) {
    let checking
    try {
      checking = checkFile(this.#file(), options, this.#closing.signal)
    } catch (error) {
      return Promise.reject(error)
    }
    this.#countCheck(checking)
    return checking
  }

  /** Notes a check that ends with this database, which it does not keep from being forgotten. */
  #countCheck(checking) {
    const self = new WeakRef(this)
    const over = () => {
      const database = self.deref()
      if (database !== undefined) database.#checks--
    }
    this.#checks++
    // Not the promise's own method, which has the process wait.
    Reflect.apply(Promise.prototype.then, checking, [over, over])
  }

  async backup(path, options) {
    return backupFile(this.#file(), path, options, this.#options.busyTimeout)
  }

  async restore(from, options) {
    const file = this.#file()
    const log = this.#openLog()
    if (this.isTransaction) throw invalidState('a transaction of this database is open: end it first')
    try {
      await log.flush()
    } catch (error) {
      // Entries that a damaged file cannot take are kept; the restore may be what helps.
      if (!this.isOpen || log.stats().state !== 'stopped') throw error
    }
    return restoreFile(file, from, options, this.#options.busyTimeout)
  }

  async recover(options) {
    const file = this.#file()
    if (this.isTransaction) throw invalidState('a transaction of this database is open: end it first')
    return recoverFile(file, options)
  }

  /** The path of the file. */
  #file() {
    const file = this.location()
    if (file === null) {
      throw invalidState('the database is in memory and has no file; backup(db, path) of the module copies it')
    }
    return file
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
    this[kClosable]()
    const log = this.#log
    if (log !== null) {
      this.#endTransaction()
      log.flushSync(this.#options.closeTimeout)
    }
    if (this.#endChecks()) binding.checksEnded(this.location())
    if (log !== null) {
      if (AgentLog.waitEnded(this.#letGo(), this.#options.closeTimeout)) this.#removeWal()
    }
    super.close()
  }

  async closeAsync() {
    this[kClosable]()
    if (this.#log !== null) {
      this.#endTransaction()
      await this.#flushWithin(this.#options.closeTimeout)
      // Other calls may have closed it meanwhile, or begun a transaction.
      if (this.#log !== null) {
        this.#endTransaction()
        if (this.#endChecks()) await runTask('checksEnded', { path: this.location() }, { deadline: 0 })
      }
      if (this.#log !== null) {
        this.#endTransaction()
        const inOrder = await AgentLog.whenEnded(this.#letGo())
        if (inOrder && this.isOpen) this.#removeWal()
      }
      if (!this.isOpen) return
    }
    this.#endChecks()
    super.close()
  }

  /** Rejects as `flushAgentLogsSync()` throws: whatever holds the writer up may do so for good. */
  async #flushWithin(timeout) {
    const flushed = this.#log.flush()
    let timer
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeout, true)
    })
    try {
      // Says what is in the way, unless it is not any more.
      if ((await Promise.race([flushed, late])) === true) this.#log?.flushSync(0)
    } finally {
      clearTimeout(timer)
      flushed.catch(() => {})
    }
  }

  /** Cancels the checks of this handle: they would keep the WAL. Whether there were any. */
  #endChecks() {
    const any = this.isOpen && this.#checks > 0
    this.#closing?.abort(invalidState('the database was closed while it was checked'))
    return any
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
    leftScheduled.unregister(this)
    this.#leaveSchedule?.()
    this.#leaveSchedule = null
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

  async [Symbol.asyncDispose]() {
    if (this.isOpen) await this.closeAsync()
  }
}

module.exports = { HardenedDatabase }
