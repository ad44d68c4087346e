'use strict'

// What a repair did, as text.

const { explain, grouped, isDamage } = require('./findings-text.js')
const { duration } = require('./format.js')

/** Whether the file is sound after it. */
function isSound({ after }) {
  return after.ok && !after.findings.some(isDamage)
}

/**
 * Whether the file is sound after it and every row and every object is known to be in its place. Rows in
 * `lost_and_found` are not, and where nothing says of how many rows something was lost, it is not known.
 */
function isWhole(report) {
  const { salvage, totals, comparison } = report
  return (
    isSound(report) &&
    totals.knownLost === 0 &&
    totals.lostAndFound === 0 &&
    (salvage === null || salvage.schemaErrors.length === 0) &&
    comparison?.holds !== false
  )
}

/**
 * Prints what a repair did; what became of the rows, over all tables, is the last line.
 * @param report of `recover`
 */
function showReport(terminal, report) {
  const [headline, ...lines] = report.text.trimEnd().split('\n')
  const last = lines.pop()
  terminal.line(terminal.style(isSound(report) ? 'green' : 'red', headline))
  // As it is: a path that is broken over two lines cannot be copied.
  for (const line of lines) terminal.line(line)
  for (const findings of grouped(report.after.findings.filter(isDamage))) {
    terminal.paragraph(terminal.style('red', `Still found: ${explain(findings).title}.`))
  }
  terminal.line(terminal.style('dim', `It took ${duration(report.elapsedMs)}.`))
  if (last !== undefined) terminal.line(isWhole(report) ? last : terminal.style('bold', last))
}

/**
 * Prints what a repair would have lost.
 * @param {RecoveryComparison} comparison see index.d.ts
 */
function showComparison(terminal, comparison) {
  for (const line of comparison.text.trimEnd().split('\n')) terminal.line(line)
}

module.exports = { isWhole, showComparison, showReport }
