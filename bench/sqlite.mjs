// DatabaseSync against node:sqlite and better-sqlite3, line by line.
//
// In each repetition every contender has a process of its own. They are alive at the same time and
// asked in turn, round by round, so that what else the machine does meets all of them. A
// repetition's time is the lower quartile of its rounds: a round can be disturbed, and by a factor,
// but not be helped. Prints Markdown and writes it with the raw times
// to bench-results/.

import { fork } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { UsageError, commandLine, runMain } from './command-line.mjs'
import { cases } from './sqlite-cases.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const [OURS, NODE, BETTER] = ['fusion-sqlite', 'node:sqlite', 'better-sqlite3']
const contenders = [OURS, NODE, BETTER]

const usage = `Usage: npm run bench -- sqlite [OPTIONS]

  --quick             shorter rounds and fewer repetitions: half a minute
  --only LIST         lines whose names contain one of these, comma-separated: get,prepare
  --repetitions N     processes of each contender, one after the other (default: 5; with --quick: 3)
  --dir FOLDER        where the databases are made (default: the system's temporary folder)
  --output FOLDER     where the results are written (default: bench-results)
  --help              this text`

function options() {
  const { repetitions, ...values } = commandLine(
    {
      dir: { type: 'string', default: os.tmpdir() },
      output: { type: 'string', default: path.join(root, 'bench-results') },
    },
    ({ quick }) => (quick ? 3 : 5),
  )
  const wanted = values.only?.split(',') ?? ['']
  const unknown = wanted.filter((part) => !cases.some(([name]) => name.includes(part)))
  if (unknown.length > 0) {
    throw new UsageError(
      `--only: no line contains ${unknown.join(', ')}; lines:\n  ${cases.map(([name]) => name).join('\n  ')}`,
    )
  }
  return {
    ...values,
    repetitions,
    rounds: values.quick ? 5 : 11,
    roundMs: values.quick ? 4 : 8,
    lines: cases.filter(([name]) => wanted.some((part) => name.includes(part))),
  }
}

