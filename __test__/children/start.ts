// Child processes of tests: started, talked to in lines (see lines.mjs), and never left behind.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Message {
  kind: string
  [fact: string]: unknown
}

export interface Failure extends Message {
  kind: 'failed'
  code: string | null
  errcode: number
  message: string
}

export interface End {
  code: number | null
  signal: NodeJS.Signals | null
  stderr: string
}

/** What a fresh process finds in a database. */
export interface Findings {
  /** Why the database could not be read, if it could not. */
  error: { code: string; errcode: number; message: string } | null
  integrity: string[]
  /** `text` of the log rows by `id`. */
  texts: string[]
}

export class Child {
  readonly #process: ChildProcessWithoutNullStreams
  readonly #unheard: Message[] = []
  #waiting: { resolve: () => void } | null = null
  /** Failures told, in addition to their being heard. */
  readonly failures: Failure[] = []
  /** Settles when the process has ended and all it said has been taken. */
  readonly ended: Promise<End>
  #end: End | null = null

  /** Runs a script of this folder with `args`. */
  constructor(script: string, args: string[], env: NodeJS.ProcessEnv = {}) {
    const file = fileURLToPath(new URL(script, import.meta.url))
    this.#process = spawn(process.execPath, [file, ...args], { env: { ...process.env, ...env } })
    let stderr = ''
    this.#process.stderr.setEncoding('utf8').on('data', (text) => (stderr += text))
    // A command to a process that has just died.
    this.#process.stdin.on('error', () => {})
    createInterface({ input: this.#process.stdout }).on('line', (line) => {
      const message = JSON.parse(line) as Message
      if (message.kind === 'failed') this.failures.push(message as Failure)
      this.#unheard.push(message)
      this.#waiting?.resolve()
    })
    this.ended = once(this.#process, 'close').then(([code, signal]) => {
      this.#end = { code, signal, stderr }
      this.#waiting?.resolve()
      return this.#end
    })
  }

  say(command: string): void {
    this.#process.stdin.write(`${command}\n`)
  }

  /** The next message. Rejects if the process ends first. */
  async next(): Promise<Message> {
    for (;;) {
      const message = this.#unheard.shift()
      if (message !== undefined) return message
      if (this.#end !== null) throw new Error(`ended without a word: ${JSON.stringify(this.#end)}`)
      await new Promise<void>((resolve) => (this.#waiting = { resolve }))
      this.#waiting = null
    }
  }

  /** The next message of that kind; those before it are let go. Rejects if the process ends first. */
  async hear(kind: string): Promise<Message> {
    for (;;) {
      const message = this.#unheard.shift()
      if (message?.kind === kind) return message
      if (message !== undefined) continue
      if (this.#end !== null) throw new Error(`ended before "${kind}": ${JSON.stringify(this.#end)}`)
      await new Promise<void>((resolve) => (this.#waiting = { resolve }))
      this.#waiting = null
    }
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }
}

/** What a fresh process, which opens the file through this package, finds in it. */
export async function findings(file: string): Promise<Findings> {
  const child = new Child('inspect.mjs', [file])
  const { error, integrity, texts } = await child.hear('found')
  await child.ended
  return { error, integrity, texts } as Findings
}

/** The lines of a file; none if it does not exist. */
export async function linesOf(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.split('\n').filter((line) => line !== '')
}
