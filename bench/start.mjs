// What a process pays before its first row: `require`, open in memory, one SELECT. The package is laid
// out as npm installs it. Each run is a process of its own; the contenders' runs are interleaved.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { commandLine, runMain } from './command-line.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const child = fileURLToPath(new URL('start-child.cjs', import.meta.url))
const [OURS, BETTER] = ['fusion-sqlite', 'better-sqlite3']

/** The most that our start may take of better-sqlite3's. */
const TARGET = 0.75

const usage = `Usage: npm run bench -- start [OPTIONS]

  --package FOLDER    an installed fusion-sqlite (default: packed from this checkout)
  --compile-cache     every contender with Node's compile cache, filled by a first process
  --repetitions N     processes of each contender (default: 31; with --quick: 9)
  --quick             fewer repetitions
  --help              this text`

/** A process can be disturbed, and by a factor, but not be helped. */
const lowerQuartile = (values) => values.toSorted((a, b) => a - b)[values.length >> 2]

/** What each contender is, and what its process requires. */
function contenders(folder) {
  return Object.entries({
    nothing: '',
    'node:sqlite': 'node:sqlite',
    [BETTER]: createRequire(import.meta.url).resolve('better-sqlite3'),
    [OURS]: folder,
    'fusion-sqlite, HardenedDatabase': folder,
    'fusion-sqlite, from the sources': path.join(root, 'index.js'),
  })
}

/** One process. Its whole time is measured from outside. */
function once(name, request, env) {
  const started = performance.now()
  const { status, stdout, stderr } = spawnSync(process.execPath, [child, name, request], { encoding: 'utf8', env })
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}`)
  return { ...JSON.parse(stdout), processMs: performance.now() - started }
}

await runMain(() => {
  const {
    package: folder,
    'compile-cache': cached,
    repetitions,
    help,
  } = commandLine({ package: { type: 'string' }, 'compile-cache': { type: 'boolean' } }, ({ quick }) =>
    quick ? 9 : 31,
  )
  if (help) return console.log(usage)
  const { NODE_COMPILE_CACHE: _, ...env } = process.env
  if (cached) {
    env.NODE_COMPILE_CACHE = mkdtempSync(path.join(tmpdir(), 'fusion-sqlite-start-'))
    process.on('exit', () => rmSync(env.NODE_COMPILE_CACHE, { recursive: true, force: true }))
  }
  const list = contenders(folder)
  const runs = new Map(list.map(([name]) => [name, []]))
  if (cached) for (const [name, request] of list) once(name, request, env)
  for (let round = 0; round < repetitions; round += 1) {
    for (const [name, request] of list) runs.get(name).push(once(name, request, env))
  }
  const of = (name, field) => lowerQuartile(runs.get(name).map((run) => run[field]))
  const fields = ['ms', 'cpuMs', 'processMs', 'memoryMb']
  console.log(
    `Lower quartiles of ${repetitions} interleaved processes, Node ${process.version}, ${process.platform}-${process.arch}` +
      `${cached ? ', with its compile cache' : ''}.\n`,
  )
  console.log(
    '| | require to first row, ms | the same, CPU ms | whole process, ms | peak memory, MB |\n|---|--:|--:|--:|--:|',
  )
  for (const [name] of list)
    console.log(`| ${[name, ...fields.map((field) => of(name, field).toFixed(1))].join(' | ')} |`)
  const [wall, cpu] = ['ms', 'cpuMs'].map((field) => of(OURS, field) / of(BETTER, field))
  const met = wall <= TARGET
  console.log(
    `\nfusion-sqlite against better-sqlite3, require to first row: ${wall.toFixed(2)} (CPU ${cpu.toFixed(2)}); ` +
      `wanted: at most ${TARGET}: ${met ? 'pass' : 'miss'}`,
  )
  if (!met) process.exitCode = 1
}, usage)
