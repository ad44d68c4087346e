'use strict'

// `restore FILE FROM`: a backup into the place of a database that may be in use.

const { restore: putBack } = require('../../index.js')
const { OK } = require('./exit-codes.js')
const { counted, duration } = require('./format.js')

/** See main.js. */
async function restore({ operands: [file, from], verify }, terminal, signal) {
  const result = await putBack(file, from, { verify, signal, progress: terminal.progress() })
  terminal.line(`${terminal.style('bold', result.path)}: ${terminal.style('green', 'restored')} from ${result.from}`)
  terminal.line(terminal.style('dim', `  ${counted(result.pages, 'page')} in ${duration(result.elapsedMs)}`))
  if (result.preserved !== null) {
    terminal.fact('former kept', result.preserved.database)
    if (result.preserved.wal !== null) terminal.fact('', result.preserved.wal)
  }
  return { exitCode: OK, result }
}

module.exports = { restore }
