'use strict'

// appendAgentLogs(path, entries): for callers without a database of their own.

const { existsSync } = require('node:fs')
// A test may have replaced the global ones.
const { clearTimeout, setTimeout } = require('node:timers')
const { isDeepStrictEqual } = require('node:util')
const { AgentLog } = require('./agent-log.js')
const { optionsConflict } = require('./errors.js')
const { filePath } = require('./file-path.js')
const { logOptions } = require('./log-options.js')
const { warn } = require('./unhandled-events.js')

/** How long a log stays open after its last append, in milliseconds. */
const IDLE = 5000

/** Path to the log that is open for it. */
const open = new Map()

class Shared {
  constructor(path, given) {
    const { options, explicitOptions } = logOptions(given, false)
    this.path = path
    this.options = options
    this.pending = 0
    this.timer = undefined
    // The promises report rejected rows; what has no promise has a warning.
    this.log = new AgentLog(null, path, options, explicitOptions, (name, ...event) => {
      if (name !== 'rejected') warn(name, ...event)
    })
    open.set(path, this)
  }

  /** The first call decides; a later one may ask for the same only. */
  check(given) {
    const { options, explicitOptions } = logOptions(given, false)
    options.needsCounter = this.options.needsCounter
    if (explicitOptions && !isDeepStrictEqual(options, this.options)) throw optionsConflict(this.path)
  }

  async append(entries) {
    clearTimeout(this.timer)
    this.pending++
    try {
      return await this.log.append(entries)
    } finally {
      if (--this.pending === 0) this.leave()
    }
  }

  /** Closes the log once it is not in use. Does not keep the process alive for that. */
  leave() {
    const { state } = this.log.stats()
    // A stopped log writes nothing more, and a later append() must open the file afresh.
    if (state === 'stopped' && this.hasFile()) return this.close()
    this.timer = setTimeout(() => {
      // Closing the log would discard rows that cannot be written; an open log keeps them.
      if (this.log.stats().queue.rows > 0) this.leave()
      else this.close()
    }, IDLE).unref()
  }

  /** Without one a log that stopped is kept: it alone knows whose `-wal` is at the path, should a file come there. */
  hasFile() {
    return existsSync(this.path)
  }

  /** Whether another file has come to the path since the log stopped, or its own is back. */
  isOver() {
    return this.pending === 0 && this.log.isDisplaced && this.hasFile()
  }

  close() {
    clearTimeout(this.timer)
    open.delete(this.path)
    this.log.leave()
  }
}

/** See index.d.ts. */
async function appendAgentLogs(path, entries, options) {
  const file = filePath(path)
  if (open.get(file)?.isOver()) open.get(file).close()
  const shared = open.get(file)
  shared?.check(options)
  return (shared ?? new Shared(file, options)).append(entries)
}

module.exports = { appendAgentLogs }
