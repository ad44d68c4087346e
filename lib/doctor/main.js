'use strict'

// `npx fusion-sqlite COMMAND …`: takes the command line apart, carries the command out, and ends with
// an exit code that a script can go by. Whatever a command does, it does through the package's
// public functions.

const { existsSync } = require('node:fs')
const { version } = require('../../package.json')
const { UsageError, parse } = require('./arguments.js')
const exitCodes = require('./exit-codes.js')
const { Terminal } = require('./terminal.js')

const commands = {
  backup: () => require('./backup.js').backup,
  checkpoint: () => require('./checkpoint.js').checkpoint,
  doctor: () => require('./examine.js').doctor,
  info: () => require('./info.js').info,
  recover: () => require('./recover.js').recover,
  restore: () => require('./restore.js').restore,
}

/** Result codes of SQLite's that say that somebody else has the file (sqlite.org/rescode.html). */
const CONTENTION = new Set([5, 6, 15])
/** Those that say that the file is damaged; 267 is a virtual table's own index. */
const DAMAGE = new Set([11, 26])

/** What a failure of a command is, as an exit code. */
function failure(error) {
  const primary = typeof error?.errcode === 'number' ? error.errcode & 0xff : 0
  if (CONTENTION.has(primary) || error?.code === 'ERR_FUSION_BACKUP_IN_USE') return exitCodes.LOCKED
  if (DAMAGE.has(primary) || error?.code === 'ERR_FUSION_BACKUP_DAMAGED') return exitCodes.DAMAGED
  return exitCodes.FAILED
}

function described(error) {
  const { code, errcode, message } = error instanceof Error ? error : { message: String(error) }
  return { ...(code !== undefined && { code }), ...(errcode !== undefined && { errcode }), message }
}

/** Carries a command out; answers `{ exitCode, …what it found }`. */
async function carryOut(given, terminal, signal) {
  const { command, operands } = given
  const missing = operands.slice(0, command === 'restore' ? 2 : 1).find((file) => !existsSync(file))
  if (missing !== undefined) {
    terminal.complain(`there is no file ${missing}`)
    return { exitCode: exitCodes.NO_INPUT, error: { message: `there is no file ${missing}` } }
  }
  try {
    return await commands[command]()(given, terminal, signal)
  } catch (error) {
    if (signal.aborted) {
      terminal.complain(`cancelled; ${operands[0]} is as it was`)
      return { exitCode: exitCodes.INTERRUPTED, error: { message: 'cancelled' } }
    }
    terminal.complain(error instanceof UsageError ? error.message : `${command} failed: ${error?.message ?? error}`)
    return { exitCode: error instanceof UsageError ? exitCodes.USAGE : failure(error), error: described(error) }
  }
}

/**
 * The whole program.
 * @param {string[]} argv without those of Node
 * @param {NodeJS.Process} process its streams, environment and signals
 * @returns {Promise<number>} the exit code
 */
async function main(argv, process) {
  let given
  try {
    given = parse(argv)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`fusion-sqlite: ${error.message}\nfusion-sqlite --help tells more.\n`)
    return exitCodes.USAGE
  }
  if (given.help !== undefined || given.version) {
    process.stdout.write(`${given.help ?? version}\n`)
    return exitCodes.OK
  }
  const terminal = new Terminal(process, { json: given.json })
  const control = new AbortController()
  const cancel = () => {
    // Whoever asks twice does not want to wait for an orderly end. SQLite survives that.
    if (control.signal.aborted) {
      terminal.clear()
      process.exit(exitCodes.INTERRUPTED)
    }
    control.abort(new Error('cancelled'))
  }
  for (const name of ['SIGINT', 'SIGTERM']) process.on(name, cancel)
  // Whoever reads only the first lines (`| head`) goes away early.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  try {
    const result = await carryOut(given, terminal, control.signal)
    if (given.json) process.stdout.write(`${JSON.stringify({ command: given.command, ...result })}\n`)
    return result.exitCode
  } finally {
    terminal.clear()
    for (const name of ['SIGINT', 'SIGTERM']) process.off(name, cancel)
  }
}

module.exports = { main }
