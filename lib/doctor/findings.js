'use strict'

// The result of a check, as text.

const { explain, extent, grouped, isDamage, summary } = require('./findings-text.js')
const { counted, duration } = require('./format.js')

/** Lines of SQLite's own that are shown for each kind of finding. */
const SHOWN = 3

/** Findings of one kind, in plain words. */
function showFindings(terminal, findings, place) {
  const { title, where, means, remedy, lines } = explain(findings)
  const mark = terminal.style(isDamage(findings[0]) ? 'red' : 'yellow', `${place}.`)
  terminal.line()
  terminal.paragraph(`${mark} ${terminal.style('bold', title)}`, 0, 3)
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

/** What a check found; in a sentence, where it is damage, at the end. */
function showHealth(terminal, health) {
  const { path, ok, findings, elapsedMs } = health
  const checked = `${extent(health)}; checked in ${duration(elapsedMs)}`
  const groups = grouped(findings)
  const damages = groups.filter(([first]) => isDamage(first)).length
  const locked = findings.some(({ type }) => type === 'locked')
  const refused = findings.some(({ type }) => type === 'refusedFile')
  const verdict = locked
    ? terminal.style('yellow', 'locked')
    : ok
      ? refused
        ? terminal.style('yellow', 'sound, but this user may not write to it')
        : terminal.style('green', 'healthy')
      : terminal.style('red', `damaged, ${counted(damages, 'problem')} found`)
  terminal.line(`${terminal.style('bold', path)}: ${verdict}`)
  if (!locked) terminal.line(terminal.style('dim', `  ${checked}`))
  groups.forEach((group, index) => showFindings(terminal, group, index + 1))
  const all = summary(health)
  if (all === undefined) return
  terminal.line()
  terminal.paragraph(all)
}

module.exports = { showHealth }
