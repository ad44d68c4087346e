'use strict'

// What is accepted is written before the process ends: Node runs 'exit' listeners on a natural
// exit, on process.exit(), after an uncaught exception and after an unhandled rejection. Nothing
// runs on a signal that is not handled. A worker's entries are in the process's own queues, which the
// native side waits for too, so that its end needs nothing here.
//
// A transaction that this thread has open keeps its log from writing. A listener that runs after this
// one may commit it, so that it is rolled back later, when the process itself ends and no JavaScript
// runs any more; the native side is called then, but on the systems below.

const { isMainThread } = require('node:worker_threads')
const binding = require('../binding.js')
const { shown } = require('./shown.js')

let armed = false

/** Sees to it that the process's end waits for its logs. */
function flushAtExit() {
  if (armed || !isMainThread) return
  armed = true
  const isLast = process.platform === 'win32' || (process.platform === 'darwin' && 'bun' in process.versions)
  process.on('exit', () => {
    // No listener runs any more.
    for (const sentence of binding.flushAll(isLast)) console.error(`fusion-sqlite: ${shown(sentence)}`)
  })
}

module.exports = { flushAtExit }
