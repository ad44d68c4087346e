// What it costs to have many databases, and to open one for a short while: this package against
// node:sqlite and better-sqlite3.
//
// Each contender has a process of its own. They are alive at the same time and asked in turn, so that
// what else the machine does meets all of them. Prints Markdown and writes it with the raw times to
// bench-results/.

import { fork, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { commandLine, runMain } from './command-line.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const childFile = fileURLToPath(new URL('open-child.mjs', import.meta.url))
const NODE = 'node:sqlite'
const contenders = [NODE, 'better-sqlite3', 'DatabaseSync', 'HardenedDatabase', 'HardenedDatabase, no check']
const counts = [1, 300, 1500]

/** Databases of which the descriptors are counted. */
const COUNTED = 50

/** Bytes of the file that a short process opens. */
const SHORT = 10 << 20

const usage = `Usage: npm run bench -- open [OPTIONS]

  --quick             fewer rounds
  --only LIST         parts: open,process,descriptors
  --repetitions N     rounds of each line (default: 15; with --quick: 5)
  --dir FOLDER        where the databases are made (default: the system's temporary folder)
  --output FOLDER     where the results are written (default: bench-results)
  --help              this text`

function options() {
  const values = commandLine(
    {
      dir: { type: 'string', default: os.tmpdir() },
      output: { type: 'string', default: path.join(root, 'bench-results') },
    },
    ({ quick }) => (quick ? 5 : 15),
  )
  return { ...values, parts: values.only?.split(',') ?? ['open', 'process', 'descriptors'] }
}

const median = (numbers) => numbers.toSorted((x, y) => x - y)[numbers.length >> 1]

/** A contender's process. */
class Child {
  constructor(contender, args) {
    this.contender = contender
    this.process = fork(childFile, [contender, ...args], { execArgv: ['--disable-warning=ExperimentalWarning'] })
  }

  ask(question, argument) {
    return new Promise((resolve, reject) => {
      const settle = (act, value) => {
        this.process.off('message', answered).off('exit', ended)
        act(value)
      }
      const ended = (code) => settle(reject, new Error(`${this.contender}: ${question}: ended with ${code}`))
      const answered = ({ answer, error }) =>
        error === undefined
          ? settle(resolve, answer)
          : settle(reject, new Error(`${this.contender}: ${question}: ${error}`))
      this.process.on('message', answered).on('exit', ended)
      this.process.send([question, argument])
    })
  }
}

/** Runs `body` with a process of each contender. */
async function withChildren(args, body) {
  const children = contenders.map((contender) => new Child(contender, args))
  try {
    return await body(children)
  } finally {
    for (const child of children) child.process.kill()
  }
}

/** Open, first query and close of one database more, while others are open. */
function openings(folder, rounds) {
  return withChildren([folder], async (children) => {
    const lines = []
    for (const count of counts) {
      const times = new Map(contenders.map((contender) => [contender, []]))
      for (const child of children) await child.ask('hold', count - 1)
      for (let round = 0; round < rounds; round++) {
        const order = [...children.slice(round % children.length), ...children.slice(0, round % children.length)]
        for (const child of order) times.get(child.contender).push(await child.ask('cycle'))
      }
      for (const [contender, samples] of times) {
        const [open, query, close] = ['open', 'query', 'close'].map((part) =>
          median(samples.map((sample) => sample[part])),
        )
        const all = median(samples.map((sample) => sample.open + sample.query + sample.close))
        lines.push({ count, contender, open, query, close, all })
      }
    }
    return lines
  })
}

/** A process that opens a file of 10 MiB, reads a row and closes it. */
async function processes(folder, rounds) {
  const files = new Map()
  for (const contender of contenders) {
    const file = path.join(folder, `short-${files.size}.db`)
    copyFileSync(path.join(folder, 'large.db'), file)
    files.set(contender, file)
  }
  const run = (contender, file) => {
    const started = performance.now()
    const child = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', childFile, contender, folder, file],
      { encoding: 'utf8' },
    )
    if (child.status !== 0) throw new Error(`${contender}: ${child.stderr}`)
    return { whole: performance.now() - started, inside: Number(child.stdout) }
  }
  const touched = path.join(folder, 'short-touched.db')
  copyFileSync(path.join(folder, 'large.db'), touched)
  // Files that have just been made are not yet certain to be unchanged.
  await sleep(2500)
  for (const [contender, file] of files) run(contender, file)
  const times = new Map(contenders.map((contender) => [contender, []]))
  const checked = []
  for (let round = 0; round < rounds; round++) {
    for (const [contender, file] of files) times.get(contender).push(run(contender, file))
    // The same after the file has been touched.
    utimesSync(touched, new Date(), new Date())
    checked.push(run('HardenedDatabase', touched))
  }
  times.set('HardenedDatabase, file touched since', checked)
  return [...times].map(([contender, samples]) => ({
    contender,
    whole: median(samples.map(({ whole }) => whole)),
    inside: median(samples.map(({ inside }) => inside)),
  }))
}

