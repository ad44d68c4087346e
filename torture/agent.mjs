// One process of the torture: agents that append rows, and faults that it commits on command.
//
// Started by Process (process.mjs), with the job as JSON in its only argument. It answers commands over IPC. What was
// acknowledged to an agent is in the process's notes before the agent goes on, so that it survives a SIGKILL.

import { openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { setImmediate as turn } from 'node:timers/promises'
import { nodeLibrary, packageLibrary } from './libraries.mjs'
import { faults } from './agent-faults.mjs'

const job = JSON.parse(process.argv[2])
const notes = openSync(job.notes, 'a')

const state = { going: true, paused: null }
/** Counts the marks that the runner has set; a row belongs to the mark at which its call began. */
let epoch = 0
/** Calls that have ended, with or without success, and those already reported. */
let calls = 0
let reported = 0
const inFlight = new Set()

const send = (message) => process.connected && process.send(message)

function report(force = false) {
  if (!force && calls - reported < 8) return
  reported = calls
  send({ calls })
}

function note(agent, first, count, began) {
  writeSync(notes, `${agent} ${first} ${count} ${began}\n`)
}

const describe = ({ code, errcode, reason, message }) => ({ code, errcode, reason, message: String(message) })

/** Failures are counted by code and reported once each: a broken database fails thousands of times a second. */
const failures = new Map()
function fail(how, error) {
  const { code, errcode } = error
  const key = `${how}: ${code ?? error.name}${errcode === undefined ? '' : ` ${errcode}`}`
  const seen = failures.get(key)
  failures.set(key, (seen ?? 0) + 1)
  if (seen === undefined) send({ failure: { how, key, ...describe(error) } })
}

const tasks = (agent) => `T-${1 + (agent % 20)}`

/** One agent: appends, waits, notes, until the end. Numbers of calls that failed are not used again. */
async function work(library, index, name) {
  let next = 0
  for (let call = 0; state.going; call++) {
    if (state.paused) await state.paused.promise
    if (!state.going) break
    const began = epoch
    const first = next
    const count = library.batch ? 1 + ((call + index) % 4) : 1
    next += count
    const rows = Array.from({ length: count }, (_, at) => `${name} ${first + at}`)
    const ended = Promise.withResolvers()
    inFlight.add(ended)
    let final = false
    try {
      await library.append(tasks(index), rows)
      note(name, first, count, began)
    } catch (error) {
      fail(library.batch ? 'append' : 'insert', error)
      // A log that has stopped goes on after reopen(); what stopped it for good ends its agents.
      if (library.isStopped?.()) final = !(await library.resumed())
    } finally {
      inFlight.delete(ended)
      ended.resolve()
    }
    calls++
    report()
    if (final) break
    // A synchronous call leaves no turn for commands.
    if (!library.batch) await turn()
  }
}

const libraries = []
function start(library, agents, label) {
  libraries.push(library)
  return Array.from({ length: agents }, (_, index) => work(library, index, `${job.name}.${label}${index}`))
}

const onEvent = (event, facts) => send({ event, ...facts })

function openAll() {
  const working = []
  const options = { file: job.file, onEvent, describe, waits: job.waitsForReopen }
  if (job.kind === 'package')
    working.push(...start(packageLibrary({ ...options, options: job.options }), job.agents, 'p'))
  else if (job.kind === 'node') {
    working.push(...start(nodeLibrary({ ...options, sqlite: nodeSqlite }), job.agents, job.registered ? 'r' : 'n'))
  }
  if (job.kind === 'package' && job.inside === 'plain') {
    working.push(...start(nodeLibrary({ ...options, sqlite: nodeSqlite }), 1, 'n'))
  } else if (job.kind === 'package' && job.inside === 'registered') {
    working.push(...start(nodeLibrary({ ...options, sqlite: nodeSqlite }), 1, 'r'))
    working.push(...start(nodeLibrary({ ...options, sqlite: realNodeSqlite() }), 1, 'o'))
  }
  return Promise.all(working)
}

/** What `import 'node:sqlite'` leads to here: this package, if the process was started with `register`. */
const nodeSqlite = await import('node:sqlite')
const realNodeSqlite = () => createRequire(import.meta.url)('../lib/original-node-sqlite.js').realNodeSqlite()

let working = Promise.resolve()

async function quiet() {
  while (inFlight.size > 0) await Promise.all([...inFlight].map(({ promise }) => promise))
}

const commands = {
  ...faults({ job, nodeSqlite, note, onEvent, send, libraries, epoch: () => epoch }),
  ping: () => true,
  collect: () => globalThis.gc?.(),
  mark: ({ value }) => void (epoch = value),
  /** Resolves when no call is in flight; agents begin none until `resume`. */
  async pause() {
    state.paused ??= Promise.withResolvers()
    for (const library of libraries) library.giveUp?.()
    await quiet()
  },
  resume() {
    state.paused?.resolve()
    state.paused = null
  },
  /** After a file was replaced: every handle goes on with the file at the path. */
  async reopen() {
    for (const library of libraries) await library.reopen?.()
  },
  async stop() {
    state.going = false
    state.paused?.resolve()
    for (const library of libraries) library.giveUp?.()
    await working
    const left = []
    for (const library of libraries) {
      try {
        await library.close()
      } catch (error) {
        fail('close', error)
        left.push(...(library.takePending?.() ?? []))
      }
    }
    report(true)
    return { failures: Object.fromEntries(failures), left: left.length, calls }
  },
}

process.on('message', async ({ id, command, ...args }) => {
  let answer
  try {
    answer = { id, result: (await commands[command](args)) ?? null }
  } catch (error) {
    answer = { id, error: describe(error) }
  }
  if (!process.connected) return
  // Not before the answer is on its way.
  process.send(answer, () => command === 'stop' && process.connected && process.disconnect())
})
// The runner is gone, or has what it wanted.
process.on('disconnect', () => process.exit())

try {
  if (job.agents > 0) working = openAll()
  send({ ready: true })
} catch (error) {
  send({ ready: false, error: describe(error) })
}
