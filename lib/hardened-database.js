'use strict'

const { EventEmitter, errorMonitor } = require('node:events')
const { AgentLog } = require('./agent-log.js')
const { flag, known } = require('./option-checks.js')
const { Schedule, backupFile, restoreFile } = require('./backup-files.js')
const { checkFile, checkInBackground } = require('./check.js')
const { DatabaseSync } = require('./database-sync.js')
const { damaged, invalidArgType, invalidState } = require('./errors.js')
const { filePath, resolvedPath, withoutFile } = require('./file-path.js')
const { kClosable, kClose, kNumber, kOpen, kSetting, kStartup, kTransactionEnded } = require('./internal.js')
const { logOptions, openingArguments } = require('./log-options.js')
const { binding, process } = require('./native.js')
const { databasePath, deserializeTarget } = require('./options.js')
const { recoverFile } = require('./repair.js')
const { BUMP } = require('./schema.js')
const { Settings } = require('./settings.js')
const { Startup, isUnsafe } = require('./startup.js')
const { runTask } = require('./task.js')
const { warn } = require('./unhandled-events.js')

const MODES = ['passive', 'full', 'restart', 'truncate']

/** Handles of databases that were left to the garbage collector. */
const leftOpen = new FinalizationRegistry((log) => log.leave())

/** Their backups that are made by themselves. */
const leftScheduled = new FinalizationRegistry((leave) => leave())

/** Gives `database` the state of an EventEmitter, in properties that are not enumerable. */
function becomeEmitter(database) {
  const before = new Set(Reflect.ownKeys(database))
  EventEmitter.call(database)
  for (const key of Reflect.ownKeys(database)) {
    if (!before.has(key)) Object.defineProperty(database, key, { enumerable: false, configurable: true })
  }
}

class HardenedDatabase extends DatabaseSync {
  #options
  #explicitOptions
  /** Null while the database is closed, and for a read-only database. */
  #log = null
  #inMemory = false
  /** Removes this handle from the file's scheduled backups. */
  #leaveSchedule = null

  /** What the startup check found, until it is emitted. */
  #startup = null
  /** Aborted when the database is closed: no check outlives it. */
  #closing = null
  /** Checks under way. */
  #checks = 0
  #settings = new Settings(this)

  constructor(path, options) {
    // First, as in node:sqlite.
    databasePath(path)
    const { options: checked, base, explicitOptions } = logOptions(options)
    const open = base.open
    let ahead = options?.[kStartup]
    super(
      path,
      { ...base, open: false },
      {
        [kOpen]: (given) => {
          const resolved = resolvedPath(given)
          const startup = ahead ?? new Startup(resolved, checked)
          ahead = undefined
          const number = startup.open(() => binding.openHardened(resolved, ...openingArguments(checked)))
          this.#startup = startup
          return number
        },
      },
    )
    becomeEmitter(this)
    this.#options = checked
    this.#explicitOptions = explicitOptions
    if (open) this.open()
  }

  static async open(path, options) {
    const resolved = resolvedPath(path)
    const { options: checked } = logOptions(options)
    const startup = new Startup(resolved, checked)
    await startup.ahead()
    return new this(resolved, { ...options, open: true, [kStartup]: startup })
  }

  open() {
    super.open()
    this.#closing = new AbortController()
    this.#openWriter()
    this.#reportStartup()
  }

  #openWriter() {
    if (this.#options.readOnly) return
    this.#inMemory = this.location() === null
    try {
      this.#log = this.#newLog()
      leftOpen.register(this, this.#log, this)
      if (this.#options.flushBeforeReads) this.#log.flushBeforeReads(this.#options.closeTimeout)
      this.#schedule(new WeakRef(this))
    } catch (error) {
      super.close()
      throw error
    }
  }

  #newLog() {
    // A listener that captured `this` would keep a forgotten database alive.
    const self = new WeakRef(this)
    return new AgentLog(this[kNumber](), null, this.#options, this.#explicitOptions, (...event) => {
      const database = self.deref()
      if (database !== undefined) HardenedDatabase.#report(database, ...event)
    })
  }