/** Descriptors a database. */
function descriptors(folder) {
  return withChildren([folder], async (children) => {
    const lines = []
    for (const child of children) lines.push({ contender: child.contender, ...(await child.ask('count', COUNTED)) })
    return lines
  })
}

/** What is wanted, as the lines that miss it. */
function missed({ open = [], descriptors: counted = [] }) {
  const most = counts.at(-1)
  const at = (contender) => open.find((line) => line.contender === contender && line.count === most)
  const of = (contender) => counted.find((line) => line.contender === contender)
  const wanted = []
  if (open.length > 0) {
    const [node, ours, hardened] = [NODE, 'DatabaseSync', 'HardenedDatabase, no check'].map(at)
    wanted.push([
      `DatabaseSync opens at ${most} within 2 × node:sqlite`,
      ours.open + ours.query,
      2 * (node.open + node.query),
    ])
    wanted.push([`DatabaseSync closes at ${most} within 2 × node:sqlite`, ours.close, 2 * node.close])
    wanted.push([`HardenedDatabase without a check opens at ${most} within 3 ms`, hardened.open + hardened.query, 3])
  }
  if (counted.length > 0) {
    const [node, ours, hardened] = [NODE, 'DatabaseSync', 'HardenedDatabase'].map(of)
    wanted.push(['descriptors of a DatabaseSync: at most 2 more than node:sqlite', ours.idle, node.idle + 2])
    wanted.push(['descriptors of a HardenedDatabase, idle: at most 5', hardened.idle, 5])
    wanted.push(['descriptors of a HardenedDatabase, at work: at most 7', hardened.atWork, 7])
  }
  return wanted.map(([name, value, limit]) => ({ name, value, limit, met: value <= limit }))
}

const ms = (value) => value.toFixed(2)

const times = (value, base) => `${(value / base).toFixed(2)} ×`

const table = (header, rows) =>
  [header, header.map((_, column) => (column === 0 ? '---' : '--:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n')

function report(results, targets) {
  const parts = []
  if (results.open) {
    const node = (count) => results.open.find((line) => line.contender === NODE && line.count === count)
    const rows = results.open.map(({ count, contender, open, query, close, all }) => [
      contender,
      count,
      ...[open, query, close, all].map(ms),
      times(all, node(count).all),
    ])
    parts.push(table(['', 'open databases', 'open, ms', 'first query, ms', 'close, ms', 'all, ms', `to ${NODE}`], rows))
  }
  if (results.process) {
    const [node] = results.process
    const rows = results.process.map(({ contender, whole, inside }) => [
      contender,
      ms(whole),
      ms(inside),
      times(inside, node.inside),
    ])
    const header = ['a process with a file of 10 MiB', 'whole, ms', 'open to close, ms', `open to close, to ${NODE}`]
    parts.push(table(header, rows))
  }
  if (results.descriptors) {
    const rows = results.descriptors.map(({ contender, idle, atWork }) => [
      contender,
      idle.toFixed(1),
      atWork?.toFixed(1) ?? '',
    ])
    parts.push(table(['descriptors a database', 'idle', 'its writer at work'], rows))
  }
  const lines = targets.map(
    ({ name, value, limit, met }) => `- ${met ? 'pass' : 'miss'}: ${name} (${ms(value)}; at most ${ms(limit)})`,
  )
  parts.push(`${lines.join('\n')}
${targets.filter(({ met }) => met).length} of ${targets.length} targets met. Medians; each contender in a process of its own, asked in turn. Node
${process.version}, ${process.platform}-${process.arch}, ${os.cpus().length} CPUs (${os.cpus()[0]?.model.trim()}).`)
  return `${parts.join('\n\n')}\n`
}

async function main() {
  const settings = options()
  if (settings.help) return console.log(usage)
  const folder = mkdtempSync(path.join(settings.dir, 'fusion-sqlite-bench-'))
  try {
    const made = spawnSync(process.execPath, ['--no-warnings', childFile, 'make', folder, String(SHORT)], {
      stdio: 'inherit',
    })
    if (made.status !== 0 || !existsSync(path.join(folder, 'large.db'))) throw new Error('no databases were made')
    const results = {}
    const { parts, repetitions } = settings
    if (parts.includes('open')) results.open = await openings(folder, repetitions)
    if (parts.includes('process')) results.process = await processes(folder, repetitions)
    if (parts.includes('descriptors') && statSync('/dev/fd', { throwIfNoEntry: false })) {
      results.descriptors = await descriptors(folder)
    }
    const targets = missed(results)
    const markdown = report(results, targets)
    console.log(markdown)
    mkdirSync(settings.output, { recursive: true })
    const name = path.join(settings.output, `open-${new Date().toISOString().replaceAll(':', '').slice(0, 17)}`)
    writeFileSync(`${name}.md`, markdown)
    writeFileSync(`${name}.json`, `${JSON.stringify({ node: process.version, results, targets }, null, 2)}\n`)
    console.error(`written: ${name}.md, ${name}.json`)
    if (targets.some(({ met }) => !met)) process.exitCode = 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

await runMain(main, usage)
