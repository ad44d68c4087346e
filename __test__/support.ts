// What the tests of agent logs share: databases with Fusion's schema, other processes, other eyes.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, realpathSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { HardenedDatabase } from '../index.js'

type Options = ConstructorParameters<typeof HardenedDatabase>[1]

const schema = readFileSync(new URL('../examples/fusion-schema.sql', import.meta.url), 'utf8')

/** A folder of the test's own. */
export function folder(t: ExecutionContext): string {
  const made = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-test-')))
  t.teardown(() => rmSync(made, { recursive: true, force: true }))
  return made
}

/** Fusion's schema, and one task `T`, on an open database. */
export function createSchema(db: { exec(sql: string): void }): void {
  db.exec(schema)
  db.exec(`INSERT OR IGNORE INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
}

/** The path of a database with Fusion's schema and one task, `T`, that nobody has open. */
export function database(t: ExecutionContext): string {
  const file = path.join(folder(t), 'fusion.db')
  const db = new HardenedDatabase(file)
  createSchema(db)
  db.close()
  return file
}

/** The same, open; closed at the test's end if it still is open. */
export function open(t: ExecutionContext, options?: Options, file: string = database(t)): HardenedDatabase {
  const db = new HardenedDatabase(file, options)
  t.teardown(() => db[Symbol.dispose]())
  return db
}

/** An open database in memory with Fusion's schema and one task, `T`. */
export function openInMemory(t: ExecutionContext, options?: Options): HardenedDatabase {
  const db = open(t, options, ':memory:')
  createSchema(db)
  return db
}

/** An entry of task `T`. */
export function entry(text: string, more: object = {}) {
  return { taskId: 'T', text, type: 'text' as const, ...more }
}

export function entries(rows: number, prefix = 'row '): ReturnType<typeof entry>[] {
  return Array.from({ length: rows }, (_, i) => entry(`${prefix}${i}`))
}

interface Reader {
  prepare(sql: string): { all(): unknown[]; get(): unknown }
}

/** The texts of the rows, by id. */
export function texts(db: Reader): string[] {
  return (db.prepare('SELECT text FROM agentLogEntries ORDER BY id').all() as { text: string }[]).map((row) => row.text)
}

export function count(db: Reader): number {
  return (db.prepare('SELECT count(*) AS n FROM agentLogEntries').get() as { n: number }).n
}

export function changeCounter(db: Reader): number {
  const row = db.prepare(`SELECT value FROM __meta WHERE key = 'lastModified'`).get() as { value: string }
  return Number(row.value)
}

const children = fileURLToPath(new URL('children/', import.meta.url))

/** The path of a script under `children/`. */
export function child(script: string): string {
  return path.join(children, script)
}

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  output: string
}

/** A script of `children/` in a process of its own. */
export class Other {
  readonly process: ChildProcess
  readonly ended: Promise<Ended>
  #output = ''
  #waiting: (() => void)[] = []

  constructor(t: ExecutionContext, script: string, args: string[] = [], nodeArgs: string[] = []) {
    this.process = spawn(process.execPath, [...nodeArgs, child(script), ...args], { timeout: 60_000 })
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text
        this.#wake()
      })
    }
    this.ended = once(this.process, 'close').then(([code, signal]) => {
      this.#wake()
      return { code, signal, output: this.#output }
    })
    t.teardown(() => this.process.kill('SIGKILL'))
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Resolves once the process has printed `text`; rejects if it ends without. */
  async says(text: string): Promise<void> {
    while (!this.#output.includes(text)) {
      if (this.process.exitCode !== null || this.process.signalCode !== null) {
        const { code, signal } = await this.ended
        if (!this.#output.includes(text))
          throw new Error(`ended (${signal ?? code}) without "${text}": ${this.#output}`)
        return
      }
      const woken = Promise.withResolvers<void>()
      this.#waiting.push(woken.resolve)
      await woken.promise
    }
  }

  /** Writes a line to the process's standard input. */
  tell(line: string): void {
    this.process.stdin?.write(`${line}\n`)
  }
}

/** Runs a script of `children/` to its end. */
export function run(t: ExecutionContext, script: string, args: string[] = [], nodeArgs: string[] = []): Promise<Ended> {
  return new Other(t, script, args, nodeArgs).ended
}

/** Another process that holds the write lock of `file` until `release` has been awaited. */
export async function foreignLock(t: ExecutionContext, file: string): Promise<{ release(): Promise<void> }> {
  const other = new Other(t, 'hold-lock.mjs', [file])
  await other.says('locked')
  return {
    async release() {
      other.tell('release')
      await other.says('released')
    },
  }
}

/** What another process finds in `file`: node:sqlite there is not a second SQLite here. */
export async function seenByAnotherProcess(
  t: ExecutionContext,
  file: string,
): Promise<{ texts: string[]; integrity: string; lastModified: number }> {
  const { code, output } = await run(t, 'read-rows.mjs', [file])
  if (code !== 0) throw new Error(output)
  return JSON.parse(output) as { texts: string[]; integrity: string; lastModified: number }
}

/** The next event `name` of `db` that is `wanted`, as the arguments of its listener. */
export function eventThat<Arguments extends unknown[]>(
  db: HardenedDatabase,
  name: string,
  wanted: (...args: Arguments) => boolean,
): Promise<unknown[]> {
  return new Promise<unknown[]>((resolve) => {
    const listener = (...args: unknown[]) => {
      if (!wanted(...(args as Arguments))) return
      db.off(name as 'error', listener)
      resolve(args)
    }
    db.on(name as 'error', listener)
  })
}

/** The next event `name` of `db`, as the arguments of its listener. */
export function nextEvent(db: HardenedDatabase, name: string): Promise<unknown[]> {
  return eventThat(db, name, () => true)
}
