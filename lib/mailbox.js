'use strict'

// Answers and events from the writers, and who waits for them. One mailbox a JavaScript thread;
// it keeps the process alive only while somebody awaits an answer.

const binding = require('../binding.js')

/** Ticket to { resolve, reject, progress, keepsAlive } of the promise that waits for it. */
const waiting = new Map()
/** How many of them keep the process alive. */
let keeping = 0
/** Number of a log to the function that takes its events. */
const logs = new Map()
let lastTicket = 0
let connected = false

/** Connects this thread's mailbox, once. */
function connect() {
  if (connected) return
  binding.connectMailbox(receive)
  connected = true
}

function settle(ticket) {
  const promise = waiting.get(ticket)
  waiting.delete(ticket)
  if (promise?.keepsAlive && --keeping === 0) binding.keepAlive(false)
  return promise
}

function receive(kind, number, first, second, third, fourth, fifth) {
  if (kind === 'receipt') {
    const promise = settle(number)
    const receipt = { committed: second, rejected: third, firstId: fourth, lastId: fifth }
    if (first === undefined) promise.resolve(receipt)
    else promise.reject(Object.assign(first, { receipt }))
  } else if (kind === 'done') {
    const promise = settle(number)
    if (first === undefined) promise.resolve(second)
    else promise.reject(first)
  } else if (kind === 'json') {
    settle(number)?.resolve(JSON.parse(first))
  } else if (kind === 'stage') {
    waiting.get(number)?.progress?.(first, second, third)
  } else if (kind === 'told') {
    logs.get(number)?.(first, JSON.parse(second))
  } else {
    logs.get(number)?.(first, second, third)
  }
}

/** Has the process wait for the answer under `ticket`, if it does not yet. */
function keep(ticket) {
  const promise = waiting.get(ticket)
  if (promise === undefined || promise.keepsAlive) return
  promise.keepsAlive = true
  if (keeping++ === 0) binding.keepAlive(true)
}

/**
 * A promise for the answer to what `post` asks for under the ticket it is given. What `post`
 * throws rejects the promise. `progress(stage, done, total)` is told how far a task is.
 */
function ask(post, { keepsAlive = true, progress } = {}) {
  return new Promise((resolve, reject) => {
    const ticket = ++lastTicket
    if (keepsAlive && keeping++ === 0) binding.keepAlive(true)
    waiting.set(ticket, { resolve, reject, progress, keepsAlive })
    try {
      post(ticket)
    } catch (error) {
      settle(ticket).reject(error)
    }
  })
}

/** Has `take(name, …)` called with the events of log `number`. */
function listen(number, take) {
  logs.set(number, take)
}

/** No more events of log `number`. */
function ignore(number) {
  logs.delete(number)
}

module.exports = { ask, connect, ignore, keep, listen }
