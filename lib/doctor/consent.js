'use strict'

// A repair that is not written because of what it would lose: the comparison is shown, and the person
// at the terminal decides.

const { LOSS } = require('../errors.js')
const { showComparison } = require('./report.js')

/**
 * The report of `attempt(allowLoss)`, which is `recover` of one file.
 * @throws its error, where the repair would lose something and no person allows that
 */
async function withConsent(attempt, allowLoss, terminal, signal) {
  try {
    return await attempt(allowLoss)
  } catch (error) {
    if (error?.code !== LOSS) throw error
    if (error.comparison !== undefined) showComparison(terminal, error.comparison)
    if (!terminal.interactive) throw error
    terminal.line()
    if (!(await terminal.ask('Repair it all the same?', signal))) throw error
    return await attempt(true)
  }
}

module.exports = { withConsent }
