'use strict'

// A handle on a file's log: takes entries apart, and gives figures their shape.

const binding = require('../binding.js')
const { invalidArgType } = require('./errors.js')
const { logArguments } = require('./log-options.js')
const { ask, connect, ignore, listen } = require('./mailbox.js')

let lastId = 0
let stamped = 0
let stamp = ''

/** The time now, as Fusion writes it: ISO-8601, milliseconds, Z. */
function timestamp() {
  const now = Date.now()
  if (now !== stamped) {
    stamped = now
    stamp = new Date(now).toISOString()
  }
  return stamp
}

/** Says which entry a complaint of the native side is about. */
function complain(error, where) {
  if (error?.code === 'ERR_INVALID_ARG_TYPE') error.message = `${where}.${error.message}`
  return error
}

function noEntry(where) {
  return invalidArgType(`${where} must be an object with taskId, text and type.`)
}

class AgentLog {
  #id = ++lastId
  /** The native number; null once released. */
  #number

  /** @param {number | null} database number of the open database; null: the file at `path` */
  constructor(database, path, options, insists, takeEvent) {
    connect()
    this.#number = binding.logOpen(this.#id, database, path, insists, ...logArguments(options))
    listen(this.#id, takeEvent)
  }

  /** Takes all of `entries`, or none of them. */
  append(entries) {
    return ask((ticket) => {
      if (!Array.isArray(entries)) {
        throw invalidArgType('The "entries" argument must be an array.')
      }
      binding.logBegin()
      let i = 0
      let staging = false
      try {
        for (; i < entries.length; i++) {
          const entry = entries[i]
          if (typeof entry !== 'object' || entry === null) throw noEntry(`entries[${i}]`)
          const { taskId, text, type, detail, agent } = entry
          const time = entry.timestamp ?? timestamp()
          staging = true
          binding.logStage(taskId, time, text, type, detail, agent)
          staging = false
        }
      } catch (error) {
        binding.logAbort()
        // What a getter of the entry throws is the caller's own.
        throw staging ? complain(error, `entries[${i}]`) : error
      }
      binding.logSubmit(this.#number, ticket)
    })
  }

  /** Takes one entry; false: the queue is full. */
  appendOne(entry) {
    if (typeof entry !== 'object' || entry === null) throw noEntry('entry')
    const { taskId, text, type, detail, agent } = entry
    const time = entry.timestamp ?? timestamp()
    try {
      return binding.logAppendOne(this.#number, taskId, time, text, type, detail, agent)
    } catch (error) {
      throw complain(error, 'entry')
    }
  }

  flush() {
    return ask((ticket) => binding.logFlush(this.#number, ticket))
  }

  flushSync(timeout) {
    binding.logFlushSync(this.#number, timeout)
  }

  transactionEnded() {
    binding.logTransactionEnded(this.#number)
  }

  takePending() {
    return binding.logTakePending(this.#number)
  }

  checkpoint(mode) {
    return ask((ticket) => binding.logCheckpoint(this.#number, mode, ticket))
  }

  stats() {
    const figures = binding.logStats(this.#number)
    const latency = (name) => ({
      p50: figures[`${name}P50`],
      p99: figures[`${name}P99`],
      max: figures[`${name}Max`],
    })
    return {
      state: figures.state ?? 'writing',
      error: figures.error ?? null,
      queue: {
        rows: figures.queuedRows,
        bytes: figures.queuedBytes,
        limitBytes: figures.limitBytes,
        refused: figures.refused,
      },
      batches: figures.batches,
      rows: figures.rows,
      rejected: figures.rejected,
      takenBack: figures.takenBack,
      bytes: figures.bytes,
      retries: figures.retries,
      failures: figures.failures,
      commitMs: latency('commit'),
      appendMs: latency('append'),
      wal: {
        frames: figures.walFrames,
        backfilled: figures.walBackfilled,
        bytes: figures.walBytes,
        peakBytes: figures.walPeakBytes,
      },
      checkpoints: {
        passive: figures.passive,
        full: figures.full,
        restart: figures.restart,
        truncate: figures.truncate,
        busy: figures.busy,
        busySince: Number.isNaN(figures.busySince) ? null : new Date(figures.busySince),
        failed: figures.checkpointsFailed,
      },
    }
  }

  /** Gives the handle up. Returns what `waitEnded` and `whenEnded` take, if it was the last. */
  release() {
    ignore(this.#id)
    return binding.logRelease(this.#number)
  }

  /** Stands still until the writer of a released log has ended, at most `timeout` ms. */
  static waitEnded(released, timeout) {
    if (released !== undefined) binding.logWaitEnded(released, timeout)
  }

  static whenEnded(released) {
    if (released === undefined) return Promise.resolve()
    return ask((ticket) => binding.logWhenEnded(released, ticket))
  }
}

module.exports = { AgentLog }
