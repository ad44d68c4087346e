'use strict'

// Verified, rotated backups of a file, made on request and by themselves, and restores. The work
// is the native side's (src/recovery/backup.rs, restore.rs, schedule.rs); lib/backup.js is
// node:sqlite's function of that name.

const { integer, keepCopies, known } = require('./checked.js')
const { invalidArgType } = require('./errors.js')
const { filePath } = require('./file-path.js')
const { runTask, taskOptions } = require('./task.js')

const HOUR = 3_600_000
/** The longest time that a timer can be set for. */
const LONGEST = 2 ** 31 - 1
/** How soon after the first open it is asked whether a backup is due. */
const FIRST = 10_000
/** How long a lock is waited for unless `busyTimeout` says otherwise. */
const PATIENCE = 5000

function verification({ verify = 'full' }) {
  if (verify === false) return 'none'
  if (verify === 'quick' || verify === 'full') return verify
  throw invalidArgType("The \"options.verify\" argument must be 'quick', 'full' or false.")
}

/** What the native `backup` takes, but for the files. */
function copyOptions(options) {
  return {
    verify: verification(options),
    keep: integer(options, 'keep', 2, 2, LONGEST),
    rate: integer(options, 'rate', 1000, 1, LONGEST),
  }
}

/** The result of a task, or the error that it says a damaged file is. */
function undamaged(result, path) {
  if (result.damaged === undefined) return result
  const { message, health } = result.damaged
  throw Object.assign(new Error(message), { code: 'ERR_FUSION_BACKUP_DAMAGED', path, health })
}

/** Where the backups of `file` are kept by default. */
const defaultPath = (file) => `${file}.backup`

/** See backupFile and HardenedDatabase.backup in index.d.ts. */
async function backupFile(path, to, options = {}, patience = PATIENCE) {
  const watch = taskOptions(options, ['verify', 'keep', 'rate'])
  const database = filePath(path)
  const target = to === undefined ? defaultPath(database) : filePath(to, 'to')
  const args = { database, path: target, ...copyOptions(options), patience }
  return undamaged(await runTask('backup', args, watch), database)
}

/** See HardenedDatabase.restore in index.d.ts. */
async function restoreFile(path, from, options = {}, patience = PATIENCE, copies = undefined) {
  const watch = taskOptions(options, ['verify', 'keepCopies'])
  const args = {
    database: filePath(path),
    from: filePath(from, 'from'),
    verify: verification(options),
    keepCopies: keepCopies(options, copies),
    patience,
  }
  return undamaged(await runTask('restore', args, watch), args.from)
}

/** See index.d.ts. */
function restore(path, from, options) {
  return restoreFile(path, from, options)
}

/** The option `backups` of HardenedDatabase, checked; undefined if there are to be none. */
function scheduleOptions(given) {
  if (given === undefined) return undefined
  const options = known(given, ['path', 'interval', 'keep', 'verify'], 'options.backups')
  return {
    path: options.path === undefined ? undefined : filePath(options.path, 'options.backups.path'),
    interval: integer(options, 'interval', HOUR, 1, LONGEST),
    ...copyOptions(options),
  }
}

/** File to its schedule on this thread. The native side makes sure of one in the process. */
const schedules = new Map()

/**
 * The backups of one file that are made by themselves, for as long as a handle of this thread is
 * open that asked for them. The first one's options count.
 */
class Schedule {
  #file
  #options
  #patience
  /** Functions that are told of `'backup'` and `'error'`, one a handle. */
  #tell = new Set()
  #timer
  #running = null

  constructor(file, options, patience) {
    this.#file = file
    this.#options = { ...options, path: options.path ?? defaultPath(file) }
    this.#patience = patience
    schedules.set(file, this)
    this.#wait(Math.min(FIRST, options.interval))
  }

  /** Returns a function that ends it for this handle. `tell(event, value)` answers whether the handle is still there. */
  static join(file, options, patience, tell) {
    const schedule = schedules.get(file) ?? new Schedule(file, options, patience)
    schedule.#tell.add(tell)
    return () => schedule.#leave(tell)
  }

  #leave(tell) {
    this.#tell.delete(tell)
    if (this.#tell.size > 0) return
    clearTimeout(this.#timer)
    this.#running?.abort()
    if (schedules.get(this.#file) === this) schedules.delete(this.#file)
  }

  #wait(time) {
    this.#timer = setTimeout(() => this.#run(), Math.min(Math.max(time, 1), LONGEST))
    this.#timer.unref?.()
  }

  async #run() {
    const { interval, ...options } = this.#options
    const running = (this.#running = new AbortController())
    const args = { database: this.#file, ...options, patience: this.#patience, interval }
    let next = interval
    let event
    try {
      const result = await runTask('backup', args, taskOptions({ signal: running.signal }), false)
      if (result.dueIn === undefined) event = ['backup', undamaged(result, this.#file)]
      else next = result.dueIn
    } catch (error) {
      // Asked to end by the last handle's close: nobody is left to be told.
      if (!running.signal.aborted) event = ['error', error]
    }
    this.#running = null
    if (running.signal.aborted) return
    this.#wait(next)
    if (event !== undefined) for (const tell of this.#tell) tell(...event)
  }
}

module.exports = { Schedule, backupFile, restore, restoreFile, scheduleOptions }
