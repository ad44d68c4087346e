// Starts one run in a process of its own (run-one.mjs), on a small disk of its own where the cell asks for one.

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('run-one.mjs', import.meta.url))

/** The command that mounts a tmpfs of `size` in a name space of its own, then runs the rest. */
function onTmpfs(size, folder, command) {
  const rights = process.getuid?.() === 0 ? ['-m'] : ['-r', '-m']
  const shell = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && shift 2 && exec "$@"'
  return ['unshare', ...rights, 'sh', '-c', shell, 'sh', size, folder, ...command]
}

/** Runs `job` of `cell` and resolves to its result. */
export async function startRun(cell, job) {
  const folder = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-torture-')))
  const disk = path.join(folder, 'disk')
  mkdirSync(disk)
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', script, JSON.stringify({ ...job, folder })]
  const [command, ...args] = cell.tmpfs ? onTmpfs(cell.tmpfs, disk, node) : node
  const nothing = {
    cell: job.cell,
    column: job.column,
    seed: job.seed,
    faults: 0,
    rows: 0,
    violations: [],
    observations: [],
    remarks: [],
  }
  try {
    if (cell.tmpfs && process.platform !== 'linux')
      return { ...nothing, skipped: 'a small disk is mounted on Linux only' }
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let errors = ''
    let result = null
    let mounted = !cell.tmpfs
    child.stderr.setEncoding('utf8').on('data', (text) => (errors = (errors + text).slice(-4000)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'mounted') mounted = true
      else if (line.startsWith('{')) result = JSON.parse(line)
    })
    const ended = await new Promise((resolve) => {
      child.on('error', (error) => resolve(error.message))
      child.on('close', (code, signal) => resolve(signal ?? code))
    })
    if (result !== null) return result
    if (!mounted)
      return { ...nothing, skipped: `no small disk can be mounted here: ${errors.trim().split('\n').at(-1) || ended}` }
    return { ...nothing, violations: [`the run ended with ${ended}: ${errors.trim().split('\n').slice(-3).join(' ')}`] }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
