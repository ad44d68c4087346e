// Operations of the package in a process of their own, as another user where the tests are root.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('../children/operate.mjs', import.meta.url))

export interface Answer {
  value?: any
  error?: { code: string; errcode?: number; message: string }
}

/** Whether the tests may become another user. */
export const isRoot = process.getuid?.() === 0

/** Carries `operations` out, each a name and its arguments; rejects if the process hangs for a minute. */
export function operate<const O extends readonly (readonly unknown[])[]>(
  uid: number | undefined,
  operations: O,
): Promise<{ [K in keyof O]: Answer }> {
  const args = [script, uid === undefined ? '-' : String(uid), JSON.stringify(operations)]
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { timeout: 60_000, killSignal: 'SIGKILL' }, (error, out, err) => {
      const answers = out
        .trim()
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Answer)
      if (answers.length === operations.length) resolve(answers as { [K in keyof O]: Answer })
      else reject(new Error(`after ${answers.length} of ${JSON.stringify(operations)}: ${error?.message} ${err}`))
    })
  })
}
