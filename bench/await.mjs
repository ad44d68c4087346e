// What a caller waits for: appends that are awaited, in one process and in four, side by side with
// node:sqlite and better-sqlite3, whose transactions hold up the event loop instead.
//
// A repetition measures every contender, each in processes and on a file of its own, one after the
// other. Ratios are of medians. Prints Markdown and writes it with the raw figures to bench-results/.

import { fork } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { UsageError, commandLine, runMain } from './command-line.mjs'
import { compileCounters, countingEnvironment } from './io-counters.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const parts = ['one', 'twenty', 'processes']
const [OURS, LINGERING, NODE, BETTER] = [
  'fusion-sqlite',
  'fusion-sqlite, awaitedLinger 5',
  'node:sqlite',
  'better-sqlite3',
]

const usage = `Usage: npm run bench -- await [OPTIONS]

  --quick             a third of the rows, and fewer repetitions
  --only LIST         parts, comma-separated: ${parts.join(',')}
  --repetitions N     measured runs of each contender (default: 5; with --quick: 3)
  --dir FOLDER        where the databases are made (default: the system's temporary folder)
  --output FOLDER     where the results are written (default: bench-results)
  --help              this text

  one        one caller, who awaits each entry
  twenty     twenty callers in one process, each of whom awaits each entry
  processes  four processes, each of which awaits batches of 20 entries`

function options() {
  const { repetitions, ...values } = commandLine(
    {
      dir: { type: 'string', default: os.tmpdir() },
      output: { type: 'string', default: path.join(root, 'bench-results') },
    },
    ({ quick }) => (quick ? 3 : 5),
  )
  const wanted = values.only?.split(',') ?? parts
  const unknown = wanted.filter((part) => !parts.includes(part))
  if (unknown.length > 0) throw new UsageError(`--only: unknown: ${unknown.join(', ')}; known: ${parts.join(', ')}`)
  const third = values.quick ? 3 : 1
  const jobs = {
    one: { processes: 1, callers: 1, each: Math.ceil(1500 / third), size: 1 },
    twenty: { processes: 1, callers: 20, each: Math.ceil(300 / third), size: 1 },
    processes: { processes: 4, callers: 1, each: Math.ceil(1500 / third), size: 20 },
  }
  return { ...values, repetitions, wanted, jobs }
}

