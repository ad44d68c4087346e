// The torture of `npm run torture`: the matrix of faults and users of a database, the soak, and the cargo target that
// has the faults of the disk and the losses of power. Prints Markdown; exits with 1 where a promise was broken.

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { root, tool } from '../scripts/bootstrap.mjs'
import { cells } from './cells.mjs'
import { columns } from './columns.mjs'
import { add, machine, matrixReport, soakReport } from './report.mjs'
import { soak } from './soak.mjs'
import { startRun } from './start-run.mjs'

const PAGE = path.join(root, 'docs', 'reliability.md')

const usage = `Usage: npm run torture [-- OPTIONS]

  --minutes N    how long the matrix runs (default: 10); every cell runs once at least
  --seed S       a whole number; the same seed chooses the same faults (default: 1)
  --only LIST    cells or columns, comma-separated
  --states N     states after a loss of power that cargo's target checks (default: 10000; with --only: none)
  --faults N     seeds of faults of the disk that cargo's target plays (default: 200; with --only: none)
  --soak N       minutes of the soak, in the place of the matrix
  --write        writes the table into docs/reliability.md as well
  --help         this text

  cells    ${cells.map(({ name }) => name).join(', ')}
  columns  ${columns.map(({ name }) => name).join(', ')}`

class UsageError extends Error {}

function number(name, text, least) {
  const value = Number(text)
  if (text.trim() === '' || !(value >= least)) throw new UsageError(`--${name} must be a number, ${least} or more`)
  return value
}

function options() {
  let values
  try {
    values = parseArgs({
      options: {
        minutes: { type: 'string', default: '10' },
        seed: { type: 'string', default: '1' },
        only: { type: 'string' },
        states: { type: 'string' },
        faults: { type: 'string' },
        soak: { type: 'string' },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError(error.message)
  }
  const only = values.only?.split(',') ?? []
  const known = [...cells, ...columns].map(({ name }) => name)
  const unknown = only.filter((name) => !known.includes(name))
  if (unknown.length > 0) throw new UsageError(`--only: unknown: ${unknown.join(', ')}; known: ${known.join(', ')}`)
  const rest = only.length > 0 || values.soak !== undefined ? '0' : undefined
  return {
    ...values,
    only,
    minutes: number('minutes', values.minutes, 0),
    seed: Math.floor(number('seed', values.seed, 0)),
    states: number('states', values.states ?? rest ?? '10000', 0),
    faults: number('faults', values.faults ?? rest ?? '200', 0),
    soak: values.soak === undefined ? null : number('soak', values.soak, 0),
  }
}

/** Runs the matrix round by round until the time is over, the last round to its end. */
async function matrix({ minutes, seed, only }) {
  const chosen = (list) => {
    const named = list.filter(({ name }) => only.includes(name))
    return named.length > 0 ? named : list
  }
  const plan = chosen(cells).flatMap((cell) => chosen(columns).map((column) => ({ cell, column })))
  const results = new Map()
  const started = performance.now()
  const end = started + minutes * 60_000
  // Four seconds a run, of which one is spent on starting and judging.
  const rounds = Math.max(1, Math.round((minutes * 60) / (plan.length * 4)))
  let overhead = 1000
  let left = rounds * plan.length
  for (let round = 0; round < rounds; round++) {
    for (const { cell, column } of plan) {
      const seconds = Math.max(0.3, ((end - performance.now()) / left - overhead) / 1000)
      const before = performance.now()
      const result = await startRun(cell, { cell: cell.name, column: column.name, seed: seed + round, seconds })
      const took = performance.now() - before
      overhead += 0.2 * (took - seconds * 1000 - overhead)
      left--
      add(results, result)
      const found = result.violations.length > 0 ? ` BROKEN: ${result.violations.join('; ')}` : ''
      const skipped = result.skipped ? ` not run: ${result.skipped}` : ''
      console.error(
        `${round + 1}/${rounds} ${cell.name} ${column.name} seed ${seed + round}: ${result.rows} rows, ${result.faults} faults${skipped}${found}`,
      )
    }
  }
  return { results, rounds, minutes: (performance.now() - started) / 60_000 }
}

/** What cargo's target prints; null where there is no such target. */
function cargoTorture(args) {
  if (!/name = "torture"/.test(readFileSync(path.join(root, 'Cargo.toml'), 'utf8'))) return null
  console.error(`cargo bench --bench torture -- ${args.join(' ')}`)
  const { status, stdout } = spawnSync('cargo', ['bench', '--locked', '--bench', 'torture', '--', ...args], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  })
  return {
    command: `cargo bench --bench torture -- ${args.join(' ')}`,
    ok: status === 0,
    output: (stdout ?? '').trim(),
  }
}

/** Puts `text` between the page's markers of `name`. */
function writeInto(name, text) {
  const page = readFileSync(PAGE, 'utf8')
  const [begin, end] = [`<!-- torture: ${name} -->`, `<!-- torture: end of ${name} -->`]
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`docs/reliability.md has no markers ${begin} and ${end}`)
  writeFileSync(PAGE, `${page.slice(0, from + begin.length)}\n\n${text.trim()}\n\n${page.slice(to)}`)
  spawnSync(process.execPath, [tool.prettier, '--write', PAGE])
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  if (settings.soak !== null) {
    const result = await soak({ minutes: settings.soak, seed: settings.seed })
    const text = soakReport(result, `npm run torture -- --soak ${settings.soak} --seed ${settings.seed}`)
    console.log(text)
    if (settings.write) writeInto('soak', text)
    if (result.violations.length > 0) process.exitCode = 1
    return
  }
  const ran = await matrix(settings)
  const only = settings.only.length > 0 ? ` --only ${settings.only.join(',')}` : ''
  const command = `npm run torture -- --minutes ${settings.minutes} --seed ${settings.seed}${only}`
  const parts = [matrixReport({ ...ran, command, machine: machine() })]
  let broken = [...ran.results.values()].some(({ violations }) => violations.size > 0)
  for (const args of [
    ['faults', String(settings.faults)],
    ['power', String(settings.states)],
  ]) {
    if (args[1] === '0') continue
    const found = cargoTorture(args)
    if (found === null) {
      console.error(`cargo has no target torture: ${args.join(' ')} not run`)
      continue
    }
    parts.push(`\`${found.command}\`${found.ok ? '' : ' **failed**'}:\n\n\`\`\`text\n${found.output}\n\`\`\``)
    broken ||= !found.ok
  }
  const text = parts.join('\n\n')
  console.log(text)
  if (settings.write) writeInto('matrix', text)
  if (broken) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  console.error(error instanceof UsageError ? `error: ${error.message}\n${usage}` : `error: ${error.stack}`)
  process.exitCode = error instanceof UsageError ? 64 : 1
}
