'use strict'

// A handle on a file's log: takes entries apart, and gives figures their shape.

const { invalidArgType, invalidArgValue } = require('./errors.js')
const { logArguments } = require('./log-options.js')
const { binding, own, process } = require('./native.js')
const { withCaller } = require('./stack.js')

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

/** Says which entry a complaint of the native side is about; it knows further columns by number. */
function complain(error, where, columns) {
  if (error?.code === 'ERR_INVALID_ARG_TYPE' && !error.message.startsWith(where)) {
    error.message = `${where}.${error.message.replace(/^#(\d+)/, (_, number) => columns[number])}`
  }
  return error
}

/**
 * The first key of `entry` that has no column, so that its value would be lost; or undefined.
 * Undefined and inherited values do not count.
 */
function strangeKey(entry, columns) {
  // Comparing the keys of a loop costs a twentieth of an entry; a list of them, four times as much.
  for (const key in entry) {
    if (
      key === 'taskId' ||
      key === 'text' ||
      key === 'type' ||
      key === 'detail' ||
      key === 'agent' ||
      key === 'timestamp'
    ) {
      continue
    }
    if (columns.includes(key) || entry[key] === undefined || !Object.hasOwn(entry, key)) continue
    // Without a task it is no entry, which the native side says.
    return typeof entry.taskId === 'string' ? key : undefined
  }
  return undefined
}

function notAColumn(where, key) {
  return invalidArgValue(
    `${where}.${key} would not be stored: the log writes taskId, timestamp, text, type, detail and agent, and the ` +
      'columns that the option "columns" names.',
  )
}

function notAnEntry(where) {
  return invalidArgType(`${where} must be an object with taskId, text and type.`)
}

// How an entry is abbreviated for the native side: see `shape` in src/node/agent_log.rs. Reading a
// string out of V8 costs a fifth of an entry, and most are the same as before.
const SAME_TASK = 1
const SAME_TIMESTAMP = 2
const SAME_AGENT = 4
const NO_DETAIL = 8
const NO_AGENT = 16
const INTERNED_TYPE = 32
const INTERNED_SHIFT = 8

/** Type to the bits that name it. */
const internedTypes = new Map()

/** The bits that name `type`; 0: it is passed as it is, and checked. */
function typeBits(type) {
  const bits = internedTypes.get(type)
  if (bits !== undefined || typeof type !== 'string' || internedTypes.size === 256) return bits ?? 0
  const number = binding.logInternType(type)
  if (number === undefined) return 0
  internedTypes.set(type, INTERNED_TYPE | (number << INTERNED_SHIFT))
  return internedTypes.get(type)
}

/** Calls `callback` once the turn of the event loop is over, its microtasks included. */
function endOfTurn(callback) {
  process.nextTick(callback)
}

/** Logs that took entries in this turn for callers that wait. */
const appendedTo = new Set()

/**
 * Has the writer of log `number` begin when this turn ends: all who append in it share a batch.
 * Where the report stays out, the writer begins a few milliseconds later.
 */
function reportTurnsEnd(number) {
  if (appendedTo.size === 0) {
    endOfTurn(() => {
      for (const log of appendedTo) binding.logTurnEnded(log)
      appendedTo.clear()
    })
  }
  appendedTo.add(number)
}

/** A receipt for `rows` entries: see `receipt_value` in src/node/js_events.rs. */
function receiptOf(given, rows) {
  if (typeof given === 'number') {
    return { committed: rows, rejected: [], firstId: given, lastId: given + rows - 1 }
  }
  const [committed, firstId, lastId, rejections = []] = given
  // Not its own map(): that makes an array of the addon's realm.
  const rejected = Array.from(rejections, ([index, code, errcode, message]) => ({ index, code, errcode, message }))
  return { committed, rejected, firstId, lastId }
}

/** The receipt that `promise` is for. It does not hold the entries meanwhile. */
async function receipt(promise, rows) {
  try {
    return receiptOf(await promise, rows)
  } catch (error) {
    if (error.receipt !== undefined) error.receipt = receiptOf(error.receipt, rows)
    throw withCaller(error)
  }
}

/** What `shape` makes of what the native side's promise is for; its errors get a stack. */
async function answer(promise, shape = (value) => value) {
  try {
    return shape(await promise)
  } catch (error) {
    throw withCaller(error)
  }
}

class AgentLog {
  /** The native number; null once released. */
  #number
  /** Further columns, as the log's first handle named them. */
  #columns

  /** @param {number | null} database number of the open database; null: the file at `path` */
  constructor(database, path, options, explicitOptions, takeEvent) {
    const receiver = (name, first, second) => {
      if (name === 'recovering' || name === 'recovered') first = JSON.parse(first)
      takeEvent(name, own(first), second)
    }
    this.#number = binding.logOpen(receiver, database, path, explicitOptions, ...logArguments(options))
    this.#columns = binding.logColumns(this.#number)
  }

