'use strict'

// What a repair did, as text.

const { explain, isDamage } = require('./explain.js')
const { counted, duration, number } = require('./wording.js')

const OUTCOMES = {
  healthy: 'nothing had to be done',
  rebuiltFts: 'full-text indexes were built anew',
  reindexed: 'indexes were built anew',
  salvaged: 'what could be read was taken into a new database',
  restored: 'the newest good backup was put in its place, with the newer rows that could be read',
}

const STEPS = {
  fts: 'full-text indexes',
  reindex: 'indexes',
  salvage: 'salvage',
  backup: 'backup',
  staleWal: 'foreign -wal',
}

function showSalvage(terminal, { tables, lostAndFound, pages, pagesLost, rebuilt, schemaErrors }) {
  terminal.line()
  terminal.table(
    ['table', 'rows', 'found apart', 'rows missing', 'pages lost'],
    tables.map(({ name, rows, adopted, rowsMissing, pagesLost: lost }) => [
      name,
      rows,
      adopted,
      rowsMissing ?? 'not known',
      lost,
    ]),
  )
  terminal.line()
  const lost = pagesLost === 0 ? 'No page was lost' : `${counted(pagesLost, 'page')} of ${number(pages)} were lost`
  terminal.paragraph(`${lost}. "Found apart" are rows on pages that their table no longer led to.`)
  if (lostAndFound > 0) {
    terminal.paragraph(`${counted(lostAndFound, 'row')} whose table is not known are in the table lost_and_found.`)
  }
  if (rebuilt.length > 0) terminal.paragraph(`Built anew from their content: ${rebuilt.join(', ')}.`)
  for (const error of schemaErrors) terminal.paragraph(`Could not be made again: ${error}`)
  const suspects = tables.filter((table) => table.suspects.length > 0)
  for (const { name, suspects: rows } of suspects) {
    const rowids = rows.slice(0, 8).map(({ rowid }) => rowid)
    terminal.paragraph(
      `${counted(rows.length, 'row')} of ${name} disagree with an index, so that a bit of them may have changed: ` +
        `rowid ${rowids.join(', ')}${rows.length > rowids.length ? ', …' : ''}.`,
    )
  }
}

/**
 * Prints what a repair did.
 * @param report of `recover`
 */
function showReport(terminal, report) {
  const { path, outcome, steps, after, preserved, salvage, backup, elapsedMs } = report
  const sound = after.ok && !after.findings.some(isDamage)
  const verdict = sound ? terminal.style('green', 'repaired') : terminal.style('red', 'not wholly repaired')
  terminal.line(`${terminal.style('bold', path)}: ${verdict}; ${OUTCOMES[outcome] ?? outcome}`)
  terminal.line(terminal.style('dim', `  in ${duration(elapsedMs)}`))
  for (const { step, ok, detail } of steps) {
    terminal.fact(STEPS[step] ?? step, `${ok ? 'done' : terminal.style('yellow', 'not enough')}: ${detail}`)
  }
  if (backup !== null) terminal.fact('from the backup', `${counted(backup.rows, 'row')} of ${backup.path}`)
  if (preserved !== null) {
    terminal.fact('original kept', preserved.database)
    if (preserved.wal !== null) terminal.fact('', preserved.wal)
  }
  if (salvage !== null) showSalvage(terminal, salvage)
  for (const finding of after.findings) {
    terminal.paragraph(`Still found: ${explain(finding).title}.`)
  }
}

module.exports = { showReport }
