// Bytes and syncs of the measured process, counted below its database library (see count_io.c).

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const names = ['syncs', 'walSyncs', 'walWrites', 'walBytes', 'dbBytes']

/** Compiles the counting library. Null, with the reason on stderr, where it cannot be had. */
export function compileCounters(folder) {
  if (process.platform !== 'linux') {
    console.error('WAL bytes and syncs are counted on Linux only: n/a')
    return null
  }
  const library = path.join(folder, 'count_io.so')
  const source = fileURLToPath(new URL('count_io.c', import.meta.url))
  const { status, error, stderr } = spawnSync(
    process.env.CC ?? 'cc',
    ['-O2', '-shared', '-fPIC', '-o', library, source, '-ldl'],
    { encoding: 'utf8' },
  )
  if (status === 0) return library
  console.error(`WAL bytes and syncs are n/a: cannot compile count_io.c: ${error?.message ?? stderr}`)
  return null
}

/** Environment that counts a child's calls into a fresh file. */
export function countingEnvironment(library, file) {
  if (!library) return {}
  writeFileSync(file, Buffer.alloc(names.length * 8))
  return { LD_PRELOAD: library, BENCH_IO_COUNTERS: file }
}

/** The counters as they are now; null when nothing counts. */
export function readCounters(file = process.env.BENCH_IO_COUNTERS) {
  if (!file) return null
  const words = readFileSync(file)
  return Object.fromEntries(names.map((name, index) => [name, Number(words.readBigUInt64LE(index * 8))]))
}

export function difference(after, before) {
  return after && before && Object.fromEntries(names.map((name) => [name, after[name] - before[name]]))
}
