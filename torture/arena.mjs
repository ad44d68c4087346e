// One run: a folder, a database with Fusion's schema, and the processes that use it.

import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Process } from './process.mjs'

const schema = new URL('../examples/fusion-schema.sql', import.meta.url)

/** A closed database in WAL mode with the schema, 20 tasks, and `rows` rows of nobody's agent. */
export function createDatabase(file, rows = 0) {
  const db = new DatabaseSync(file)
  db.exec('PRAGMA journal_mode = WAL')
  db.exec(readFileSync(schema, 'utf8'))
  db.exec('BEGIN')
  const task = db.prepare("INSERT INTO tasks (id, createdAt, updatedAt) VALUES (?, '2026-11-23', '2026-11-23')")
  for (let number = 1; number <= 20; number++) task.run(`T-${number}`)
  const insert = db.prepare(
    "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', '2026-11-23', ?, 'text')",
  )
  for (let number = 0; number < rows; number++) insert.run(`seed.s0 ${number}`)
  db.exec('COMMIT')
  db.close()
}

/** Copies what a descriptor leads to, which may have no name any more. */
function copyDescriptor(fd, to) {
  const target = openSync(to, 'w')
  const buffer = Buffer.alloc(1 << 16)
  for (let at = 0; ;) {
    const bytes = readSync(fd, buffer, 0, buffer.length, at)
    if (bytes === 0) break
    writeSync(target, buffer, 0, bytes)
    at += bytes
  }
  closeSync(target)
}

export class Arena {
  /** @param facts `{ folder, column, random, env, agents }` */
  constructor(facts) {
    Object.assign(this, facts)
    this.disk = path.join(this.folder, 'disk')
    this.file = path.join(this.disk, 'fusion.db')
    mkdirSync(this.disk, { recursive: true })
    this.all = []
    this.old = []
    this.optional = []
    this.epoch = 0
    this.findings = []
    this.remarks = []
    this.incarnations = new Map()
    mkdirSync(path.join(this.folder, 'notes'))
  }

  /** A whole number from `low` to `high`. */
  between(low, high) {
    return low + Math.floor(this.random() * (high - low + 1))
  }

  /** Starts a process of the role `name` and waits until it works. */
  async start(name, spec, agents = this.agents) {
    const number = (this.incarnations.get(name) ?? 0) + 1
    this.incarnations.set(name, number)
    const id = `${name}${number}`
    const job = {
      file: this.file,
      name: id,
      notes: path.join(this.folder, 'notes', id),
      agents,
      waitsForReopen: this.waitsForReopen,
      options: this.options,
      ...spec,
    }
    const process = new Process(job, { env: this.env })
    this.all.push(process)
    await process.ready()
    if (this.epoch > 0) await process.command('mark', { value: this.epoch })
    return process
  }

  startOperator(name = 'operator') {
    const operates = this.column.operator
    return this.start(name, { kind: 'node', operates }, 0)
  }

  /** Processes that write all the time and are alive. */
  get writing() {
    return this.all.filter((process) => process.end === null && process.job.agents > 0)
  }

  get packaged() {
    return this.writing.filter(({ job }) => job.kind === 'package')
  }

  /** Those whose own faults count: with the package, and in the column of plain node:sqlite all. */
  get faulty() {
    return this.column.name === 'node' ? this.writing : this.packaged
  }

  each(processes, command, args) {
    return Promise.all(processes.map((process) => process.command(command, args)))
  }

  /** Every process that writes ends so many more calls. */
  async moves(low = 10, high = 60) {
    const calls = this.between(low, high)
    await Promise.all(this.writing.map((process) => process.moves(calls)))
    this.sample()
  }

  /** Rows whose calls begin from here on are of the next epoch. Returns the one before. */
  async mark() {
    const before = this.epoch
    this.epoch++
    await this.each(this.writing, 'mark', { value: this.epoch })
    return before
  }

  sample() {
    for (const process of this.all) if (process.end === null) process.sample()
  }

  /** Remembers the files at the path, which are about to be replaced. Call `keep` on the result with the last epoch. */
  holdFiles() {
    const descriptors = ['', '-wal'].map((end) => (existsSync(this.file + end) ? openSync(this.file + end, 'r') : null))
    return { keep: (epoch) => void this.old.push({ descriptors, epoch }) }
  }

  /** The replaced files as copies, when all processes have ended: `{ copy, epoch }`. */
  oldFiles() {
    return this.old.map(({ descriptors, epoch }, index) => {
      const copy = path.join(this.folder, `old-${index}.db`)
      for (const [at, end] of ['', '-wal'].entries()) {
        if (descriptors[at] === null) continue
        copyDescriptor(descriptors[at], copy + end)
        closeSync(descriptors[at])
      }
      return { copy, epoch }
    })
  }

  sizeOf(end = '') {
    return statSync(this.file + end, { throwIfNoEntry: false })?.size ?? 0
  }

  finding(text) {
    if (!this.findings.includes(text)) this.findings.push(text)
  }

  remark(text) {
    if (!this.remarks.includes(text)) this.remarks.push(text)
  }

  /** Another database with the same schema, to be put in the place of this one. */
  anotherDatabase(name) {
    const file = path.join(this.disk, name)
    createDatabase(file, 50)
    return file
  }

  /** Rows that a program without notes has committed. */
  noteFor(file, agent, rows) {
    appendFileSync(file, `${agent} 0 ${rows} ${this.epoch}\n`)
  }
}
