// One measured run in a process of its own, so that a process holds one SQLite. Reads a job from
// its argument, prints the result as one line of JSON.
//
// Scenarios:
//   saturated  four producers hand over rows as fast as they are taken
//   paced      four producers, together `rate` entries a second
//   cost       what the calling thread pays for one call, batch by batch
//   agents     event-loop delay with `agents` producers of `rate` entries a second each

import { DatabaseSync } from 'node:sqlite'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { difference, readCounters } from './io-counters.mjs'
import { insertSql, readRows, setupSql, values } from './rows.mjs'

const job = JSON.parse(process.argv[2])
const producers = 4
// A finer histogram sees more; in a paced run its own timer would outweigh what is measured.
const delayResolutionMs = job.scenario === 'paced' ? 5 : 1

let wallMs = 0

/** Runs a call of the contender and adds its duration to the main thread's bill. */
function timed(call) {
  const started = performance.now()
  const result = call()
  wallMs += performance.now() - started
  return result
}

/** CPU time of this thread. The kernel brings it up to date when the thread sleeps, so it sleeps first. */
async function cpuNanoseconds() {
  await sleep(2)
  const { user, system } = process.threadCpuUsage()
  return (user + system) * 1000
}

async function openContender(rows) {
  const { chunkSize, open } = await import(`./contenders/${job.contender}.mjs`)
  const contender = open(job.file, setupSql(rows), timed)
  await contender.start?.()
  return { chunkSize, contender }
}

/** Four producers; each hands over a chunk and goes on when it was taken. */
async function saturate(contender, chunkSize, rows) {
  let next = 0
  const produce = async () => {
    while (next < rows.length) {
      const chunk = rows.slice(next, (next += chunkSize))
      const pending = timed(() =>
        job.single
          ? appendEach(contender, chunk)
          : chunk.length === 1
            ? contender.append(chunk[0])
            : contender.appendMany(chunk),
      )
      await (pending ?? turn())
    }
  }
  await Promise.all(Array.from({ length: producers }, produce))
}

/** One call an entry; the promise, if any, of the entry that found the queue full. */
function appendEach(contender, chunk) {
  let pending
  for (const row of chunk) pending = contender.append(row) ?? pending
  return pending
}

/** Producers on a common clock: the k-th entry is due at start + k / rate. */
async function pace(contender, rows, count, ratePerProducer) {
  const interval = 1000 / ratePerProducer
  const started = performance.now()
  const produce = async (producer) => {
    for (let index = producer, k = 0; index < rows.length; index += count, k += 1) {
      const due = started + (k + producer / count) * interval
      const early = due - performance.now()
      if (early > 0) await sleep(early)
      const pending = timed(() => contender.append(rows[index]))
      if (pending) await pending
    }
  }
  await Promise.all(Array.from({ length: count }, (_, producer) => produce(producer)))
}

function watchDelay() {
  const histogram = monitorEventLoopDelay({ resolution: delayResolutionMs })
  histogram.enable()
  const over = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - delayResolutionMs)
  return () => {
    histogram.disable()
    return { p50Ms: over(histogram.percentile(50)), p99Ms: over(histogram.percentile(99)), maxMs: over(histogram.max) }
  }
}

async function throughput(play) {
  const rows = readRows(job.input, job.rows)
  const { chunkSize, contender } = await openContender(rows)
  await sleep(20)
  const before = readCounters()
  wallMs = 0
  const delay = watchDelay()
  const cpu = await cpuNanoseconds()
  const started = performance.now()
  await play(contender, chunkSize, rows)
  await contender.drain()
  const seconds = (performance.now() - started) / 1000
  const cpuNs = (await cpuNanoseconds()) - cpu
  const eventLoop = delay()
  const stored = contender.count()
  if (stored !== rows.length) throw new Error(`${rows.length - stored} of ${rows.length} rows are missing`)
  await contender.close()
  const io = difference(readCounters(), before)
  return {
    rows: rows.length,
    rowsPerSecond: rows.length / seconds,
    cpuNsPerRow: cpuNs / rows.length,
    wallNsPerRow: (wallMs * 1e6) / rows.length,
    delayP50Ms: eventLoop.p50Ms,
    delayP99Ms: eventLoop.p99Ms,
    delayMaxMs: eventLoop.maxMs,
    walBytesPerRow: io && io.walBytes / rows.length,
    syncsPerRow: io && io.syncs / rows.length,
  }
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]

