'use strict'

// What a repair did, as text.

const { explain, isDamage } = require('./explain.js')
const { duration } = require('./wording.js')

/** Whether the file is sound after it. */
function isSound({ after }) {
  return after.ok && !after.findings.some(isDamage)
}

/**
 * Prints what a repair did.
 * @param report of `recover`
 */
function showReport(terminal, report) {
  const [headline, ...lines] = report.text.trimEnd().split('\n')
  terminal.line(terminal.style(isSound(report) ? 'green' : 'red', headline))
  // As it is: a path that is broken over two lines cannot be copied.
  for (const line of lines) terminal.line(line)
  for (const finding of report.after.findings.filter(isDamage)) {
    terminal.paragraph(terminal.style('red', `Still found: ${explain(finding).title}.`))
  }
  terminal.line(terminal.style('dim', `It took ${duration(report.elapsedMs)}.`))
}

module.exports = { isSound, showReport }
