// What every command of this repository needs before it can start: the packages, Node 24 and the
// addon. Runs on any Node >= 20; everything it starts runs on the Node that the lock file names.

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

const windows = process.platform === 'win32'

const nodeIn = (folder) => path.join(folder, 'node_modules', 'node', 'bin', windows ? 'node.exe' : 'node')

/** Node 24, installed as a devDependency. */
export const node24 = nodeIn(root)

/** A package of its own that has the newest Node, see ensureNewestNode(). */
const newestNodeFolder = path.join(root, 'scripts', 'newest-node')

/** The entry point of a package's command, to be run with `node24`. */
export const tool = {
  ava: path.join(root, 'node_modules/ava/entrypoints/cli.js'),
  napi: path.join(root, 'node_modules/@napi-rs/cli/dist/cli.js'),
  oxlint: path.join(root, 'node_modules/oxlint/bin/oxlint'),
  prettier: path.join(root, 'node_modules/prettier/bin/prettier.cjs'),
  tsc: path.join(root, 'node_modules/typescript/bin/tsc'),
}

/** A step that could not be done. The message says what to do; no stack is shown. */
export class SetupError extends Error {}

/** Environment of a child: no Node options of an outer process, colours only for a terminal. */
function childEnvironment(extra = {}) {
  const env = { ...process.env, ...extra }
  if (!process.stdout.isTTY) env.NO_COLOR = '1'
  return env
}

/** Runs a command to its end on our own output, `quiet`: its errors alone, and returns its exit code. */
export function run(command, args, { cwd = root, env, quiet = false } = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd,
    env: childEnvironment(env),
    stdio: ['ignore', quiet ? 'ignore' : 'inherit', 'inherit'],
  })
  if (error) throw new SetupError(`cannot run ${command}: ${error.message}`)
  return status ?? 1
}

/** Runs a command, shows its output and returns it together with the exit code. */
export function runAndRead(command, args, { cwd = root, env } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env: childEnvironment(env), stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const show = (stream, chunk) => {
      output += chunk
      stream.write(chunk)
    }
    child.stdout.setEncoding('utf8').on('data', (chunk) => show(process.stdout, chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk) => show(process.stderr, chunk))
    child.on('error', (error) => reject(new SetupError(`cannot run ${command}: ${error.message}`)))
    child.on('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

function requireCommand(command, args, hint) {
  const { status, error } = spawnSync(command, args, { stdio: 'ignore' })
  if (error || status !== 0) throw new SetupError(`${command} is missing: ${hint}`)
}

/** npm under the Node that started us: the one in node_modules is about to be replaced. */
export function npm(args, cwd, { quiet = false } = {}) {
  const script = process.env.npm_execpath
  if (script?.endsWith('.js') || script?.endsWith('.cjs')) {
    const outerNode = process.env.npm_node_execpath ?? process.execPath
    return run(outerNode, [script, ...args], { cwd, quiet })
  }
  return windows ? run('cmd.exe', ['/d', '/c', 'npm', ...args], { cwd, quiet }) : run('npm', args, { cwd, quiet })
}

function modified(file) {
  return existsSync(file) ? statSync(file).mtimeMs : 0
}

function newest(file) {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (!stat) return 0
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...readdirSync(file).map((name) => newest(path.join(file, name))))
}

/** `npm ci` in a folder, unless node_modules is as new as the lock file. */
export function ensurePackages(folder = root) {
  const installed = modified(path.join(folder, 'node_modules', '.package-lock.json'))
  const wanted = Math.max(modified(path.join(folder, 'package-lock.json')), modified(path.join(folder, 'package.json')))
  if (installed >= wanted) return
  console.log(`installing packages${folder === root ? '' : ` of ${path.relative(root, folder)}`} …`)
  const code = npm(['ci', '--no-audit', '--no-fund', '--no-progress', '--loglevel=error'], folder)
  if (code !== 0) throw new SetupError(`npm ci failed in ${folder} with code ${code}`)
}

function ensureNode24() {
  const { status, stdout } = spawnSync(node24, ['--version'], { encoding: 'utf8' })
  if (status === 0 && stdout.startsWith('v24.')) return
  throw new SetupError(
    'node_modules/node holds no Node 24: its install script did not run. Allow install scripts and run: npm ci',
  )
}

/** Installs the newest Node that is tested. Returns its binary and its major version. */
export function ensureNewestNode() {
  ensurePackages(newestNodeFolder)
  const node = nodeIn(newestNodeFolder)
  const { dependencies } = JSON.parse(readFileSync(path.join(newestNodeFolder, 'package.json'), 'utf8'))
  const { status, stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  if (status === 0 && stdout.trim() === `v${dependencies.node}`) {
    return { node, major: dependencies.node.split('.')[0] }
  }
  throw new SetupError(
    `scripts/newest-node holds no Node ${dependencies.node}: its install script did not run. Allow install scripts ` +
      'and run: npm ci --prefix scripts/newest-node',
  )
}

/** The addon of this platform, as napi build names it; null before the first build. */
export function builtAddon() {
  const prefix = `fusion-sqlite.${process.platform}-${process.arch}`
  const name = readdirSync(root).find((file) => file.startsWith(prefix) && file.endsWith('.node'))
  return name ? path.join(root, name) : null
}

/** Whether a binary is newer than every source. */
export function isUpToDate(addon) {
  const sources = ['Cargo.toml', 'Cargo.lock', 'build.rs', '.cargo/config.toml', 'src']
  return modified(addon) >= Math.max(...sources.map((source) => newest(path.join(root, source))))
}

/** Builds the release addon unless it is newer than every source. */
export function ensureAddon() {
  const addon = builtAddon()
  if (addon && isUpToDate(addon)) return
  requireCommand('cargo', ['--version'], 'install Rust 1.89 or newer')
  if (!windows) requireCommand(process.env.CC ?? 'cc', ['--version'], 'install a C compiler')
  console.log('building the addon (release) …')
  const started = Date.now()
  const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
  const [, ...args] = scripts.build.split(' ')
  const code = run(node24, [tool.napi, ...args])
  if (code !== 0) throw new SetupError(`the build failed with code ${code}`)
  console.log(`built in ${Math.round((Date.now() - started) / 1000)} s`)
}

/** Everything: packages, Node 24, the addon. */
export function prepare() {
  ensurePackages()
  ensureNode24()
  ensureAddon()
}

/** Runs a script's main function; a SetupError becomes one line and exit code 1. */
export async function main(body) {
  try {
    process.exitCode = await body()
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    console.error(`error: ${error.message}`)
    process.exitCode = 1
  }
}
