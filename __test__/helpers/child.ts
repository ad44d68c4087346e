// Runs a script in a Node process of its own, for what may end a process.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const index = fileURLToPath(new URL('../../index.js', import.meta.url))

/** What `script`, a CommonJS text that finds the package as `sqlite`, printed, and how it ended. */
export function run(script: string, ...flags: string[]) {
  const source = `const sqlite = require(${JSON.stringify(index)});\n${script}`
  const child = spawnSync(process.execPath, [...flags, '--eval', source], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return {
    status: child.status,
    signal: child.signal,
    out: child.stdout.trim(),
    err: child.stderr,
  }
}
