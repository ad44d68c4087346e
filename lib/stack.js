'use strict'

// Errors that the native side makes while no JavaScript runs have no stack. They are given one that
// leads to the application's call.

const { own } = require('./native.js')

/**
 * `error`, thrown on in an async function: V8 finds who awaits it, and costs nothing where there is
 * no error.
 */
function withCaller(error) {
  Error.captureStackTrace?.(own(error), withCaller)
  return error
}

/** `error` with the stack of `call`, an error that was made when the application called. */
function withStackOf(call, error) {
  const { stack } = own(error)
  const frames = String(call.stack).indexOf('\n')
  if (frames > 0) error.stack = stack + call.stack.slice(frames)
  return error
}

module.exports = { withCaller, withStackOf }