const median = (numbers) => {
  const sorted = numbers.toSorted((x, y) => x - y)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** One run: the processes begin together, and each reports its progress. */
async function measure(contender, job, folder, counters) {
  const run = mkdtempSync(path.join(folder, 'run-'))
  const file = path.join(run, 'fusion.db')
  const children = []
  try {
    const progress = Array.from({ length: job.processes }, () => 0)
    let atFirstEnd
    const start = (_, index) => {
      const env = { ...process.env, ...countingEnvironment(counters, path.join(run, `io-counters-${index}`)) }
      const argument = JSON.stringify({ ...job, contender, file, creates: index === 0 })
      const child = fork(fileURLToPath(new URL('await-child.mjs', import.meta.url)), [argument], {
        env,
        execArgv: ['--disable-warning=ExperimentalWarning'],
      })
      children.push(child)
      let ready
      const isReady = new Promise((resolve) => (ready = resolve))
      const result = new Promise((resolve, reject) => {
        child.on('error', reject)
        child.on('exit', (code, signal) => reject(new Error(`${contender}: a process ended: ${signal ?? code}`)))
        child.on('message', ({ kind, value }) => {
          if (kind === 'ready') ready()
          else if (kind === 'progress') progress[index] = value
          else {
            atFirstEnd ??= progress.with(index, job.each)
            resolve(value)
          }
        })
      })
      return { child, isReady: Promise.race([isReady, result]), result }
    }
    // The first one makes the database.
    const all = []
    for (let index = 0; index < job.processes; index++) {
      all.push(start(null, index))
      await all[index].isReady
    }
    for (const { child } of all) child.send('go')
    const results = await Promise.all(all.map(({ result }) => result))
    const ends = results.map(({ seconds }) => seconds)
    const rows = job.processes * job.callers * job.each * job.size
    return {
      p50: median(results.map(({ p50 }) => p50)),
      p99: Math.max(...results.map(({ p99 }) => p99)),
      rowsPerSecond: rows / Math.max(...ends),
      walBytesPerRow: counters && results.reduce((sum, { walBytes }) => sum + walBytes, 0) / rows,
      spread: Math.max(...ends) / Math.min(...ends),
      least: Math.min(...atFirstEnd) / job.each,
    }
  } finally {
    for (const child of children) child.kill()
    rmSync(run, { recursive: true, force: true })
  }
}

const number = (value, digits) => value.toLocaleString('en-US', { maximumFractionDigits: digits })
const columns = {
  one: [
    ['p50 ms', 'p50', 3],
    ['p99 ms', 'p99', 2],
  ],
  twenty: [
    ['rows/s', 'rowsPerSecond', 0],
    ['p50 ms', 'p50', 3],
    ['WAL bytes/row', 'walBytesPerRow', 0],
  ],
  processes: [
    ['rows/s, all four', 'rowsPerSecond', 0],
    ['last end / first end', 'spread', 2],
    ['least progress at the first end', 'least', 2],
  ],
}
const titles = {
  one: 'One caller, who awaits each entry',
  twenty: 'Twenty callers in one process, each of whom awaits each entry',
  processes: 'Four processes, each of which awaits batches of 20 entries',
}

function table(part, runs) {
  const lines = Object.entries(runs).map(([contender, of]) => {
    const cells = columns[part].map(([, field, digits]) => {
      const all = of.map((run) => run[field]).filter((value) => value !== null)
      if (all.length === 0) return 'n/a'
      return `${number(median(all), digits)} (${number(Math.min(...all), digits)}–${number(Math.max(...all), digits)})`
    })
    return `| ${contender} | ${cells.join(' | ')} |`
  })
  const head = columns[part].map(([title]) => title)
  return [
    `### ${titles[part]}`,
    [`| | ${head.join(' | ')} |`, `|---|${'--:|'.repeat(head.length)}`, ...lines].join('\n'),
  ].join('\n\n')
}

/** What the package promises, as ratios of this run's medians. */
function targets(results) {
  const list = []
  const middle = (part, contender, field) => {
    const all = results[part]?.[contender]?.map((run) => run[field]).filter((value) => value !== null) ?? []
    return all.length > 0 ? median(all) : null
  }
  const compare = (name, measured, wanted, met) => {
    if (measured !== null && !Number.isNaN(measured)) list.push({ name, measured, wanted, met: met(measured) })
  }
  const ratio = (part, field, other) => {
    const [ours, theirs] = [middle(part, OURS, field), middle(part, other, field)]
    return ours === null || theirs === null ? null : ours / theirs
  }
  compare("one caller: p50 against awaitedLinger 5's", ratio('one', 'p50', LINGERING), 'at most 0.1', (r) => r <= 0.1)
  compare("one caller: p50 against node:sqlite's", ratio('one', 'p50', NODE), '', () => true)
  compare("one caller: p50 against better-sqlite3's", ratio('one', 'p50', BETTER), '', () => true)
  compare(
    'twenty: rows/s against awaitedLinger 5',
    ratio('twenty', 'rowsPerSecond', LINGERING),
    'at least 4',
    (r) => r >= 4,
  )
  compare('twenty: rows/s against node:sqlite', ratio('twenty', 'rowsPerSecond', NODE), '', () => true)
  compare('twenty: rows/s against better-sqlite3', ratio('twenty', 'rowsPerSecond', BETTER), '', () => true)
  compare(
    'twenty: WAL bytes a row against awaitedLinger 5',
    ratio('twenty', 'walBytesPerRow', LINGERING),
    'at most 1.15',
    (r) => r <= 1.15,
  )
  compare(
    'four processes: rows/s against node:sqlite',
    ratio('processes', 'rowsPerSecond', NODE),
    'at least 0.75, or 48,000 rows/s',
    (r) => r >= 0.75 || middle('processes', OURS, 'rowsPerSecond') >= 48_000,
  )
  compare('four processes: rows/s against better-sqlite3', ratio('processes', 'rowsPerSecond', BETTER), '', () => true)
  compare('four processes: last end / first end', middle('processes', OURS, 'spread'), 'at most 1.3', (r) => r <= 1.3)
  return list
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  const folder = mkdtempSync(path.join(settings.dir, 'fusion-sqlite-await-'))
  const results = {}
  try {
    const counters = compileCounters(folder)
    for (let repetition = 1; repetition <= settings.repetitions; repetition++) {
      for (const part of settings.wanted) {
        const contenders = part === 'processes' ? [OURS, NODE, BETTER] : [OURS, LINGERING, NODE, BETTER]
        results[part] ??= Object.fromEntries(contenders.map((contender) => [contender, []]))
        for (const contender of contenders) {
          console.error(`${repetition}/${settings.repetitions} ${part}: ${contender}`)
          results[part][contender].push(await measure(contender, settings.jobs[part], folder, counters))
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const list = targets(results)
  const markdown = [
    `Median (lowest–highest) of ${settings.repetitions} interleaved runs. Node ${process.version}, ` +
      `${process.platform}-${process.arch}, ${os.cpus().length} CPUs (${os.cpus()[0]?.model.trim()}).`,
    ...settings.wanted.map((part) => table(part, results[part])),
    '### Ratios',
    [
      '| medians compared | measured | target | |',
      '|---|--:|---|---|',
      ...list.map(
        ({ name, measured, wanted, met }) =>
          `| ${name} | ${number(measured, 3)} | ${wanted} | ${wanted === '' ? '' : met ? 'pass' : 'miss'} |`,
      ),
    ].join('\n'),
    '',
  ].join('\n\n')
  console.log(markdown)
  mkdirSync(settings.output, { recursive: true })
  const name = path.join(settings.output, `await-${new Date().toISOString().replaceAll(':', '').slice(0, 17)}`)
  writeFileSync(`${name}.md`, markdown)
  writeFileSync(
    `${name}.json`,
    `${JSON.stringify({ node: process.version, cpus: os.cpus().length, settings, results }, null, 2)}\n`,
  )
  console.error(`written: ${name}.md, ${name}.json`)
  if (list.some(({ met }) => !met)) process.exitCode = 1
}

await runMain(main, usage)
