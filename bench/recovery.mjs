// The salvager against the sqlite3 shell's .recover, on the same damaged files: how many of the
// rows that were true come back, how many false ones come with them, how fast. Prints Markdown and
// writes it with the raw results to bench-results/.

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { buildBench } from './cargo.mjs'
import { UsageError, commandLine, runMain } from './command-line.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

const usage = `Usage: npm run bench -- recovery [OPTIONS]

  --quick             each damage at one place, a smaller large file: two minutes
  --only LIST         damage or databases whose names contain one of these, comma-separated: root,log
  --repetitions N     places at which each damage is done (default: 4; with --quick: 1)
  --size MB           the large file that time is taken on; 0 for none (default: 200; with --quick: 50)
  --dir FOLDER        where the large file is made (default: the system's temporary folder)
  --output FOLDER     where the results are written (default: bench-results)
  --help              this text`

/** Entries of the log that the first table is about; a few are deleted again. */
const LOG_ROWS = 27_441

function options() {
  const { size, ...values } = commandLine(
    {
      size: { type: 'string' },
      dir: { type: 'string', default: os.tmpdir() },
      output: { type: 'string', default: path.join(root, 'bench-results') },
    },
    ({ quick }) => (quick ? 1 : 4),
  )
  const megabytes = Number(size ?? (values.quick ? 50 : 200))
  if (!Number.isInteger(megabytes) || megabytes < 0) throw new UsageError('--size must be a whole number of MB')
  if (!statSync(values.dir, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`--dir: no such folder: ${values.dir}`)
  return { ...values, size: megabytes, only: values.only?.split(',') ?? [] }
}

/** Runs the program and answers the objects that it prints, a line each. */
function ask(program, args, each = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
    const answers = []
    createInterface({ input: child.stdout }).on('line', (line) => {
      answers.push(JSON.parse(line))
      each(answers.length)
    })
    child.on('error', reject)
    child.on('close', (code) =>
      code === 0 ? resolve(answers) : reject(new Error(`${path.basename(program)} ${args[0]} ended with code ${code}`)),
    )
  })
}

const number = (value) => value.toLocaleString('en-US', { maximumFractionDigits: value >= 100 ? 0 : 1 })

const table = (head, body) =>
  [head, head.map((_, column) => (column === 0 ? '---' : '--:')), ...body]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')

/**
 * What all runs together must reach, and whether they do: of the rows that were true before at most
 * one in a thousand fewer than the baseline, not more false ones, and none lost of a table that
 * SQLite finds no fault in. Such a table comes out as SQLite reads it: what is false in it is not
 * the salvager's. Without a baseline of these settings the shell's `.recover` is it.
 */
function verdict(runs, { repetitions, only }) {
  const sum = (value) => runs.reduce((total, run) => total + value(run), 0)
  const saved = JSON.parse(readFileSync(new URL('recovery-baseline.json', import.meta.url), 'utf8'))
  const isSaved = saved.repetitions === repetitions && saved.runs === runs.length && only.length === 0
  const baseline = isSaved ? saved : { true: sum((run) => run.theirs.true), false: sum((run) => run.theirs.false) }
  const ours = {
    true: sum((run) => run.ours.true),
    false: sum((run) => run.ours.false),
    cleanNotTrue: sum((run) => run.cleanNotTrue),
    cleanLost: sum((run) => run.cleanLost),
  }
  const reached =
    ours.true >= 0.999 * baseline.true && ours.false - ours.cleanNotTrue <= baseline.false && ours.cleanLost === 0
  const text = `${number(ours.true)} true rows in all (baseline${isSaved ? '' : ', .recover'}: ${number(baseline.true)}), \
${number(ours.false)} false ones (${number(baseline.false)}), of which SQLite itself reads ${number(ours.cleanNotTrue)} in \
tables that it finds no fault in; ${number(ours.cleanLost)} rows of such tables lost: ${reached ? 'reached' : 'NOT reached'}.`
  return { text, reached }
}

/** One line for each damage: sums over the runs. */
function lines(runs) {
  const groups = Map.groupBy(runs, (run) => `${run.case}${run.snapshot ? ' (snapshot given)' : ''}`)
  return Array.from(groups, ([name, group]) => {
    const sum = (value) => group.reduce((total, run) => total + value(run), 0)
    const missed = group.filter((run) => run.misses.length > 0).length
    return [
      name,
      number(sum((run) => run.rows)),
      number(sum((run) => run.inFile)),
      ...['theirs', 'ours'].flatMap((side) => [
        number(sum((run) => run[side].true)),
        number(sum((run) => run[side].false)),
        number(sum((run) => run[side].lostAndFound)),
      ]),
      missed === 0 ? 'pass' : `${missed} of ${group.length} missed`,
    ]
  })
}