/** The bill of each batch of 1,000 calls or rows; the first ones, which warm the code up, are left out. */
async function cost(batches, play) {
  const warmUp = Math.ceil(batches.length / 5)
  const wall = []
  let cpuStart = 0
  for (const [index, batch] of batches.entries()) {
    if (index === warmUp) cpuStart = await cpuNanoseconds()
    wall.push(await play(batch))
  }
  const measured = wall.slice(warmUp)
  return {
    settle: (cpuEnd) => ({
      wallNsPerRow: median(measured.map((ms, index) => (ms * 1e6) / batches[index + warmUp].length)),
      cpuNsPerRow: (cpuEnd - cpuStart) / batches.slice(warmUp).flat().length,
    }),
  }
}

function inBatches(rows, size) {
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, index) =>
    rows.slice(index * size, (index + 1) * size),
  )
}

function elapsed(call) {
  const started = performance.now()
  call()
  return performance.now() - started
}

function openNodeSqlite(rows) {
  const db = new DatabaseSync(job.file)
  db.exec(
    'PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON',
  )
  db.exec(setupSql(rows))
  return { db, insert: db.prepare(insertSql) }
}

const costs = {
  /** node:sqlite: `run()` inside one transaction of 1,000 rows; BEGIN and COMMIT are not in the bill. */
  async 'node:sqlite run() in one transaction'(rows) {
    const { db, insert } = openNodeSqlite(rows)
    const { settle } = await cost(inBatches(rows, 1000), (batch) => {
      db.exec('BEGIN IMMEDIATE')
      const ms = elapsed(() => {
        for (const row of batch)
          insert.run(row.taskId, row.timestamp, row.text, row.type, row.detail ?? null, row.agent ?? null)
      })
      db.exec('COMMIT')
      return ms
    })
    const result = settle(await cpuNanoseconds())
    db.close()
    return result
  },

  /** node:sqlite: `run()` with an automatic commit a row. */
  async 'node:sqlite run() with a commit a row'(rows) {
    const { db, insert } = openNodeSqlite(rows)
    const { settle } = await cost(inBatches(rows, 100), (batch) =>
      elapsed(() => {
        for (const row of batch) insert.run(...values(row))
      }),
    )
    const result = settle(await cpuNanoseconds())
    db.close()
    return result
  },

  /** This package: appendAgentLogs with 1,000 entries, four calls in flight. The CPU bill includes the receipts. */
  async 'appendAgentLogs(1,000 entries)'(rows) {
    const { contender } = await openContender(rows)
    const db = contender.database
    const inFlight = []
    const { settle } = await cost(inBatches(rows, 1000), async (batch) => {
      if (inFlight.length === producers) await inFlight.shift()
      return elapsed(() => inFlight.push(db.appendAgentLogs(batch)))
    })
    await Promise.all(inFlight)
    const result = settle(await cpuNanoseconds())
    await contender.close()
    return result
  },

  /** This package: appendAgentLog, 1,000 calls between two turns of the event loop. */
  async 'appendAgentLog(entry)'(rows) {
    const { contender } = await openContender(rows)
    const db = contender.database
    const { settle } = await cost(inBatches(rows, 1000), async (batch) => {
      await db.flushAgentLogs()
      return elapsed(() => {
        for (const row of batch) if (!db.appendAgentLog(row)) throw new Error('the queue is full')
      })
    })
    await db.flushAgentLogs()
    const result = settle(await cpuNanoseconds())
    await contender.close()
    return result
  },
}

/** The loop's delay while `agents` producers append `rate` entries a second each, or while nobody does. */
async function agents() {
  const rows = readRows(job.input, job.agents * job.rate * job.seconds)
  const { contender } = await openContender(rows)
  await sleep(200)
  const delay = watchDelay()
  if (job.idle) await sleep(job.seconds * 1000)
  else await pace(contender, rows, job.agents, job.rate)
  const { p50Ms, p99Ms, maxMs } = delay()
  await contender.drain()
  await contender.close()
  return { delayP50Ms: p50Ms, delayP99Ms: p99Ms, delayMaxMs: maxMs }
}

const scenarios = {
  saturated: () => throughput(saturate),
  paced: () => throughput((contender, _, rows) => pace(contender, rows, producers, job.rate / producers)),
  cost: () => costs[job.cost](readRows(job.input, job.rows)),
  agents,
}

console.log(JSON.stringify(await scenarios[job.scenario]()))