  reopen(options = {}) {
    const number = this[kNumber]()
    const create = flag(known(options, ['create']), 'create', false)
    const another = binding.prepareReopen(number, create)
    if (another === null && !this.#log?.isDisplaced) return this
    this.#endTransaction()
    this.#endChecks()
    const startup = new Startup(another ?? this.location(), this.#options)
    startup.open(() => {
      binding.reopen(number, create)
      return number
    })
    this.#startup = startup
    this.#closing = new AbortController()
    if (this.#log !== null) this.#moveLog()
    this.#reportStartup()
    return this
  }

  /** Opens the log of the file that is open now, with what the one before has not written. */
  #moveLog() {
    const before = this.#log
    const log = this.#newLog()
    before.moveTo(log)
    leftOpen.unregister(this)
    leftOpen.register(this, log, this)
    this.#log = log
    before.leave()
  }

  /** Emits what the startup check found, and starts a check in the background if one is due. */
  #reportStartup() {
    const { health, background, found, recovered } = this.#startup
    this.#startup = null
    const self = new WeakRef(this)
    const signal = this.#closing.signal
    const reportRecovered = (repair) => {
      const database = self.deref()
      if (database === undefined || signal.aborted) return
      HardenedDatabase.#report(database, 'recovering', repair.health)
      HardenedDatabase.#report(database, 'recovered', repair.report)
    }
    const reportCheck = (checked) => {
      const database = self.deref()
      if (database === undefined || signal.aborted) return
      HardenedDatabase.#report(database, 'check', checked)
      // For a writable file the log's writer emits 'corrupt', once it has stopped writing.
      if (database.#options.readOnly && isUnsafe(checked)) {
        HardenedDatabase.#report(database, 'corrupt', damaged(checked.path, checked))
      }
    }
    if (recovered !== null) process.nextTick(reportRecovered, recovered)
    if (health !== null) process.nextTick(reportCheck, health)
    if (!background) return
    const checking = checkInBackground(this.location(), signal)
    this.#countCheck(checking)
    checking.then(
      (checked) => reportCheck({ ...checked, findings: [...checked.findings, ...found] }),
      (error) => {
        const database = self.deref()
        if (database !== undefined && !signal.aborted) HardenedDatabase.#report(database, 'error', error)
      },
    )
  }

  /** Joins the file's scheduled backups, if the option `backups` is set. */
  #schedule(self) {
    const { backups, busyTimeout } = this.#options
    if (backups === undefined || this.#inMemory) return
    this.#leaveSchedule = Schedule.join(this.location(), backups, busyTimeout, (...event) => {
      const database = self.deref()
      if (database !== undefined) HardenedDatabase.#report(database, ...event)
    })
    leftScheduled.register(this, this.#leaveSchedule, this)
  }

  /** A database in memory has no writer thread: entries that a ROLLBACK undid are written here. */
  [kTransactionEnded]() {
    if (this.#inMemory) this.#log?.transactionEnded()
  }

  /** After a PRAGMA. */
  [kSetting]() {
    if (!this.#inMemory) this.#settings.mayHaveChanged(!this.#options.readOnly)
  }

  static #report(database, name, first, second) {
    if (name === 'corrupt' && first.code !== 'ERR_FUSION_DAMAGED') {
      const health = database.#health()
      if (isUnsafe(health)) first = damaged(first.path, health, first)
    }
    if (name === 'error' && database.listenerCount(errorMonitor) > 0 && database.listenerCount(name) === 0) {
      database.emit(errorMonitor, first)
    }
    if (database.listenerCount(name) > 0) database.emit(name, first, second)
    else warn(name, first, second)
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

  bumpChangeCounter(key = this.#options.changeCounter ?? 'lastModified') {
    if (typeof key !== 'string') throw invalidArgType('The "key" argument must be a string.')
    const [value] = Object.values(super.prepare(`${BUMP} RETURNING value`).get(key))
    return Number(value)
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
      checking = checkFile(this.#file('check'), options, this.#closing.signal)
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
    return backupFile(this.#file('backup'), path, options, this.#options.busyTimeout)
  }

  async restore(from, options) {
    const file = this.#file('restore')
    from = filePath(from, 'from')
    const log = this.#openLog()
    this.#refuseInTransaction()
    const { busyTimeout, keepCopies } = this.#options
    try {
      await this.#flushWithin(busyTimeout)
    } catch (error) {
      // Entries that a damaged file cannot take are kept; the restore may be what helps.
      if (!this.isOpen || log.stats().state !== 'stopped') throw error
    }
    return restoreFile(file, from, options, busyTimeout, keepCopies)
  }

  /** What a thread of its own is to write to the file would wait for such a transaction in vain. */
  #refuseInTransaction() {
    if (this.isTransaction) throw invalidState('a transaction of this database is open: end it first')
    binding.refuseOwnTransaction(this[kNumber]())
  }

  async recover(options) {
    const file = this.#file('recover')
    this.#refuseInTransaction()
    return recoverFile(file, options, true, this.#options.keepCopies)
  }

  /** The path of the file that `operation` is about. */
  #file(operation) {
    const file = this.location()
    if (file === null) throw withoutFile(operation)
    return file
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

  [kClose]() {
    this.close()
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
    if (this.#log !== null && !this.#inMemory && deserializeTarget(args[1]).toLowerCase() === 'main') {
      throw invalidState(
        'a database with a file and a log cannot be replaced: open another one with new DatabaseSync()',
      )
    }
    super.deserialize(...args)
  }

  async [Symbol.asyncDispose]() {
    if (this.isOpen) await this.closeAsync()
  }
}

// A database cannot extend two classes. Node's functions on emitters, and EventEmitter's own
// methods, work on whatever has these methods and was given the state that they use.
for (const [name, method] of Object.entries(Object.getOwnPropertyDescriptors(EventEmitter.prototype))) {
  if (!(name in HardenedDatabase.prototype)) Object.defineProperty(HardenedDatabase.prototype, name, method)
}
for (const symbol of Object.getOwnPropertySymbols(EventEmitter.prototype)) {
  const property = Object.getOwnPropertyDescriptor(EventEmitter.prototype, symbol)
  Object.defineProperty(HardenedDatabase.prototype, symbol, property)
}

module.exports = { HardenedDatabase }