const titles = [
  'damage',
  'rows',
  'still in the file',
  '.recover: true',
  'false',
  'lost_and_found',
  'fusion-sqlite: true',
  'false',
  'lost_and_found',
  'target',
]

function report({ shell, sqlite }, runs, throughput, settings, seconds) {
  const sections = [
    `\`.recover\` of the sqlite3 shell ${shell} and fusion-sqlite's salvager (SQLite ${sqlite}) on the same bytes, each
damage at ${settings.repetitions} place${settings.repetitions === 1 ? '' : 's'} of each database. A row is true if it is in its table with its rowid and every byte
as before, false if it is in a table that did not hold it; rows of \`lost_and_found\` are neither. Target: in every single run
at least as many true rows and at most as many false ones, no false one where no row's bytes were changed, 99 % of the rows
still in the file where page 1 or a table's root is gone and a snapshot of the schema is at hand, a sound result.
${os.cpus().length} CPUs (${os.cpus()[0]?.model.trim()}), ${process.platform}-${process.arch}; ${Math.round(seconds)} s in all.`,
  ]
  const log = runs.filter((run) => run.schema === 'log')
  const others = runs.filter((run) => run.schema !== 'log')
  if (log.length > 0) sections.push("### Fusion's log", table(titles, lines(log)))
  if (others.length > 0) {
    const kinds = new Set(others.map((run) => run.schema))
    sections.push(`### ${kinds.size} kinds of databases`, [...kinds].join(', '), table(titles, lines(others)))
  }
  if (throughput) {
    const line = (name, { seconds: took, megabytesPerSecond, peakMegabytes, rows }) => [
      name,
      number(took),
      number(megabytesPerSecond),
      number(peakMegabytes),
      number(rows),
    ]
    sections.push(
      `### A log of ${number(throughput.bytes / 1e6)} MB, 20 pages zeroed`,
      table(
        ['', 's', 'MB/s', 'peak memory MB', 'rows'],
        [line('.recover into a second shell', throughput.theirs), line('fusion-sqlite', throughput.ours)],
      ),
      `Repaired in place, compared with what SQLite reads of it: ${number(throughput.repair.seconds)} s, for ${number(throughput.repair.heldSeconds)} s of which no other connection could write; peak memory ${number(throughput.repairMegabytes)} MB.`,
    )
  }
  const missed = runs.filter((run) => run.misses.length > 0)
  if (missed.length > 0) {
    const texts = missed.map(
      (run) => `- ${run.schema}, ${run.case}, place ${run.seed}${run.snapshot ? ', snapshot' : ''}: ${run.misses[0]}`,
    )
    sections.push('### Missed', texts.join('\n'))
  }
  const { text, reached } = verdict(runs, settings)
  sections.push(`${runs.length - missed.length} of ${runs.length} runs reached their targets.`, text)
  return { markdown: `${sections.join('\n\n')}\n`, reached }
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  const program = buildBench('recovery', 'the recoveries')
  const started = Date.now()
  const [versions, ...runs] = await ask(
    program,
    ['cases', String(LOG_ROWS), String(settings.repetitions), ...settings.only],
    (count) => count % 100 === 0 && console.error(`${count} runs`),
  )
  if (runs.length === 0) throw new UsageError(`--only: no damage and no database is named like ${settings.only}`)
  let throughput
  if (settings.size > 0) {
    console.error(`a file of ${settings.size} MB …`)
    const folder = mkdtempSync(path.join(settings.dir, 'fusion-sqlite-bench-'))
    try {
      throughput = (await ask(program, ['throughput', folder, String(settings.size)]))[0]
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
  const { markdown, reached } = report(versions, runs, throughput, settings, (Date.now() - started) / 1000)
  console.log(markdown)
  mkdirSync(settings.output, { recursive: true })
  const name = path.join(settings.output, `recovery-${new Date().toISOString().replaceAll(':', '').slice(0, 17)}`)
  writeFileSync(`${name}.md`, markdown)
  writeFileSync(`${name}.json`, `${JSON.stringify({ ...versions, settings, throughput, runs }, null, 2)}\n`)
  console.error(`written: ${name}.md, ${name}.json`)
  if (!reached) process.exitCode = 1
}

await runMain(main, usage)
