// What must hold after a run: every acknowledged row once, in the order of its agent's calls, in a sound database.
//
// The judge is node:sqlite on a private copy of the database and its WAL, so that it changes nothing and is not the
// library that is judged. It runs after every process of the run has ended.

import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

/** Acknowledged calls by agent: `{ first, count, epoch }`. A line that a kill cut short acknowledges nothing. */
export function readNotes(files) {
  const agents = new Map()
  for (const file of files) {
    if (!existsSync(file)) continue
    const text = readFileSync(file, 'utf8')
    for (const line of text.slice(0, text.lastIndexOf('\n') + 1).split('\n')) {
      if (line === '') continue
      const [agent, first, count, epoch] = line.split(' ')
      if (!agents.has(agent)) agents.set(agent, [])
      agents.get(agent).push({ first: Number(first), count: Number(count), epoch: Number(epoch) })
    }
  }
  return agents
}

/** The rows of a database, by id, and its integrity. Reads a copy that is made under `copy`. */
export function readDatabase(file, copy) {
  copyFileSync(file, copy)
  if (existsSync(`${file}-wal`)) copyFileSync(`${file}-wal`, `${copy}-wal`)
  return readCopy(copy)
}

export function readCopy(copy) {
  let db
  const found = { texts: [], integrity: [] }
  try {
    db = new DatabaseSync(copy)
    found.integrity = db
      .prepare('PRAGMA integrity_check(5)')
      .all()
      .map((row) => row.integrity_check)
  } catch (error) {
    found.integrity = [error.message]
  }
  try {
    for (const { text } of db.prepare('SELECT text FROM agentLogEntries ORDER BY id').iterate()) found.texts.push(text)
  } catch (error) {
    if (found.integrity.join() === 'ok') found.integrity = [error.message]
  }
  try {
    db?.close()
  } catch {
    // A damaged file may not close; the copy is deleted with its folder.
  }
  return found
}

/** The kind of writer by its agent's name: `process.kind number`. */
export const writerOf = (agent) => (agent.split('.')[1] ?? 'p')[0]

/**
 * Compares notes with a database.
 *
 * - `old`: texts of files that were replaced. A row acknowledged there counts if its call began before `oldEpoch`.
 * - `optional`: epochs whose rows are there all together or not at all, in the place of which a restore put a backup.
 */
export function compare(notes, texts, { old = [], optional = [] } = {}) {
  const stored = new Map()
  const last = new Map()
  const doubled = {}
  const disordered = {}
  for (const text of texts) {
    const space = text.lastIndexOf(' ')
    const agent = text.slice(0, space)
    const number = Number(text.slice(space + 1))
    if (!stored.has(agent)) stored.set(agent, new Set())
    const numbers = stored.get(agent)
    const writer = writerOf(agent)
    if (numbers.has(number)) doubled[writer] = (doubled[writer] ?? 0) + 1
    else if (number < (last.get(agent) ?? -1)) disordered[writer] = (disordered[writer] ?? 0) + 1
    numbers.add(number)
    last.set(agent, number)
  }
  const oldSets = old.map(({ texts: inOld, epoch }) => ({ epoch, texts: new Set(inOld) }))
  const acknowledged = {}
  const lost = {}
  const missingOf = new Map(optional.map((epoch) => [epoch, { missing: 0, all: 0 }]))
  for (const [agent, calls] of notes) {
    const writer = writerOf(agent)
    const numbers = stored.get(agent)
    for (const { first, count, epoch } of calls) {
      for (let number = first; number < first + count; number++) {
        acknowledged[writer] = (acknowledged[writer] ?? 0) + 1
        const group = missingOf.get(epoch)
        if (group) group.all++
        if (numbers?.has(number)) continue
        if (group) group.missing++
        else if (!oldSets.some((set) => epoch <= set.epoch && set.texts.has(`${agent} ${number}`))) {
          lost[writer] = (lost[writer] ?? 0) + 1
        }
      }
    }
  }
  let torn = 0
  for (const { missing, all } of missingOf.values()) if (missing !== 0 && missing !== all) torn++
  return { acknowledged, lost, doubled, disordered, torn }
}