/** A contender's process. */
class Child {
  constructor(contender, folder, roundMs) {
    this.contender = contender
    this.process = fork(
      fileURLToPath(new URL('sqlite-child.mjs', import.meta.url)),
      [contender, folder, String(roundMs)],
      { execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning'] },
    )
  }

  ask(question, argument) {
    return new Promise((resolve, reject) => {
      const settle = (act) => {
        clearTimeout(timer)
        this.process.off('message', answered).off('exit', ended).off('error', ended)
        act()
      }
      const failed = (reason) => settle(() => reject(new Error(`${this.contender}: ${question}: ${reason}`)))
      const answered = ({ answer, error }) => (error ? failed(error) : settle(() => resolve(answer)))
      const ended = (reason) => failed(`the process ended: ${reason}`)
      const timer = setTimeout(() => failed('no answer within 60 s'), 60_000)
      this.process.on('message', answered).on('exit', ended).on('error', ended)
      this.process.send([question, argument])
    })
  }

  stop() {
    this.process.kill()
  }
}

const median = (numbers) => {
  const sorted = numbers.toSorted((x, y) => x - y)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

const lowerQuartile = (numbers) => numbers.toSorted((x, y) => x - y)[numbers.length >> 2]

/** One repetition: every line, each contender in a process of its own. */
async function repeat(settings, folder, repetition, lines, results) {
  const children = contenders.map((contender) => new Child(contender, folder, settings.roundMs))
  try {
    const about = new Map()
    for (const child of children) about.set(child.contender, await child.ask('about'))
    for (const [at, [name]] of lines.entries()) {
      // Whoever has no user functions yet sits that line out.
      const able = children.filter((child) => !name.startsWith('function') || about.get(child.contender).functions)
      const digests = new Map()
      for (const child of able) digests.set(child.contender, await child.ask('start', name))
      if (new Set(digests.values()).size > 1) {
        throw new Error(`${name}: the contenders' results differ: ${JSON.stringify([...digests])}`)
      }
      const times = new Map(able.map((child) => [child.contender, []]))
      for (let round = 0; round < settings.rounds; round++) {
        // Nobody is always the one who comes after the same other.
        const first = (repetition + at + round) % able.length
        const order = [...able.slice(first), ...able.slice(0, first)]
        if (round % 2 === 1) order.reverse()
        for (const child of order) times.get(child.contender).push(await child.ask('round'))
      }
      for (const child of able) {
        results.get(name)[child.contender].push(lowerQuartile(times.get(child.contender)))
        await child.ask('end')
      }
    }
    return about
  } finally {
    for (const child of children) child.stop()
  }
}

/** Medians, ranges and ratios of a line. A ratio is the median of the repetitions' own. */
function summarise([name, , target = 1], times) {
  const ratio = (other) =>
    times[OURS].length > 0 && times[other].length > 0
      ? median(times[OURS].map((time, repetition) => time / times[other][repetition]))
      : null
  const summary = { name, target, times, toNode: ratio(NODE), toBetter: ratio(BETTER) }
  // To two decimals, as it is shown.
  summary.met = summary.toNode === null ? null : Math.round(summary.toNode * 100) <= Math.round(target * 100)
  return summary
}

function duration(nanoseconds, unit) {
  const value = nanoseconds / unit
  return value.toLocaleString('en-US', { maximumFractionDigits: value >= 100 ? 0 : value >= 10 ? 1 : 2 })
}

function cell(times) {
  if (times.length === 0) return 'n/a'
  const middle = median(times)
  const [unit, name] = middle < 1e4 ? [1, 'ns'] : middle < 1e7 ? [1e3, 'µs'] : [1e6, 'ms']
  const range = [Math.min(...times), Math.max(...times)].map((time) => duration(time, unit)).join('–')
  return times.length > 1 ? `${duration(middle, unit)} ${name} (${range})` : `${duration(middle, unit)} ${name}`
}

function report(summaries, about, settings, seconds) {
  const versions = contenders.map((contender) => `${contender} on SQLite ${about.get(contender).version}`).join(', ')
  const header = ['a call', NODE, BETTER, OURS, `to ${NODE}`, `to ${BETTER}`, 'target', '']
  const lines = summaries.map(({ name, target, times, toNode, toBetter, met }) =>
    [
      name,
      ...[NODE, BETTER, OURS].map((contender) => cell(times[contender])),
      ...[toNode, toBetter].map((ratio) => ratio?.toFixed(2) ?? 'n/a'),
      `≤ ${target.toFixed(2)}`,
      met === null ? 'n/a' : met ? 'pass' : 'miss',
    ].join(' | '),
  )
  const missed = summaries.filter(({ met }) => met === false).length
  const measured = summaries.filter(({ met }) => met !== null).length
  return `Median (lowest–highest) of ${settings.repetitions} repetitions, each contender in a process of its own, asked in turn. A
repetition's time is the lower quartile of its rounds; a
ratio is the median of the repetitions' ratios: below 1, this package is faster. The target is for the ratio to
node:sqlite. Node ${process.version}, ${process.platform}-${process.arch}, ${os.cpus().length} CPUs (${os.cpus()[0]?.model.trim()}); ${versions};
${Math.round(seconds)} s in all.

| ${header.join(' | ')} |
|---|${'--:|'.repeat(header.length - 2)}---|
${lines.map((line) => `| ${line} |`).join('\n')}

${measured - missed} of ${measured} targets met.
`
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  const folder = mkdtempSync(path.join(settings.dir, 'fusion-sqlite-bench-'))
  const started = Date.now()
  try {
    const results = new Map(
      settings.lines.map(([name]) => [name, Object.fromEntries(contenders.map((contender) => [contender, []]))]),
    )
    let about
    for (let repetition = 1; repetition <= settings.repetitions; repetition++) {
      console.error(`${repetition}/${settings.repetitions}`)
      about = await repeat(settings, folder, repetition, settings.lines, results)
    }
    const summaries = settings.lines.map((line) => summarise(line, results.get(line[0])))
    const markdown = report(summaries, about, settings, (Date.now() - started) / 1000)
    console.log(markdown)
    write(settings, markdown, about, summaries)
    if (summaries.some(({ met }) => met === false)) process.exitCode = 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function write(settings, markdown, about, summaries) {
  mkdirSync(settings.output, { recursive: true })
  const name = path.join(settings.output, `sqlite-${new Date().toISOString().replaceAll(':', '').slice(0, 17)}`)
  const { repetitions, rounds, roundMs } = settings
  const results = {
    node: process.version,
    cpus: os.cpus().length,
    settings: { repetitions, rounds, roundMs },
    contenders: Object.fromEntries(about),
    unit: 'ns a call',
    lines: summaries,
  }
  writeFileSync(`${name}.md`, markdown)
  writeFileSync(`${name}.json`, `${JSON.stringify(results, null, 2)}\n`)
  console.error(`written: ${name}.md, ${name}.json`)
}

await runMain(main, usage)
