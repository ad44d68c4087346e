'use strict'

// `info --platform [FOLDER]`: what the system answers there where the package depends on it, to be
// pasted into a report. The questions are the native side's (src/engine/platform.rs).

const { statSync } = require('node:fs')
const os = require('node:os')
const { resolve } = require('node:path')
const { version } = require('../../package.json')
const { binding } = require('../native.js')
const { runTask } = require('../task.js')
const { FAILED, NO_INPUT, OK } = require('./exit-codes.js')
const { described } = require('./failure.js')

/** By the native side's name: what it is for people. */
const TOPICS = {
  fileSystem: 'The folder',
  locks: "SQLite's locks",
  ownership: 'Locks of whole files and folders',
  syncs: 'Syncs',
  identity: 'Identity of files',
  memory: 'Shared memory',
  renames: 'Renames and removals',
}

/** Milliseconds that each is waited for. All together stay below a minute. */
const PATIENCE = 8000

/** The answers about `topic`; undefined where a call does not return, as on a network that is gone. */
async function answersAbout(topic, folder, signal) {
  let timer
  const late = new Promise((end) => {
    timer = setTimeout(end, PATIENCE)
  })
  const answers = runTask('platform', { folder, topic }, { signal, deadline: 0 }, false)
  answers.catch(() => {})
  try {
    return await Promise.race([answers, late])
  } finally {
    clearTimeout(timer)
  }
}

/** The system and the runtime. */
function system() {
  const { bun, node, sqlite } = process.versions
  const shared = process.config?.variables?.node_shared_sqlite
  return {
    system: `${os.type()} ${os.release()}`,
    version: os.version(),
    architecture: process.arch,
    runtime: bun === undefined ? `Node ${node}` : `Bun ${bun}, as Node ${node}`,
    nodeSqlite: sqlite === undefined ? null : `${sqlite}${shared ? ', shared' : ''}`,
    package: version,
  }
}

const KINDS = { ofd: 'open-file-description locks', posix: 'POSIX locks', windows: "Windows's locks" }

function showSystem(terminal, { system: found, engine }) {
  terminal.line(terminal.style('bold', 'The system'))
  terminal.fact('system', `${found.system} ${found.architecture}`)
  terminal.fact('version', found.version)
  terminal.fact('runtime', found.runtime)
  terminal.fact('node:sqlite', found.nodeSqlite ?? 'not there')
  terminal.fact('fusion-sqlite', `${found.package}, SQLite ${engine.sqliteVersion}`)
  const reason = engine.lockFallbackReason
  terminal.fact('locks', `${KINDS[engine.lockKind]}${typeof reason === 'string' ? `: ${reason}` : ''}`)
  terminal.fact('other SQLites', engine.foreignCheck)
}

function isDirectory(folder) {
  try {
    return statSync(folder).isDirectory()
  } catch {
    return false
  }
}

/** See main.js. */
async function platform({ operands: [given = '.'] }, terminal, signal) {
  const folder = resolve(given)
  if (!isDirectory(folder)) {
    const message = `${given} is not a directory: name the one in which a database lies, or is to lie`
    terminal.complain(message)
    return { exitCode: NO_INPUT, error: { message } }
  }
  const found = { system: system(), engine: binding.engineInfo(), folder, answers: {}, errors: [] }
  showSystem(terminal, found)
  const failed = (topic, error) => {
    const again = found.errors.at(-1)?.message === error.message
    found.errors.push({ topic, ...described(error) })
    terminal.line(terminal.style('red', `! not known: ${again ? 'for the same reason' : error.message}`))
  }
  for (const [topic, title] of Object.entries(TOPICS)) {
    terminal.line(terminal.style('bold', title))
    if (topic === 'fileSystem') terminal.line(`  ${folder}`)
    try {
      const answers = await answersAbout(topic, folder, signal)
      if (answers === undefined) failed(topic, new Error(`the system did not answer within ${PATIENCE / 1000} s`))
      for (const { question, answer, usual } of answers ?? []) {
        const line = `${usual ? ' ' : '!'} ${question}: ${answer}`
        terminal.line(usual ? line : terminal.style('yellow', line))
      }
      found.answers[topic] = answers ?? []
    } catch (error) {
      if (signal.aborted) throw error
      failed(topic, error)
      found.answers[topic] = []
    }
  }
  terminal.line('Lines with ! are not what a local disk of Linux answers.')
  return { exitCode: found.errors.length === 0 ? OK : FAILED, platform: found }
}

module.exports = { platform }
