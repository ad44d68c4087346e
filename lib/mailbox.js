'use strict'

// Answers and events from the writers, and who waits for them. One mailbox a JavaScript thread;
// it keeps the process alive only while somebody awaits an answer.

const binding = require('../binding.js')

/** Ticket to { resolve, reject } of the promise that waits for it. */
const waiting = new Map()
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
  if (waiting.size === 0) binding.keepAlive(false)
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
  } else {
    logs.get(number)?.(first, second, third)
  }
}

/**
 * A promise for the answer to what `post` asks for under the ticket it is given. What `post`
 * throws rejects the promise.
 */
function ask(post) {
  return new Promise((resolve, reject) => {
    const ticket = ++lastTicket
    if (waiting.size === 0) binding.keepAlive(true)
    waiting.set(ticket, { resolve, reject })
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

module.exports = { ask, connect, ignore, listen }
