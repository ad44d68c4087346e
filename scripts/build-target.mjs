// `npm run build:target -- TRIPLE`: builds the release addon for one platform and puts it into
// target/addons/. The release workflow and `npm run pack:try` build this way, so that what is tried
// is what is published.
//
// | target | built by |
// |---|---|
// | Linux, macOS from elsewhere | cargo-zigbuild, with zig as C compiler and linker; glibc 2.17 and later |
// | macOS on macOS, Windows on Windows | cargo |
// | Windows from elsewhere | only type-checked |
//
// A target whose standard library is not installed is built with the sources of it, where the
// toolchain has these.

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { SetupError, main, root, run } from './bootstrap.mjs'
import { targets } from './targets.mjs'

/** The oldest glibc that the binaries load on. */
export const GLIBC = '2.17'

export const addons = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), 'addons')

function answers(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

/** Cargo's options and environment for a standard library that is installed, or else built. */
function standardLibrary(triple) {
  const sysroot = spawnSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).stdout?.trim()
  if (!sysroot) throw new SetupError('rustc is missing: install Rust 1.89 or newer')
  const rustlib = path.join(sysroot, 'lib', 'rustlib')
  if (existsSync(path.join(rustlib, triple, 'lib'))) return { args: [], env: {} }
  if (existsSync(path.join(rustlib, 'src', 'rust', 'library', 'std'))) {
    return { args: ['-Zbuild-std=std,panic_unwind'], env: { RUSTC_BOOTSTRAP: '1' } }
  }
  throw new SetupError(`Rust has no standard library for it: rustup target add ${triple}`)
}

/** Why `target` cannot be built on this machine, or how. */
function plan(target) {
  const native = target.os === process.platform
  if (target.os !== 'win32' && !(native && target.os === 'darwin')) {
    if (!answers('cargo-zigbuild', ['--version'])) {
      throw new SetupError('cargo-zigbuild is missing: pip install cargo-zigbuild ziglang')
    }
    return {
      command: 'zigbuild',
      triple: target.libc === 'glibc' ? `${target.triple}.${GLIBC}` : target.triple,
      env: {},
    }
  }
  if (native) return { command: 'build', triple: target.triple, env: {} }
  if (!answers('zig', ['version']))
    throw new SetupError('zig, which checks its C code, is missing: pip install ziglang')
  const suffix = target.triple.replaceAll('-', '_')
  const machine = target.triple.split('-')[0]
  const env = {
    [`CC_${suffix}`]: `zig cc -target ${machine}-windows-gnu`,
    [`AR_${suffix}`]: 'zig lib',
    // Those of the target that zig does not know.
    CRATE_CC_NO_DEFAULTS: '1',
  }
  return { command: 'check', triple: target.triple, env }
}

/** Builds `target` and returns the addon's path; null where it was only type-checked. */
export function buildTarget(target) {
  const { command, triple, env } = plan(target)
  const std = standardLibrary(target.triple)
  // A shared library cannot hold musl itself: Node has one.
  const rustflags = target.libc === 'musl' ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {}
  const code = run('cargo', [command, '--locked', '--lib', '--release', '--target', triple, ...std.args], {
    env: { ...env, ...std.env, ...rustflags },
  })
  if (code !== 0) throw new SetupError(`cargo ${command} failed with code ${code}`)
  if (command === 'check') return null
  mkdirSync(addons, { recursive: true })
  const addon = path.join(addons, target.addon)
  copyFileSync(path.join(path.dirname(addons), target.triple, 'release', target.library), addon)
  return addon
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main(() => {
    const target = targets.find(({ triple }) => triple === process.argv[2])
    if (!target) throw new SetupError(`name one of: ${targets.map(({ triple }) => triple).join(', ')}`)
    console.log(buildTarget(target) ?? 'type-checked: it is built on Windows')
    return 0
  })
}
