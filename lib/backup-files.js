'use strict'

// Verified, rotated backups of a file, made on request and by themselves, and restores. The work
// is the native side's (src/recovery/backup_file.rs, restore.rs, schedule.rs); lib/backup-api.js is
// node:sqlite's function of that name.

const { integer, keepCopies, known } = require('./option-checks.js')
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

/** File to its schedule on this thread. The native side makes one backup a file and interval. */
const schedules = new Map()

/**
 * The scheduled backups of one file. They are made while at least one handle of this thread that
 * asked for them is open. The options of the first handle apply.
 */
class Schedule {
  #file
  #options
  #patience
  /** One function a handle, which emits `'backup'` and `'error'`. */
  #listeners = new Set()
  #timer
  #running = null

  constructor(file, options, patience) {
    this.#file = file
    this.#options = { ...options, path: options.path ?? defaultPath(file) }
    this.#patience = patience
    schedules.set(file, this)
    this.#wait(Math.min(FIRST, options.interval))
  }

  /** Calls `listener(event, value)` after each backup. Returns a function that ends that. */
  static join(file, options, patience, listener) {
    const schedule = schedules.get(file) ?? new Schedule(file, options, patience)
    schedule.#listeners.add(listener)
    return () => schedule.#leave(listener)
  }

  #leave(listener) {
    this.#listeners.delete(listener)
    if (this.#listeners.size > 0) return
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
      // Aborted because the last handle was closed: no listener is left.
      if (!running.signal.aborted) event = ['error', error]
    }
    this.#running = null
    if (running.signal.aborted) return
    this.#wait(next)
    if (event !== undefined) for (const listener of this.#listeners) listener(...event)
  }
}

module.exports = { Schedule, backupFile, restore, restoreFile, scheduleOptions }
