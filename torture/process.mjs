// The runner's view of one process of the torture: commands, calls that ended, events, what /proc reports of it.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('agent.mjs', import.meta.url))
const register = new URL('../register.mjs', import.meta.url).href

/** Signals that the runner sends; any other that ends a process is a crash. */
const SENT = new Set(['SIGKILL', 'SIGSTOP', 'SIGCONT'])

export class Process {
  #child
  #next = 0
  #answers = new Map()
  #waiting = new Set()
  #stderr = ''
  #killed = false
  #ready = Promise.withResolvers()
  #result = null
  job
  calls = 0
  events = []
  stages = []
  failures = []
  end = null
  /** The most that was seen of each. */
  peak = { rss: 0, descriptors: 0, threads: 0 }
  ended

  constructor(job, { env = {} } = {}) {
    this.job = job
    this.#child = fork(script, [JSON.stringify(job)], {
      execArgv: [
        '--disable-warning=ExperimentalWarning',
        '--expose-gc',
        ...(job.registered || job.inside === 'registered' ? ['--import', register] : []),
      ],
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text) => (this.#stderr = (this.#stderr + text).slice(-4000)))
    this.#child.on('message', (message) => this.#hear(message))
    this.#child.on('error', () => {})
    this.#ready.promise.catch(() => {})
    this.ended = once(this.#child, 'close').then(([code, signal]) => {
      this.end = { code, signal, stderr: this.#stderr }
      const gone = new Error(`${job.name} has ended: ${signal ?? code}`)
      this.#ready.reject(gone)
      for (const { reject } of this.#answers.values()) reject(gone)
      this.#answers.clear()
      this.#wake()
      return this.end
    })
  }

  get pid() {
    return this.#child.pid
  }
  get stderr() {
    return this.#stderr
  }
  get killed() {
    return this.#killed
  }
  /** What `stop` returned: counts of failures, rows left in the queue. */
  get result() {
    return this.#result
  }
  ready() {
    return this.#ready.promise
  }

  #wake() {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  #hear(message) {
    if (message.id !== undefined) {
      const answer = this.#answers.get(message.id)
      this.#answers.delete(message.id)
      if (message.error) answer?.reject(Object.assign(new Error(message.error.message), message.error))
      else answer?.resolve(message.result)
    }
    if (message.ready === true) this.#ready.resolve()
    if (message.ready === false) this.#ready.reject(Object.assign(new Error(message.error.message), message.error))
    if (message.calls !== undefined) this.calls = message.calls
    if (message.event !== undefined) this.events.push(message)
    if (message.stage !== undefined) this.stages.push(message)
    if (message.failure !== undefined) this.failures.push(message.failure)
    this.#wake()
  }

  /** Resolves once `condition` holds; rejects if the process ends first. */
  async until(condition, what) {
    while (!condition()) {
      if (this.end !== null)
        throw new Error(`${this.job.name} ended (${this.end.signal ?? this.end.code}) before ${what}`)
      const woken = Promise.withResolvers()
      this.#waiting.add(woken.resolve)
      await woken.promise
    }
  }

  /** Resolves once so many more calls of its agents have ended. */
  moves(calls) {
    const goal = this.calls + calls
    return this.until(() => this.calls >= goal, `${calls} more calls`)
  }

  /** The first event `name` from number `since` on. */
  async event(name, since = 0) {
    const find = () => this.events.slice(since).find(({ event }) => event === name)
    await this.until(() => find() !== undefined, `the event ${name}`)
    return find()
  }

  command(command, args = {}) {
    if (this.end !== null) return Promise.reject(new Error(`${this.job.name} has ended`))
    const id = this.#next++
    const answer = Promise.withResolvers()
    this.#answers.set(id, answer)
    this.#child.send({ id, command, ...args }, () => {})
    return answer.promise
  }

  async stop() {
    this.#result = await this.command('stop')
    return this.ended
  }

  signal(signal) {
    this.#child.kill(signal)
  }

  /** Ends it, wherever it is. */
  kill() {
    this.#killed = true
    this.#child.kill('SIGCONT')
    this.#child.kill('SIGKILL')
    return this.ended
  }

  /** Whether it ended as nothing of the runner made it end. */
  get crash() {
    if (this.end === null) return null
    const { code, signal } = this.end
    if (signal !== null) return this.#killed && SENT.has(signal) ? null : signal
    return code === 0 ? null : `exit ${code}`
  }

  /** Whether it has a deleted `-wal` or `-shm` open; false where the system does not report it. */
  get usesDeleted() {
    try {
      return readdirSync(`/proc/${this.pid}/fd`).some((fd) => {
        try {
          return /-(?:wal|shm) \(deleted\)$/.test(readlinkSync(`/proc/${this.pid}/fd/${fd}`))
        } catch {
          return false
        }
      })
    } catch {
      return false
    }
  }

  /** Resident bytes, descriptors and threads of now; null where the system does not report them. */
  sample() {
    try {
      const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
      const rss = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) * 1024
      const threads = Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? 0)
      const descriptors = readdirSync(`/proc/${this.pid}/fd`).length
      const now = { rss, descriptors, threads }
      for (const [key, value] of Object.entries(now)) this.peak[key] = Math.max(this.peak[key], value)
      return now
    } catch {
      return null
    }
  }
}
