// The soak: 20 agents in each of four processes, faults and kills without a pause, for as long as asked. Every few
// faults the agents pause, every row is compared with what was acknowledged, then the rows are deleted, so that the
// database may not grow. One process is never killed: it shows what memory, descriptors and threads do over time.

import { mkdtempSync, readdirSync, realpathSync, rmSync, truncateSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Arena, createDatabase } from './arena.mjs'
import { cells } from './cells.mjs'
import { columns } from './columns.mjs'
import { compare, readNotes } from './oracle.mjs'
import { randomNumbers, seedFor } from './random.mjs'

/** Faults after which every agent goes on with the same file. */
const FAULTS = [
  'copy',
  'raw-open',
  'second-library',
  'rm-wal',
  'stopped-holder',
  'kill-commit',
  'kill-checkpoint',
  'connections',
]

/** As for the cell `rm-wal`. */
const ALLOWED = /ERR_FUSION_(WEDGED|COMMIT_UNKNOWN|WAL_LOST)/

/** Faults between two checks. */
const BETWEEN_CHECKS = 8

const LIMITS = {
  rss: 1.3,
  rssMore: 32 * 2 ** 20,
  descriptors: 16,
  threads: 6,
  wal: 64 * 2 ** 20,
  database: 2,
  files: 8,
}
const bounds =
  'the last quarter of the samples against the first quarter: resident memory at most 1.3 times and 32 MiB more, ' +
  '16 descriptors more, 6 threads more, a database at most 2 times and 8 MiB more, 8 files more; the -wal 64 MiB at a check'

const most = (samples, what) => Math.max(...samples.map((sample) => sample[what]))

function judge(samples, violations) {
  if (samples.length < 8) return
  const quarter = Math.floor(samples.length / 4)
  const [early, late] = [samples.slice(0, quarter), samples.slice(-quarter)]
  const check = (what, bound) => {
    const now = most(late, what)
    if (now > bound) violations.push(`${what}: ${now} in the last quarter, bound ${bound}`)
  }
  check('rss', most(early, 'rss') * LIMITS.rss + LIMITS.rssMore)
  check('descriptors', most(early, 'descriptors') + LIMITS.descriptors)
  check('threads', most(early, 'threads') + LIMITS.threads)
  check('database', most(early, 'database') * LIMITS.database + 8 * 2 ** 20)
  check('files', most(early, 'files') + LIMITS.files)
  for (const { wal } of samples) if (wal > LIMITS.wal) violations.push(`-wal: ${wal} bytes`)
}

/** Compares and deletes every row, while no agent is in a call. */
function checkRows(arena, violations) {
  const db = new DatabaseSync(arena.file, { timeout: 10_000 })
  try {
    const integrity = db
      .prepare('PRAGMA integrity_check(5)')
      .all()
      .map((row) => row.integrity_check)
    if (integrity.join() !== 'ok') violations.push(`integrity: ${integrity[0]}`)
    const texts = db
      .prepare('SELECT text FROM agentLogEntries ORDER BY id')
      .all()
      .map(({ text }) => text)
    const files = arena.all.map(({ job }) => job.notes)
    const seen = compare(readNotes(files), texts)
    for (const what of ['lost', 'doubled', 'disordered']) {
      for (const [writer, count] of Object.entries(seen[what])) violations.push(`${count} rows of ${writer} ${what}`)
    }
    db.exec('DELETE FROM agentLogEntries')
    return Object.values(seen.acknowledged).reduce((sum, count) => sum + count, 0)
  } finally {
    db.close()
  }
}

export async function soak({ minutes, seed, agents = 20, onSample = console.error }) {
  const folder = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-soak-')))
  const column = columns.find(({ name }) => name === 'alone')
  const random = randomNumbers(seedFor(seed, 'soak'))
  const arena = new Arena({ folder, column, random, env: {}, agents })
  const violations = []
  const samples = []
  const started = performance.now()
  const minute = () => (performance.now() - started) / 60_000
  let [rows, faults, kills, checks] = [0, 0, 0, 0]
  try {
    createDatabase(arena.file)
    // It takes part in everything but kills.
    const lasting = await arena.start('lasting', column.first)
    lasting.spared = true
    await Promise.all(['second', 'third', 'fourth'].map((name) => arena.start(name, column.second)))
    do {
      const recent = []
      for (let fault = 0; fault < BETWEEN_CHECKS; fault++) {
        const name = FAULTS[arena.between(0, FAULTS.length - 1)]
        const began = performance.now()
        recent.push(name)
        await cells.find((cell) => cell.name === name).fault(arena)
        const seconds = (performance.now() - began) / 1000
        if (seconds > 10) onSample(`${name} took ${seconds.toFixed(0)} s`)
        faults++
        if (name.startsWith('kill')) kills++
        await arena.moves(5, 30)
      }
      await arena.each(arena.writing, 'pause')
      // Garbage is no leak. The sizes are those before the rows are deleted, in one large transaction.
      await arena.each(arena.writing, 'collect')
      const sizes = { database: arena.sizeOf(), wal: arena.sizeOf('-wal'), shm: arena.sizeOf('-shm') }
      rows += checkRows(arena, violations)
      checks++
      for (const { job, end } of arena.all) {
        truncateSync(job.notes)
        if (end !== null) rmSync(job.notes)
      }
      for (const process of arena.all) {
        if (process.crash) violations.push(`${process.job.name}: ${process.crash}`)
        for (const { key, message } of process.failures) {
          if (!/ERR_FUSION_(WEDGED|COMMIT_UNKNOWN)/.test(key))
            violations.push(`${process.job.name}: ${key}: ${message}`)
        }
        for (const { event, code, message } of process.events) {
          if (['error', 'corrupt', 'replaced'].includes(event) && !ALLOWED.test(code)) {
            violations.push(`${process.job.name}: event ${event}: ${code}: ${message}`)
          }
        }
        process.events.length = 0
      }
      arena.all = arena.all.filter(({ end }) => end === null)
      const now = arena.all.map((process) => process.sample()).filter(Boolean)
      const own = lasting.sample()
      samples.push({
        minute: minute(),
        rss: own?.rss ?? 0,
        most: Math.max(0, ...now.map(({ rss }) => rss)),
        descriptors: own?.descriptors ?? 0,
        threads: own?.threads ?? 0,
        ...sizes,
        files: readdirSync(arena.disk).length,
      })
      onSample(JSON.stringify(samples.at(-1)))
      if (violations.length > 0) onSample(`after ${recent.join(', ')}: ${violations.join('; ')}`)
      await arena.each(arena.writing, 'resume')
    } while (minute() < minutes && violations.length === 0)
    await Promise.all(arena.writing.map((process) => process.stop()))
  } catch (error) {
    violations.push(`the soak stopped: ${error.message}`)
  } finally {
    await Promise.all(arena.all.filter(({ end }) => end === null).map((process) => process.kill()))
    rmSync(folder, { recursive: true, force: true })
  }
  violations.push(...arena.findings)
  judge(samples, violations)
  return { samples, seed, rows, faults, kills, checks, violations, minutes: minute(), bounds }
}
