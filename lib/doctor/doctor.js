'use strict'

// `doctor FILE`: checks, explains, draws, and repairs if asked to.

const { existsSync, realpathSync, statSync, writeFileSync } = require('node:fs')
const path = require('node:path')
const { check, fileInfo, pageMap, pageMapSvg, recover } = require('../../index.js')
const { LOSS } = require('../errors.js')
const { UsageError } = require('./arguments.js')
const { withConsent } = require('./consent.js')
const { DAMAGED, FAILED, LOCKED, OK, REPAIRED } = require('./exit-codes.js')
const { described, exitCodeOf } = require('./failure.js')
const { showHealth } = require('./findings.js')
const { showHolders } = require('./holders.js')
const { isWhole, showReport } = require('./report.js')

/** Where a path leads, whether there is something or not. */
function resolved(name) {
  return existsSync(name) ? realpathSync(name) : path.resolve(name)
}

/** That the picture can be written where it is to be, and does not overwrite the database or what belongs to it. */
function checkTarget(file, target) {
  const base = resolved(file)
  const folder = path.dirname(path.resolve(target))
  if (!existsSync(folder)) throw new UsageError(`--map names a file in ${folder}, and there is no such folder`)
  const taken = ['', '-wal', '-shm', '-journal', '-schema'].map((suffix) => base + suffix)
  if (taken.includes(resolved(target))) throw new UsageError(`--map would overwrite ${target}, which is the database's`)
}

/** SQLITE_NOTADB */
const NOT_A_DATABASE = 26

/** Whether this user may not use a file next to the database. */
const isRefused = ({ type }) => type === 'refusedFile'

/** Whether there is nothing of SQLite in a file or next to it, so that a repair finds nothing. */
const neverWas = ({ type, wasDatabase }) => type === 'notADatabase' && !wasDatabase

const UNRECOVERABLE = 'ERR_FUSION_UNRECOVERABLE'
const NOTHING =
  'There is nothing of a database in the file or next to it, so that there is nothing to repair, and nothing was ' +
  'changed. Check the path. If a database was here, restore a backup (fusion-sqlite restore FILE FROM).'

/** Draws the file; undefined, and said, if there is nothing that could be drawn. */
async function drawMap(file, target, health, terminal, watch) {
  terminal.line()
  try {
    const map = await pageMap(file, { ...watch, health })
    // It names tables: those who may not read the database may not read it.
    writeFileSync(target, pageMapSvg(map), { mode: statSync(file).mode & 0o666 })
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
  terminal.paragraph('A repair keeps the damaged file and its -wal next to it, under dated names.')
  return terminal.ask('Repair it now?', signal)
}

/** The stage that a repair reports until it has its locks. */
const WAITING = 'waiting for a lock'

/** Shows the progress of a repair. When it first waits for a lock, shows which processes have one. */
function progressWithHolders(file, terminal) {
  const progress = terminal.progress()
  let shown = false
  return (stage) => {
    progress(stage)
    if (stage.stage !== WAITING || shown) return
    shown = true
    terminal.complain(
      'the repair waits until no other process has a lock; end that process, or press Ctrl-C to give up',
    )
    // A repair goes on even if the processes cannot be listed.
    showWho(file, terminal).catch(() => {})
  }
}

/** SQLite reads an empty file as a database without tables, and reports no error. */
function showEmpty(terminal) {
  terminal.line()
  terminal.paragraph(
    'The file is empty: to SQLite a sound database without tables. If there was something in it, the file was emptied ' +
      'or replaced, and nothing of that is left in it: restore a backup (fusion-sqlite restore FILE FROM).',
  )
}

/** Prints the processes that have the database open, and returns them. */
async function showWho(file, terminal) {
  const { holders } = await fileInfo(file)
  terminal.line()
  showHolders(terminal, holders)
  return holders
}

/** See main.js. */
async function doctor(given, terminal, signal) {
  const [file] = given.operands
  if (given.map !== undefined) checkTarget(file, given.map)
  const watch = { signal, progress: terminal.progress() }
  const health = await check(file, { ...watch, kind: given.quick ? 'quick' : 'full' })
  showHealth(terminal, health)
  if (health.findings.some(({ type }) => type === 'locked')) {
    return { exitCode: LOCKED, health, holders: await showWho(file, terminal) }
  }
  const map = given.map === undefined ? undefined : await drawMap(file, given.map, health, terminal, watch)
  const found = { health, ...(map && { map }) }
  // SQLite rolls a hot journal back without loss: `--repair` does it without a question.
  const rollsBack = given.repair && health.findings.some(({ type }) => type === 'hotJournal')
  if (health.ok && !rollsBack) {
    if (health.pages === 0 && statSync(file).size === 0) showEmpty(terminal)
    return { exitCode: health.findings.some(isRefused) ? FAILED : OK, ...found }
  }
  if (health.findings.some(neverWas) && given.backup === undefined) {
    terminal.line()
    terminal.paragraph(NOTHING)
    return { exitCode: DAMAGED, ...found, ...(given.repair && { error: { code: UNRECOVERABLE, message: NOTHING } }) }
  }
  if (!(await wantsRepair(given, terminal, signal))) {
    terminal.line()
    terminal.paragraph('Nothing was changed. To repair it:')
    terminal.line(`  npx fusion-sqlite doctor ${file} --repair`)
    return { exitCode: DAMAGED, ...found }
  }
  terminal.line()
  try {
    const progress = progressWithHolders(file, terminal)
    const backups = given.backup && { backups: given.backup }
    const attempt = (allowLoss) => recover(file, { signal, progress, allowLoss, ...backups })
    const report = await withConsent(attempt, given['allow-loss'], terminal, signal)
    showReport(terminal, report)
    const done = health.ok ? OK : REPAIRED
    return { exitCode: isWhole(report) ? done : DAMAGED, ...found, report }
  } catch (error) {
    if (signal.aborted) throw error
    if (error.code === LOSS) {
      terminal.line()
      terminal.paragraph('Nothing was changed. To repair it all the same:')
      terminal.line(`  npx fusion-sqlite doctor ${file} --repair --allow-loss`)
    } else {
      terminal.complain(`it could not be repaired: ${error.message}`)
    }
    return { exitCode: exitCodeOf(error), ...found, error: described(error) }
  }
}

module.exports = { doctor }
