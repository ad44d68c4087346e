// Side by side in one run: how Fusion 0.13 wrote its log rows, a JavaScript buffer, better-sqlite3,
// this package, and the limit. Each measured run is a child process with one SQLite; repetitions are
// interleaved. Prints Markdown and writes it with the raw results to bench-results/.

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildBench } from './cargo.mjs'
import { UsageError, commandLine, runMain } from './command-line.mjs'
import { compileCounters, countingEnvironment } from './io-counters.mjs'
import { report } from './report.mjs'
import { readRows } from './rows.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const exampleInput = path.join(root, 'examples/agent-logs.jsonl')

const usage = `Usage: npm run bench [-- OPTIONS]

  --input FILE        agent log entries as JSON Lines (default: the excerpt under examples/)
  --quick             fewer rows and repetitions: under a minute
  --only LIST         contenders (a,b,c,d,e) or scenarios (saturated,paced,cost,agents), comma-separated
  --repetitions N     measured runs of each configuration (default: 3; with --quick: 1)
  --dir FOLDER        where the databases are made (default: the system's temporary folder)
  --output FOLDER     where the results are written (default: bench-results)
  --help              this text

  a  Fusion 0.13's way     b  JavaScript buffer, 50 rows or 2 s     c  better-sqlite3, 1,000 rows a transaction
  d  this package          e  the limit: Rust, no Node`

function options() {
  const { repetitions, ...values } = commandLine(
    {
      input: { type: 'string', default: exampleInput },
      dir: { type: 'string', default: os.tmpdir() },
      output: { type: 'string', default: path.join(root, 'bench-results') },
    },
    ({ quick }) => (quick ? 1 : 3),
  )
  if (!statSync(values.input, { throwIfNoEntry: false })?.isFile())
    throw new UsageError(`--input: no such file: ${values.input}`)
  if (!statSync(values.dir, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`--dir: no such folder: ${values.dir}`)
  const known = ['a', 'b', 'c', 'd', 'e', 'saturated', 'paced', 'cost', 'agents']
  const only = values.only?.split(',') ?? []
  const unknown = only.filter((name) => !known.includes(name))
  if (unknown.length > 0) throw new UsageError(`--only: unknown: ${unknown.join(', ')}; known: ${known.join(', ')}`)
  return { ...values, input: path.resolve(values.input), repetitions, only }
}

/** Every configuration that is measured: a key for the report, its contender's letter, its job. */
function configurations({ quick, only }) {
  const rows = quick ? 10_000 : 58_000
  const seconds = quick ? 2 : 5
  const list = []
  const add = (scenario, letter, key, job) => list.push({ scenario, letter, key, job: { scenario, ...job } })

  add('saturated', 'a', 'a', { contender: 'fusion-0.13', rows: quick ? 500 : 2000 })
  add('saturated', 'b', 'b', { contender: 'js-buffer', rows })
  add('saturated', 'c', 'c', { contender: 'better-sqlite3', rows })
  add('saturated', 'd', 'd', { contender: 'fusion-sqlite', rows })
  add('saturated', 'd', 'd1', { contender: 'fusion-sqlite', rows, single: true })
  add('saturated', 'e', 'e', { contender: 'limit', rows })

  for (const rate of [20, 100, 2000]) {
    const paced = { rate, rows: rate * seconds }
    add('paced', 'abd', `none@${rate}`, { contender: 'none', ...paced })
    add('paced', 'a', `a@${rate}`, { contender: 'fusion-0.13', ...paced })
    add('paced', 'b', `b@${rate}`, { contender: 'js-buffer', ...paced })
    add('paced', 'd', `d@${rate}`, { contender: 'fusion-sqlite', ...paced })
  }

  const costRows = quick ? 29_000 : 58_000
  add('cost', 'd', 'node-batch', { cost: 'node:sqlite run() in one transaction', rows: costRows })
  add('cost', 'd', 'node-single', { cost: 'node:sqlite run() with a commit a row', rows: quick ? 3000 : 5000 })
  add('cost', 'd', 'ours-batch', { contender: 'fusion-sqlite', cost: 'appendAgentLogs(1,000 entries)', rows: costRows })
  add('cost', 'd', 'ours-single', { contender: 'fusion-sqlite', cost: 'appendAgentLog(entry)', rows: costRows })

  const twenty = { contender: 'fusion-sqlite', agents: 20, rate: 100, seconds }
  add('agents', 'd', 'idle', { ...twenty, idle: true })
  add('agents', 'd', 'agents', twenty)

  const letters = only.filter((name) => name.length === 1)
  const scenarios = only.filter((name) => name.length > 1)
  return list.filter(
    ({ scenario, letter }) =>
      (letters.length === 0 || letters.some((wanted) => letter.includes(wanted))) &&
      (scenarios.length === 0 || scenarios.includes(scenario)),
  )
}

/** Runs one job in a child process and returns its result, or the reason why there is none. */
function measure(job, { folder, limit, counters, input }) {
  const run = mkdtempSync(path.join(folder, 'run-'))
  const file = path.join(run, 'fusion.db')
  const [command, args] =
    job.contender === 'limit'
      ? [limit, [file, path.join(root, 'examples/fusion-schema.sql'), input, String(job.rows)]]
      : [
          process.execPath,
          [fileURLToPath(new URL('child.mjs', import.meta.url)), JSON.stringify({ ...job, file, input })],
        ]
  const env = { ...process.env, ...countingEnvironment(counters, path.join(run, 'io-counters')) }
  return new Promise((resolve) => {
    execFile(command, args, { env, timeout: 120_000, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
      rmSync(run, { recursive: true, force: true })
      if (!error) return resolve(JSON.parse(stdout.trim().split('\n').at(-1)))
      const reason = error.killed ? 'took longer than 120 s' : stderr.trim() || error.message
      return resolve({ failed: reason })
    })
  })
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  readRows(settings.input)
  const list = configurations(settings)
  const folder = mkdtempSync(path.join(settings.dir, 'fusion-sqlite-bench-'))
  const started = Date.now()
  try {
    const context = {
      folder,
      input: settings.input,
      counters: compileCounters(folder),
      limit: list.some(({ job }) => job.contender === 'limit') ? buildBench('limit', 'the limit') : null,
    }
    const runs = new Map(list.map(({ key }) => [key, []]))
    const failures = new Map()
    for (let repetition = 1; repetition <= settings.repetitions; repetition += 1) {
      for (const { key, job } of list) {
        console.error(`${repetition}/${settings.repetitions} ${key}`)
        const result = await measure(job, context)
        if (result.failed) failures.set(key, result.failed)
        else runs.get(key).push(result)
      }
    }
    const { markdown, missed } = report(list, runs, failures, settings, (Date.now() - started) / 1000)
    console.log(markdown)
    write(settings.output, markdown, {
      settings,
      runs: Object.fromEntries(runs),
      failures: Object.fromEntries(failures),
    })
    if (failures.size > 0 || missed > 0) process.exitCode = 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function write(folder, markdown, results) {
  if (!existsSync(folder)) mkdirSync(folder, { recursive: true })
  const stamp = new Date().toISOString().replaceAll(':', '').slice(0, 17)
  const name = path.join(folder, `bench-${stamp}`)
  writeFileSync(`${name}.md`, markdown)
  writeFileSync(
    `${name}.json`,
    `${JSON.stringify({ node: process.version, cpus: os.cpus().length, ...results }, null, 2)}\n`,
  )
  console.error(`written: ${name}.md, ${name}.json`)
}

await runMain(main, usage)
