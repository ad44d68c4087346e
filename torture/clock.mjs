// The wall clock of the processes of one run, which the runner sets: see clock.c.

import { spawnSync } from 'node:child_process'
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Compiles the library, which is Linux's; null where that cannot be done. */
export function compileClock(folder) {
  if (process.platform !== 'linux') return null
  const library = path.join(folder, 'clock.so')
  const source = fileURLToPath(new URL('clock.c', import.meta.url))
  const [compiler, ...first] = (process.env.CC ?? 'cc').split(' ')
  const { status } = spawnSync(compiler, [...first, '-O1', '-shared', '-fPIC', '-o', library, source, '-ldl'])
  if (status !== 0) return null
  const file = path.join(folder, 'clock')
  writeFileSync(file, Buffer.alloc(8))
  return { file, env: { LD_PRELOAD: library, TORTURE_CLOCK: file } }
}

/** Sets the clock of the processes to so many seconds from the system's. */
export function setClock(clock, seconds) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64LE(BigInt(Math.round(seconds)))
  // In place: a file that is cut ends the processes that have it mapped.
  const fd = openSync(clock.file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, 0)
  closeSync(fd)
}
