'use strict'

// `doctor FILE`: checks, explains, draws, and repairs if asked to.

const { existsSync, realpathSync, writeFileSync } = require('node:fs')
const path = require('node:path')
const { check, fileInfo, pageMap, pageMapSvg, recover } = require('../../index.js')
const { UsageError } = require('./arguments.js')
const { DAMAGED, LOCKED, OK, REPAIRED } = require('./exit-codes.js')
const { described, exitCodeOf } = require('./failure.js')
const { showHealth } = require('./findings.js')
const { showHolders } = require('./holders.js')
const { isSound, showReport } = require('./report.js')

/** Where a path leads, whether there is something or not. */
function resolved(name) {
  return existsSync(name) ? realpathSync(name) : path.resolve(name)
}

/** That the picture does not overwrite the database or what belongs to it. */
function checkTarget(file, target) {
  const base = resolved(file)
  const taken = ['', '-wal', '-shm', '-journal', '-schema'].map((suffix) => base + suffix)
  if (taken.includes(resolved(target))) throw new UsageError(`--map would overwrite ${target}, which is the database's`)
}

/** SQLITE_NOTADB */
const NOT_A_DATABASE = 26

/** Draws the file; undefined, and said, if there is nothing that could be drawn. */
async function drawMap(file, target, health, terminal, watch) {
  terminal.line()
  try {
    const map = await pageMap(file, { ...watch, health })
    writeFileSync(target, pageMapSvg(map))
    terminal.line(`The page map is in ${terminal.style('bold', target)}.`)
    return { path: path.resolve(target), pages: map.pages, damagedPages: map.damagedPages }
  } catch (error) {
    if (error.errcode !== NOT_A_DATABASE) throw error
    terminal.line(`There is no page map: ${error.message}.`)
  }
}

async function wantsRepair(given, terminal, signal) {
  if (given.repair) return true
  if (!terminal.interactive) return false
  terminal.line()
  terminal.paragraph('A repair keeps the damaged file and its -wal beside it, under dated names.')
  return terminal.ask('Repair it now?', signal)
}

/** See main.js. */
async function doctor(given, terminal, signal) {
  const [file] = given.operands
  if (given.map !== undefined) checkTarget(file, given.map)
  const watch = { signal, progress: terminal.progress() }
  const health = await check(file, { ...watch, kind: given.quick ? 'quick' : 'full' })
  showHealth(terminal, health)
  if (health.findings.some(({ type }) => type === 'locked')) {
    const { holders } = await fileInfo(file)
    terminal.line()
    showHolders(terminal, holders)
    return { exitCode: LOCKED, health, holders }
  }
  const map = given.map === undefined ? undefined : await drawMap(file, given.map, health, terminal, watch)
  const found = { health, ...(map && { map }) }
  if (health.ok) return { exitCode: OK, ...found }
  if (!(await wantsRepair(given, terminal, signal))) {
    terminal.line()
    terminal.paragraph('Nothing was changed. To repair it:')
    terminal.line(`  npx fusion-sqlite doctor ${given.operands[0]} --repair`)
    return { exitCode: DAMAGED, ...found }
  }
  terminal.line()
  try {
    const report = await recover(file, { ...watch, ...(given.backup && { backups: given.backup }) })
    showReport(terminal, report)
    return { exitCode: isSound(report) ? REPAIRED : DAMAGED, ...found, report }
  } catch (error) {
    if (signal.aborted) throw error
    terminal.complain(`it could not be repaired: ${error.message}`)
    return { exitCode: exitCodeOf(error), ...found, error: described(error) }
  }
}

module.exports = { doctor }
