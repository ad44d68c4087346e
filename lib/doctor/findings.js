'use strict'

// The result of a check, as text.

const { explain, extent, isDamage } = require('./explain.js')
const { counted, duration } = require('./wording.js')

/** Lines of SQLite's own that are shown for each finding. */
const SHOWN = 3

/** One finding, in plain words. */
function showFinding(terminal, finding, place) {
  const { title, where, means, remedy, lines } = explain(finding)
  const mark = terminal.style(isDamage(finding) ? 'red' : 'yellow', `${place}.`)
  terminal.line()
  terminal.line(`${mark} ${terminal.style('bold', title)}`)
  if (where !== undefined) terminal.paragraph(`Where: ${where}.`, 3)
  terminal.paragraph(`What it means: ${means}`, 3)
  terminal.paragraph(`What a repair does: ${remedy}`, 3)
  if (lines.length === 0) return
  terminal.line(terminal.style('dim', '   SQLite says:'))
  for (const line of lines.slice(0, SHOWN)) terminal.line(terminal.style('dim', `     ${line}`))
  if (lines.length > SHOWN) {
    terminal.line(terminal.style('dim', `     and ${counted(lines.length - SHOWN, 'more line')} (--json has them)`))
  }
}

/** What a check found. */
function showHealth(terminal, health) {
  const { path, ok, findings, elapsedMs } = health
  const checked = `${extent(health)}; checked in ${duration(elapsedMs)}`
  const damages = findings.filter(isDamage).length
  const locked = findings.some(({ type }) => type === 'locked')
  const verdict = locked
    ? terminal.style('yellow', 'locked')
    : ok
      ? terminal.style('green', 'healthy')
      : terminal.style('red', `damaged, ${counted(damages, 'problem')} found`)
  terminal.line(`${terminal.style('bold', path)}: ${verdict}`)
  if (!locked) terminal.line(terminal.style('dim', `  ${checked}`))
  findings.forEach((finding, index) => showFinding(terminal, finding, index + 1))
}

module.exports = { showHealth }
