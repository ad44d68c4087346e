// Builds a program of the benchmarks that is written in Rust.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Builds the bench target `name` and returns its program's path. */
export function buildBench(name, what) {
  console.error(`building ${what} (Rust) …`)
  const { status, error, stdout, stderr } = spawnSync(
    'cargo',
    ['bench', '--locked', '--bench', name, '--no-run', '--message-format=json'],
    { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'pipe'] },
  )
  if (status !== 0) throw new Error(`cannot build ${what} (cargo bench --bench ${name}): ${error?.message ?? stderr}`)
  const messages = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
  return messages.find(({ target, executable }) => target?.name === name && executable).executable
}
