'use strict'

// `backup FILE [DEST]`: a verified copy of a database that may be in use.

const { backupFile } = require('../../index.js')
const { OK } = require('./exit-codes.js')
const { bytes, counted, duration } = require('./format.js')

/** See main.js. */
async function backup({ operands: [file, target], keep, verify }, terminal, signal) {
  const watch = { signal, progress: terminal.progress() }
  const result = await backupFile(file, target, { ...watch, verify, ...(keep !== undefined && { keep }) })
  terminal.line(`${terminal.style('bold', result.path)}: ${terminal.style('green', 'backup made')}`)
  const checked = result.verified ? 'checked' : 'not checked'
  const size = `${counted(result.pages, 'page')}, ${bytes(result.bytes)}`
  terminal.line(terminal.style('dim', `  ${size}, ${checked}, in ${duration(result.elapsedMs)}`))
  for (const kept of result.kept) if (kept !== result.path) terminal.fact('kept', kept)
  return { exitCode: OK, result }
}

module.exports = { backup }
