'use strict'

// `npx fusion-sqlite COMMAND …`: parses the command line, runs the command, and ends with an exit code for
// scripts. A command uses a database only through the package's public functions.

const { version } = require('../../package.json')
const { shownJson } = require('../shown.js')
const { UsageError, parse } = require('./arguments.js')
const exitCodes = require('./exit-codes.js')
const { described, exitCodeOf } = require('./failure.js')
const { mayBeOpened, whyNoDatabase } = require('./path-kind.js')
const { Terminal } = require('./terminal.js')

const commands = {
  backup: () => require('./backup.js').backup,
  checkpoint: () => require('./checkpoint.js').checkpoint,
  doctor: () => require('./doctor.js').doctor,
  info: () => require('./info.js').info,
  recover: () => require('./recover.js').recover,
  restore: () => require('./restore.js').restore,
}

/** Carries a command out; answers `{ exitCode, …what it found }`. */
async function carryOut(given, terminal, signal) {
  const { command, operands } = given
  // A database that is to be restored need not be there.
  const source = given.platform ? undefined : operands[command === 'restore' ? 1 : 0]
  const message = source === undefined ? undefined : whyNoDatabase(source)
  if (message !== undefined) {
    terminal.complain(message)
    return { exitCode: exitCodes.NO_INPUT, error: { message } }
  }
  try {
    // It throws: every command names the cause in the same words.
    if (source !== undefined && !mayBeOpened(source))
      await require('../../index.js').check(source, { kind: 'quick', signal })
    const run = given.platform ? require('./platform.js').platform : commands[command]()
    return await run(given, terminal, signal)
  } catch (error) {
    if (signal.aborted) {
      terminal.complain(source === undefined ? 'cancelled' : `cancelled; ${operands[0]} is as it was`)
      return { exitCode: exitCodes.INTERRUPTED, error: { message: 'cancelled' } }
    }
    terminal.complain(error instanceof UsageError ? error.message : `${command} failed: ${error?.message ?? error}`)
    return { exitCode: error instanceof UsageError ? exitCodes.USAGE : exitCodeOf(error), error: described(error) }
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
    new Terminal(process).complain(error.message)
    process.stderr.write('fusion-sqlite --help lists the commands and their options.\n')
    return exitCodes.USAGE
  }
  if (given.help !== undefined || given.version) {
    process.stdout.write(`${given.help ?? version}\n`)
    return exitCodes.OK
  }
  const terminal = new Terminal(process, { json: given.json })
  const control = new AbortController()
  const cancel = () => {
    // A second signal ends the process at once. SQLite recovers from that like from a crash.
    if (control.signal.aborted) {
      terminal.clear()
      process.exit(exitCodes.INTERRUPTED)
    }
    control.abort(new Error('cancelled'))
  }
  for (const name of ['SIGINT', 'SIGTERM']) process.on(name, cancel)
  // A reader of only the first lines (`| head`) closes the pipe early.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  try {
    const result = await carryOut(given, terminal, control.signal)
    if (given.json) process.stdout.write(`${shownJson({ command: given.command, ...result })}\n`)
    return result.exitCode
  } finally {
    terminal.clear()
    for (const name of ['SIGINT', 'SIGTERM']) process.off(name, cancel)
  }
}

module.exports = { main }
