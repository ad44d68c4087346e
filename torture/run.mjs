// One cell of the matrix for one column: starts the processes, repeats the fault until the time is over, and judges.

import { mkdtempSync, realpathSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Arena, createDatabase } from './arena.mjs'
import { cells } from './cells.mjs'
import { columns, promised, writers } from './columns.mjs'
import { compare, readCopy, readDatabase, readNotes } from './oracle.mjs'
import { randomNumbers, seedFor } from './random.mjs'

/** A process of the runs has some 100 MiB when it has begun. */
export const BOUNDS = { rss: 512 * 2 ** 20, descriptors: 128, threads: 48 }

/** How long a run may take beyond its time before it counts as hung. */
const PATIENCE = Number(process.env.TORTURE_PATIENCE ?? 60_000)

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0)

const role = (index) => ['first', 'second'][index] ?? `more${index}`

/**
 * Runs a cell and returns what came of it. `violations` are broken promises; `observations` the same where nothing is
 * promised.
 */
export async function runCell({
  cell: cellName,
  column: columnName,
  seed,
  seconds,
  faults: most = Infinity,
  folder: given,
}) {
  const cell = cells.find(({ name }) => name === cellName)
  const column = columns.find(({ name }) => name === columnName)
  const folder = given ?? realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-torture-')))
  const result = {
    cell: cellName,
    column: columnName,
    seed,
    faults: 0,
    rows: 0,
    violations: [],
    observations: [],
    remarks: [],
  }
  const arena = new Arena({
    folder,
    column,
    random: randomNumbers(seedFor(seed, `${cellName}/${columnName}`)),
    env: {},
    agents: cell.agents ?? 3,
    options: cell.options,
    waitsForReopen: cell.movesFiles === 'replaced',
  })
  const state = { hung: false }
  const watchdog = setTimeout(
    () => {
      state.hung = true
      for (const process of arena.all) {
        if (process.end !== null) continue
        arena.remark(
          `${process.job.name} was alive: ${process.failures.map(({ key, message }) => `${key} ${message}`).join(', ') || 'no failure'}; events ${process.events.map(({ event, message }) => `${event} ${message ?? ''}`).join(', ')}`,
        )
        process.kill()
      }
    },
    seconds * 1000 + PATIENCE,
  )
  try {
    const skipped = await cell.prepare?.(arena)
    if (skipped) return { ...result, skipped }
    createDatabase(arena.file, cell.rows ?? 0)
    await cell.before?.(arena)
    if (!cell.startsItself) {
      const processes = cell.processes ?? 2
      await Promise.all(
        Array.from({ length: processes }, (_, index) =>
          arena.start(role(index), index % 2 === 0 ? column.first : column.second),
        ),
      )
      await arena.moves(10, 30)
    }
    const until = performance.now() + seconds * 1000
    const visiting = cell.visited ? visit(arena, () => performance.now() < until && !state.hung) : null
    do {
      await cell.fault(arena)
      result.faults++
      if (!cell.startsItself) await arena.moves()
    } while (performance.now() < until && result.faults < most && !state.hung)
    await visiting
    await cell.after?.(arena)
  } catch (error) {
    if (!state.hung) arena.finding(`the run stopped: ${error.message}`)
  }
  await end(arena)
  clearTimeout(watchdog)
  if (state.hung) arena.finding('hung')
  try {
    judge(arena, cell, column, result)
  } finally {
    await cell.cleanUp?.(arena)
    if (given === undefined) rmSync(folder, { recursive: true, force: true })
  }
  return result
}

/** A process that comes and goes as long as the run lasts. */
async function visit(arena, goesOn) {
  const visitor = await arena.start('visitor', arena.column.visitor, 0)
  do {
    // Busy for too long, or damaged: the next visit may succeed, and the oracle judges the file.
    await visitor
      .command('visit', { rows: 3 })
      .catch((error) => arena.remark(`a visit: ${error.code} ${error.errcode ?? ''}`))
  } while (goesOn() && visitor.end === null)
}

async function end(arena) {
  await Promise.all(
    arena.all
      .filter((process) => process.end === null)
      .map((process) =>
        process.stop().catch((error) => arena.finding(`the end of ${process.job.name}: ${error.message}`)),
      ),
  )
  await Promise.all(arena.all.map((process) => process.ended))
}

function judge(arena, cell, column, result) {
  const holds = promised(cell, column, 'p')
  const broken = (text, isPromised = holds) => {
    const list = isPromised ? result.violations : result.observations
    if (!list.includes(text)) list.push(text)
  }
  for (const text of arena.findings) broken(text)
  for (const process of arena.all) {
    if (process.crash) broken(`${process.job.name}: ${process.crash}: ${process.stderr.trim().split('\n').at(-1)}`)
    if (process.result?.left > 0) broken(`${process.result.left} accepted rows were not written`)
    for (const [what, bound] of Object.entries({ ...BOUNDS, ...cell.bounds })) {
      if (process.peak[what] > bound) broken(`${process.job.name}: ${what} ${process.peak[what]} > ${bound}`)
    }
    for (const { how, key, message } of process.failures) {
      if (how === 'append' && !cell.allows?.test(key)) broken(`${key}: ${message.slice(0, 200)}`)
      else result.remarks.push(key)
    }
    if (process.job.kind === 'package') {
      for (const { event, code, errcode, message } of process.events) {
        const key = `event ${event}: ${code ?? ''} ${errcode ?? ''}`.trim()
        if (!['error', 'corrupt', 'replaced'].includes(event)) continue
        if (cell.allows?.test(key) || cell.announces?.test(message)) result.remarks.push(key)
        else broken(`${key}: ${message.slice(0, 200)}`)
      }
    }
  }
  const notes = readNotes(arena.all.map(({ job }) => job.notes).concat(arena.moreNotes ?? []))
  const found = statSync(arena.file, { throwIfNoEntry: false })
    ? readDatabase(arena.file, path.join(arena.folder, 'judged.db'))
    : { texts: [], integrity: ['no file'] }
  const old = arena.oldFiles().map(({ copy, epoch }) => ({ epoch, texts: readCopy(copy).texts }))
  const seen = compare(notes, found.texts, { old, optional: arena.optional })
  result.rows = total(seen.acknowledged)
  for (const what of ['lost', 'doubled', 'disordered']) result[what] = total(seen[what])
  result.damaged = found.integrity.join() === 'ok' ? 0 : 1
  result.crashes = arena.all.map(({ crash }) => crash).filter(Boolean)
  result.failed = arena.all.reduce((sum, process) => sum + total(process.result?.failures ?? {}), 0)
  if (found.integrity.join() !== 'ok') broken(`integrity: ${found.integrity[0]}`)
  if (seen.torn > 0) broken(`${seen.torn} restores are there in part`)
  for (const [writer, title] of Object.entries(writers)) {
    const all = seen.acknowledged[writer] ?? 0
    for (const [what, counts] of [
      ['lost', seen.lost],
      ['stored twice', seen.doubled],
      ['out of order', seen.disordered],
    ]) {
      if (counts[writer] > 0)
        broken(`${title}: ${counts[writer]} of ${all} rows ${what}`, promised(cell, column, writer))
    }
  }
  if (result.rows === 0) broken('no row was acknowledged')
  result.remarks = [...new Set([...result.remarks, ...arena.remarks])]
  result.peak = {}
  for (const { peak } of arena.all) {
    for (const [what, value] of Object.entries(peak)) result.peak[what] = Math.max(result.peak[what] ?? 0, value)
  }
}
