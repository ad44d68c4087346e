'use strict'

// The way out of an event that has no listener: a process warning. An 'error' without one must not end
// the process, because the entries are kept.

const { process } = require('./native.js')
const { shown, shownError } = require('./shown.js')

/** Warns of event `name`, if it is one that must not pass unnoticed. */
function warn(name, first, second) {
  if (name === 'error' || name === 'corrupt' || name === 'replaced') {
    process.emitWarning(shownError(first))
  } else if (name === 'recovered') {
    process.emitWarning(first.text, { type: 'FusionSqliteWarning', code: 'FUSION_RECOVERED' })
  } else if (name === 'rejected') {
    process.emitWarning(shown(`a log entry of task ${second?.taskId} was rejected: ${first.message}`), {
      type: 'FusionSqliteWarning',
      code: 'FUSION_LOG_ENTRY_REJECTED',
    })
  }
}

module.exports = { warn }
