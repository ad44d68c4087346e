// The main job: agents stream their log entries into a fresh fusion.db through the writer thread,
// while the event loop stays free. Prints what it did; exit code 1 if a row is missing.

import { spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { HardenedDatabase, engineInfo } from '../index.mjs'
import { InputError, MissingInputError, readEntries } from './entries.mjs'
import { bars } from './picture.mjs'

const examples = fileURLToPath(new URL('../examples/', import.meta.url))
const schema = path.join(examples, 'fusion-schema.sql')

const usage = `Usage: npm run demo [-- OPTIONS]

  --input FILE   agent log entries as JSON Lines (default: the excerpt under examples/)
  --agents N     how many agents write at the same time, 1 to 100 (default: 4)
  --rate N       entries a second of all agents together (default: as fast as they are taken)
  --disturb      meanwhile two other processes write to the file, and this one copies it with fs.cp
  --keep         keep the database and print its path
  --help         this text`

class UsageError extends Error {}

function options() {
  let values
  try {
    values = parseArgs({
      options: {
        input: { type: 'string', default: path.join(examples, 'agent-logs.jsonl') },
        agents: { type: 'string', default: '4' },
        rate: { type: 'string' },
        disturb: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError(error.message)
  }
  const agents = Number(values.agents)
  if (!Number.isInteger(agents) || agents < 1 || agents > 100)
    throw new UsageError(`--agents: ${values.agents} is not a whole number from 1 to 100`)
  const rate = Number(values.rate ?? Infinity)
  if (!(rate >= 1)) throw new UsageError(`--rate: ${values.rate} is not a number of 1 or more`)
  return { ...values, agents, rate }
}

/** Fusion's schema and the tasks that the entries belong to. */
async function createDatabase(file, entries) {
  const db = new HardenedDatabase(file)
  db.exec(await readFile(schema, 'utf8'))
  const insert = db.prepare('INSERT INTO tasks(id, title, createdAt, updatedAt) VALUES (?, ?, ?, ?)')
  const tasks = new Set(entries.map((entry) => entry.taskId))
  const now = new Date().toISOString()
  db.exec('BEGIN IMMEDIATE')
  for (const id of tasks) insert.run(id, `Task ${id}`, now, now)
  db.exec('COMMIT')
  return { db, tasks: tasks.size }
}

/** A task's entries all go to one agent, so that their order in the file has a meaning. */
function share(entries, agents) {
  const shares = Array.from({ length: agents }, () => [])
  const agentOfTask = new Map()
  for (const entry of entries) {
    const agent = agentOfTask.get(entry.taskId) ?? agentOfTask.size % agents
    agentOfTask.set(entry.taskId, agent)
    shares[agent].push(entry)
  }
  return shares
}

/** One agent: now single entries that nobody waits for, now a burst whose commit it awaits. */
async function play(db, entries, progress, rate) {
  const started = performance.now()
  const burstSize = Math.min(240, Math.ceil(rate))
  for (let next = 0, round = 0; next < entries.length; round += 1) {
    const early = started + (next / rate) * 1000 - performance.now()
    if (early > 0) await sleep(early)
    const burst = entries.slice(next, next + (round % 2 === 0 ? Math.ceil(burstSize / 24) : burstSize))
    next += burst.length
    if (round % 2 === 0) {
      for (const entry of burst) while (!db.appendAgentLog(entry)) await db.flushAgentLogs()
    } else {
      const { rejected } = await db.appendAgentLogs(burst)
      progress.rejected.push(...rejected)
    }
    progress.handedOver += burst.length
  }
}

/** The picture at the end: what the entries cost through node:sqlite and through this package. */
async function compare(input, folder) {
  if (!isBuiltin('node:sqlite')) return '\nThis Node has no node:sqlite to compare with.'
  const ways = ['node:sqlite', 'fusion-sqlite']
  const costs = []
  for (const [index, way] of ways.entries()) {
    const file = path.join(folder, `compared-${index}.db`)
    costs.push(JSON.parse(await otherProcess('compare.mjs', way, input, file, schema)))
  }
  const cost = (field) => Object.fromEntries(ways.map((way, index) => [way, costs[index][field]]))
  return `
The same entries through node:sqlite, each in a transaction of its own, and through fusion-sqlite:

${bars('CPU of the main thread', 'µs', cost('microseconds'))}

${bars('Written to the WAL', 'bytes', cost('walBytes'))}`
}

/** Redraws one line on a terminal; elsewhere a line for every quarter. */
function showProgress(progress, total) {
  const live = process.stdout.isTTY
  let quarters = 0
  const draw = () => {
    const done = progress.handedOver / total
    const text = `${progress.handedOver.toLocaleString('en-US')} of ${total.toLocaleString('en-US')} entries`
    if (live) process.stdout.write(`\r${'█'.repeat(Math.round(done * 30)).padEnd(30, '░')} ${text}`)
    else if (Math.floor(done * 4) > quarters) {
      quarters = Math.floor(done * 4)
      console.log(text)
    }
  }
  const timer = setInterval(draw, 50)
  return () => {
    clearInterval(timer)
    draw()
    if (live) process.stdout.write('\n')
  }
}

/** Runs a script of this folder in another process and returns what it prints. */
function otherProcess(script, ...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--no-warnings', fileURLToPath(new URL(script, import.meta.url)), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => (output += chunk))
    child.on('error', reject)
    child.on('close', (code) =>
      code === 0 ? resolve(output.trim()) : reject(new Error(`${script} ended with code ${code}`)),
    )
  })
}

/** What used to break the file: other writers that come and go, and a copy of the live files. */
async function disturb(file, folder, taskId) {
  const writers = [1, 2].map(() => otherProcess('other-writer.mjs', file, taskId))
  for (const suffix of ['', '-wal', '-shm']) {
    await cp(file + suffix, path.join(folder, `copy.db${suffix}`)).catch((error) => {
      if (error.code !== 'ENOENT') throw error
    })
  }
  const written = await Promise.all(writers)
  return written.reduce((total, rows) => total + Number(rows), 0)
}

/** What the summary takes from `stats()`. */
function figures(stats) {
  return {
    batches: stats.batches,
    bytes: stats.bytes,
    retries: stats.retries,
    walPeakBytes: stats.wal?.peakBytes,
    checkpoints: stats.checkpoints,
  }
}

/** The lines of integrity_check; "ok" alone when the database is sound. */
function checkIntegrity(db) {
  try {
    const rows = db.prepare('PRAGMA integrity_check').all()
    return rows.map((row) => row.integrity_check)
  } catch (error) {
    return [`failed: ${error.message}`]
  }
}

const integer = (value) => Math.round(value).toLocaleString('en-US')
const mebibytes = (bytes) => (bytes === undefined ? 'not known' : `${(bytes / 1024 / 1024).toFixed(2)} MiB`)
const milliseconds = (nanoseconds) => (Math.max(0, nanoseconds - 1e6) / 1e6).toFixed(2)

function checkpointText(checkpoints = {}) {
  const counted = Object.entries(checkpoints).filter(([, count]) => typeof count === 'number')
  return counted.map(([kind, count]) => `${kind} ${integer(count)}`).join(', ') || 'not known'
}

async function runDemo({ input, agents, rate, keep, disturb: disturbed }) {
  const entries = await readEntries(input)
  const folder = await mkdtemp(path.join(os.tmpdir(), 'fusion-sqlite-demo-'))
  const file = path.join(folder, 'fusion.db')
  let db
  try {
    const { sqliteVersion, lockKind } = engineInfo()
    const created = await createDatabase(file, entries)
    db = created.db
    console.log(`SQLite ${sqliteVersion}, ${lockKind} locks, Node ${process.version}`)
    console.log(
      `${integer(entries.length)} entries of ${integer(created.tasks)} tasks from ${agents} agents into fusion.db`,
    )

    const progress = { handedOver: 0, rejected: [] }
    const stopProgress = showProgress(progress, entries.length)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const started = performance.now()
    const disturbance = disturbed ? disturb(file, folder, entries[0].taskId) : 0
    await Promise.all(share(entries, agents).map((entriesOfAgent) => play(db, entriesOfAgent, progress, rate / agents)))
    await db.flushAgentLogs()
    const seconds = (performance.now() - started) / 1000
    delay.disable()
    stopProgress()
    const foreignRows = await disturbance

    const { batches, bytes, retries, walPeakBytes, checkpoints } = figures(db.stats())
    const integrity = checkIntegrity(db)
    await db.closeAsync()
    db = undefined

    const expected = entries.length + foreignRows
    const stored = Number(await otherProcess('count-rows.mjs', file))
    const { size } = await stat(file)

    console.log(`
rows a second      ${integer(entries.length / seconds)} (${seconds.toFixed(2)} s until the last one was committed)
batches            ${integer(batches)} (${integer(entries.length / batches)} rows each), ${integer(retries)} retries
event-loop delay   p50 ${milliseconds(delay.percentile(50))} ms, p99 ${milliseconds(delay.percentile(99))} ms, max ${milliseconds(delay.max)} ms
WAL peak           ${mebibytes(walPeakBytes)}
bytes a row        ${integer(bytes / entries.length)} of text
checkpoints        ${checkpointText(checkpoints)}
database           ${mebibytes(size)}
integrity check    ${integrity.slice(0, 5).join('; ')}
rows counted       ${integer(stored)} of ${integer(expected)}, by another process${disturbed ? `; ${integer(foreignRows)} are of other writers` : ''}`)
    console.log(await compare(input, folder))
    if (keep) console.log(`kept               ${file}`)

    for (const { code, message } of progress.rejected.slice(0, 5)) console.error(`rejected: ${code}: ${message}`)
    if (stored !== expected) console.error(`error: ${integer(expected - stored)} rows are missing`)
    return stored === expected && integrity.join() === 'ok' ? 0 : 1
  } finally {
    await db?.closeAsync()
    if (!keep) await rm(folder, { recursive: true, force: true })
  }
}

try {
  const settings = options()
  if (settings.help) console.log(usage)
  else process.exitCode = await runDemo(settings)
} catch (error) {
  if (error instanceof UsageError || error instanceof InputError) {
    const misused = error instanceof UsageError || error instanceof MissingInputError
    console.error(`error: ${error.message}`)
    if (misused) console.error(usage)
    process.exitCode = misused ? 64 : 1
  } else {
    throw error
  }
}
