// The `sqlite3` shell: the one that FUSION_SQLITE_SHELL names, one that tests/damage/shell.rs has built, or the system's.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { root } from '../scripts/bootstrap.mjs'

function built() {
  const folder = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), 'tmp')
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => name.startsWith('sqlite3-shell-'))
    .map((name) => path.join(folder, name, 'sqlite3'))
    .filter((file) => existsSync(file))
}

const works = (file) => spawnSync(file, ['--version'], { stdio: 'ignore' }).status === 0

/** Its path, or null where there is no shell. */
export function findShell() {
  const { FUSION_SQLITE_SHELL: named } = process.env
  return [...(named ? [named] : []), ...built(), 'sqlite3'].find(works) ?? null
}
