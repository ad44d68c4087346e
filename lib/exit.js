'use strict'

// What is accepted is written before the process ends: Node runs 'exit' listeners on a natural
// exit, on process.exit(), after an uncaught exception and after an unhandled rejection. Nothing
// runs on a signal that is not handled. A worker's entries are in the process's own queues, which the
// native side waits for too, so that its end needs nothing here.

const binding = require('../binding.js')
const { shown } = require('./shown.js')

let armed = false

/** Sees to it that the process's end waits for its logs. */
function flushAtExit() {
  if (armed) return
  armed = true
  // Required here: it takes a tenth of the time that the package needs to load.
  if (!require('node:worker_threads').isMainThread) return
  process.on('exit', () => {
    // No listener runs any more.
    for (const sentence of binding.flushAll()) console.error(`fusion-sqlite: ${shown(sentence)}`)
  })
}

module.exports = { flushAtExit }
