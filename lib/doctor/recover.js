'use strict'

// `recover SRC DST`: what can be read of a damaged database, in a new one.

const { existsSync } = require('node:fs')
const { recover: salvage } = require('../../index.js')
const { UsageError } = require('./arguments.js')
const { DAMAGED, OK } = require('./exit-codes.js')
const { isWhole, showReport } = require('./report.js')

/** See main.js. */
async function recover({ operands: [source, target], backup }, terminal, signal) {
  if (existsSync(target)) throw new UsageError(`${target} exists; nothing is overwritten`)
  const watch = { signal, progress: terminal.progress() }
  const report = await salvage(source, { ...watch, to: target, ...(backup && { backups: backup }) })
  showReport(terminal, report)
  return { exitCode: isWhole(report) ? OK : DAMAGED, report }
}

module.exports = { recover }
