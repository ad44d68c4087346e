// The platforms that there is a binary for: one row for each target of package.json.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { root } from './bootstrap.mjs'

export const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))

const CPU = { x86_64: 'x64', aarch64: 'arm64' }

/** What a system is called in a package's name, its `os` and `libc`, and its libraries' file names. */
const SYSTEM = {
  'unknown-linux-gnu': { os: 'linux', libc: 'glibc', abi: 'gnu', library: 'libfusion_sqlite.so' },
  'unknown-linux-musl': { os: 'linux', libc: 'musl', abi: 'musl', library: 'libfusion_sqlite.so' },
  'apple-darwin': { os: 'darwin', library: 'libfusion_sqlite.dylib' },
  'pc-windows-msvc': { os: 'win32', abi: 'msvc', library: 'fusion_sqlite.dll' },
}

function describe(triple) {
  const [machine, ...rest] = triple.split('-')
  const { abi, ...system } = SYSTEM[rest.join('-')]
  const cpu = CPU[machine]
  const name = [system.os, cpu, abi].filter(Boolean).join('-')
  return { triple, name, cpu, ...system, addon: `fusion-sqlite.${name}.node`, packageName: `fusion-sqlite-${name}` }
}

/** Every platform: `triple` is Rust's name of it, `name` the packages'. */
export const targets = manifest.napi.targets.map(describe)

/** The platform that this process runs on, as the loader finds it. */
export function hostTarget() {
  const glibc = process.platform !== 'linux' || process.report.getReport().header.glibcVersionRuntime !== undefined
  return targets.find(
    ({ os, cpu, libc }) =>
      os === process.platform && cpu === process.arch && (libc === undefined || (libc === 'glibc') === glibc),
  )
}