  /** Takes all of `entries`, or none of them: then it throws. */
  append(entries) {
    if (!Array.isArray(entries)) {
      throw invalidArgType('The "entries" argument must be an array.')
    }
    binding.logBegin()
    const columns = this.#columns
    let i = 0
    let staging = false
    try {
      let lastTask, lastTimestamp, lastAgent
      for (; i < entries.length; i++) {
        const entry = entries[i]
        if (typeof entry !== 'object' || entry === null) throw notAnEntry(`entries[${i}]`)
        const strange = strangeKey(entry, columns)
        if (strange !== undefined) throw notAColumn(`entries[${i}]`, strange)
        const { taskId, text, type, detail, agent } = entry
        let shape = typeBits(type)
        if (taskId === lastTask && i > 0) shape |= SAME_TASK
        let at = entry.timestamp
        if (at === undefined || at === null) {
          at = timestamp()
          // Given ones differ as a rule, and comparing two strings that do costs like reading one.
          if (at === lastTimestamp) shape |= SAME_TIMESTAMP
        }
        if (detail === undefined || detail === null) shape |= NO_DETAIL
        if (agent === undefined || agent === null) shape |= NO_AGENT
        else if (agent === lastAgent) shape |= SAME_AGENT
        if (columns.length === 0) {
          staging = true
          binding.logStage(shape, taskId, at, text, type, detail, agent)
        } else {
          const more = columns.map((column) => entry[column])
          staging = true
          binding.logStage(shape, taskId, at, text, type, detail, agent, ...more)
        }
        staging = false
        lastTask = taskId
        lastTimestamp = at
        lastAgent = agent
      }
    } catch (error) {
      binding.logAbort()
      // What a getter of the entry throws is the caller's own.
      throw staging ? complain(error, `entries[${i}]`, columns) : error
    }
    const promise = binding.logSubmit(this.#number)
    reportTurnsEnd(this.#number)
    return receipt(promise, i)
  }

  /** Takes one entry; false: the queue is full. */
  appendOne(entry) {
    if (typeof entry !== 'object' || entry === null) throw notAnEntry('entry')
    const columns = this.#columns
    const strange = strangeKey(entry, columns)
    if (strange !== undefined) throw notAColumn('entry', strange)
    const { taskId, text, type, detail, agent } = entry
    const time = entry.timestamp ?? timestamp()
    const more = columns.length === 0 ? columns : columns.map((column) => entry[column])
    try {
      let shape = typeBits(type)
      if (detail === undefined || detail === null) shape |= NO_DETAIL
      if (agent === undefined || agent === null) shape |= NO_AGENT
      return binding.logAppendOne(this.#number, shape, taskId, time, text, type, detail, agent, ...more)
    } catch (error) {
      throw complain(error, 'entry', columns)
    }
  }

  flush() {
    return answer(binding.logFlush(this.#number))
  }

  flushSync(timeout) {
    binding.logFlushSync(this.#number, timeout)
  }

  /** From here on every read of the database comes after a flush, which waits for up to `timeout`. */
  flushBeforeReads(timeout) {
    binding.logFlushBeforeReads(this.#number, timeout)
  }

  transactionEnded() {
    binding.logTransactionEnded(this.#number)
  }

  /** Whether writing has stopped because the path leads to another file, or to none. */
  get isDisplaced() {
    return binding.logIsDisplaced(this.#number)
  }

  /** Moves what is not committed, and who waits for it, to the log `next`. */
  moveTo(next) {
    binding.logMove(this.#number, next.#number)
  }

  takePending() {
    return binding.logTakePending(this.#number)
  }

  checkpoint(mode) {
    return answer(binding.logCheckpoint(this.#number, mode), (outcome) => ({ ...outcome }))
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
      healed: figures.healed,
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

  /**
   * Releases the handle. If it was the last one, returns what `waitEnded` or `whenEnded` must be
   * called with; else undefined.
   */
  release() {
    return binding.logRelease(this.#number)
  }

  /** Releases the handle. The writer ends without this thread. */
  leave() {
    AgentLog.waitEnded(this.release(), 0)
  }

  /**
   * Blocks until the writer of a released log has ended, at most `timeout` ms. Returns whether it
   * has ended and left the file in order.
   */
  static waitEnded(released, timeout) {
    return released !== undefined && binding.logWaitEnded(released, timeout)
  }

  /** The same without blocking the thread. */
  static async whenEnded(released) {
    if (released === undefined) return false
    try {
      await binding.logWhenEnded(released)
      return true
    } catch {
      // The log has already emitted this error as an event.
      return false
    }
  }
}

module.exports = { AgentLog }
