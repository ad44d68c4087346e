'use strict'

// A task of the native side (a check, a repair, a backup) as a promise with an AbortSignal, a
// deadline and progress. See src/node/task.rs.

const { known } = require('./option-checks.js')
const { invalidArgType } = require('./errors.js')
const { binding } = require('./native.js')
const { withStackOf } = require('./stack.js')

const OF_EVERY_TASK = ['signal', 'deadline', 'progress']

/** The options of every task, checked; `own` are the names of this task's further options. */
function taskOptions(options = {}, own = []) {
  known(options, [...own, ...OF_EVERY_TASK])
  const { signal, deadline = 0, progress } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw invalidArgType('The "options.signal" argument must be an AbortSignal.')
  }
  if (typeof deadline !== 'number' || !(deadline >= 0)) {
    throw invalidArgType('The "options.deadline" argument must be a number of milliseconds, 0 or more.')
  }
  if (progress !== undefined && typeof progress !== 'function') {
    throw invalidArgType('The "options.progress" argument must be a function.')
  }
  return { signal, deadline, progress }
}

/**
 * Runs the task `name`. It keeps the process alive while it runs, unless `keepsAlive` is false.
 * @param {{ signal?: AbortSignal, deadline: number, progress?: Function }} watch of `taskOptions`
 * @param {(keep: () => void) => void} [started] given what has the process wait for it after all
 */
async function runTask(name, args, { signal, deadline, progress }, keepsAlive = true, started = undefined) {
  const call = new Error()
  signal?.throwIfAborted()
  const report = progress && ((stage, done, total) => progress({ stage, done, total }))
  const [ticket, promise] = binding.taskStart(name, JSON.stringify(args), deadline, keepsAlive, report)
  const cancel = () => binding.taskCancel(ticket)
  started?.(() => binding.taskKeep(ticket))
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    return JSON.parse(await promise)
  } catch (error) {
    throw signal?.aborted && error.code === 'ERR_FUSION_CANCELLED' ? signal.reason : withStackOf(call, error)
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}

/** The promise of a task. It keeps the process alive only while it is awaited. */
class Awaitable extends Promise {
  #keep = undefined
  #isAwaited = false

  static get [Symbol.species]() {
    return Promise
  }

  /** @param {(started: (keep: () => void) => void) => Promise} run begins the task */
  static of(run) {
    let settle
    const promise = new Awaitable((...both) => (settle = both))
    const running = run((keepAlive) => {
      promise.#keep = keepAlive
      if (promise.#isAwaited) keepAlive()
    })
    running.then(...settle)
    return promise
  }

  // `await`, `catch`, `finally` and whatever takes promises come here.
  // oxlint-disable-next-line unicorn/no-thenable -- to be awaited is what it is for
  then(...reactions) {
    this.#isAwaited = true
    this.#keep?.()
    return super.then(...reactions)
  }
}

module.exports = { Awaitable, runTask, taskOptions }
