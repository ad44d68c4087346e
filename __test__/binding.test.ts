// The loader: which binary it takes, and what it says when there is none that loads.

import { execFile } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { folder } from './support.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const prefix = `fusion-sqlite.${process.platform}-${process.arch}`
const addonName = readdirSync(root).find((name) => name.startsWith(prefix) && name.endsWith('.node')) ?? 'not built'
const addon = path.join(root, addonName)
const linux = process.platform === 'linux' ? test : test.skip

/** The loader's files, and what it loads for, in a package of its own without a binary. */
function withoutBinary(t: ExecutionContext, { version = '0.0.0' } = {}): string {
  const made = path.join(folder(t), 'node_modules', 'fusion-sqlite')
  mkdirSync(made, { recursive: true })
  for (const name of ['binding.js', 'native', 'lib', 'index.js', 'with-binding.js']) {
    cpSync(path.join(root, name), path.join(made, name), { recursive: true })
  }
  writeFileSync(path.join(made, 'package.json'), JSON.stringify({ name: 'fusion-sqlite', version }))
  return made
}

/** Installs a platform's package beside the package `made`. */
function installBinary(made: string, { name = addonName, version = '0.0.0', from = addon } = {}): string {
  const target = name.split('.')[1] ?? ''
  const platform = path.join(path.dirname(made), `fusion-sqlite-${target}`)
  mkdirSync(platform)
  copyFileSync(from, path.join(platform, name))
  writeFileSync(
    path.join(platform, 'package.json'),
    JSON.stringify({ name: `fusion-sqlite-${target}`, version, main: name }),
  )
  return path.join(platform, name)
}

interface Loaded {
  ok?: string
  code?: string
  message?: string
  platform?: string
  arch?: string
  libc?: string
  candidates?: { name: string; reason: string }[]
}

const load = `
  try {
    const [request, named] = process.argv.slice(1)
    const loaded = named === undefined ? require(request) : require(request)(named)
    console.log(JSON.stringify({ ok: loaded.engineInfo().sqliteVersion }))
  } catch (error) {
    const { code, message, platform, arch, libc, candidates } = error
    console.log(JSON.stringify({ code, message, platform, arch, libc, candidates }))
  }`

/** Loads the package in a process of its own. */
function loaded(args: string[], { env = {}, node = [] as string[] } = {}): Promise<Loaded> {
  return new Promise((resolve, reject) => {
    const options = { env: { ...process.env, FUSION_SQLITE_BINDING: '', ...env }, timeout: 60_000 }
    execFile(process.execPath, [...node, '-e', load, ...args], options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stderr}`))
      else resolve(JSON.parse(stdout) as Loaded)
    })
  })
}

test('the installed binary is loaded', async (t) => {
  const made = withoutBinary(t)
  installBinary(made)
  t.regex((await loaded([made])).ok ?? '', /^3\./)
})

test('FUSION_SQLITE_BINDING and with-binding name the binary, and no other is tried', async (t) => {
  const made = withoutBinary(t)
  t.regex((await loaded([made], { env: { FUSION_SQLITE_BINDING: addon } })).ok ?? '', /^3\./)
  t.regex((await loaded([path.join(made, 'with-binding.js'), addon])).ok ?? '', /^3\./)
  installBinary(made)
  for (const failed of [
    await loaded([made], { env: { FUSION_SQLITE_BINDING: '/nowhere.node' } }),
    await loaded([path.join(made, 'with-binding.js'), '/nowhere.node']),
  ]) {
    t.is(failed.code, 'ERR_FUSION_BINARY')
    t.deepEqual(
      failed.candidates?.map(({ name }) => name),
      ['/nowhere.node'],
    )
  }
})

test('with-binding takes a loaded addon, and is refused once another is loaded', (t) => {
  const require = createRequire(import.meta.url)
  const withBinding = require('../with-binding.js') as (binding: unknown) => object
  require('../index.js')
  t.throws(() => withBinding(addon), { code: 'ERR_INVALID_STATE' })
  t.throws(() => withBinding(7), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => withBinding(null), { code: 'ERR_INVALID_ARG_TYPE' })
})

test('a binary that is not installed: what is, the platform, and how to build one', async (t) => {
  const made = withoutBinary(t)
  const error = await loaded([made])
  t.is(error.code, 'ERR_FUSION_BINARY')
  t.is(error.platform, process.platform)
  t.is(error.arch, process.arch)
  t.deepEqual(
    error.candidates?.map(({ name, reason }) => [name, reason]),
    [[`fusion-sqlite-${addonName.split('.')[1]}`, 'is not installed']],
  )
  t.regex(error.message ?? '', /--include=optional/)
  t.regex(error.message ?? '', /npm run build/)
  installBinary(made, { name: 'fusion-sqlite.win32-x64-msvc.node' })
  if (process.platform !== 'win32') t.regex((await loaded([made])).message ?? '', /Installed are .*: win32-x64-msvc\./)
})

test('a binary of another version is refused', async (t) => {
  const made = withoutBinary(t)
  installBinary(made, { version: '9.9.9' })
  const error = await loaded([made])
  t.is(error.code, 'ERR_FUSION_BINARY')
  t.regex(error.message ?? '', /is of version 9\.9\.9, and fusion-sqlite of 0\.0\.0/)
})

test('a damaged binary is an error that says so, and does not end the process', async (t) => {
  for (const damage of [
    (file: string) => writeFileSync(file, ''),
    (file: string) => writeFileSync(file, '<!DOCTYPE html>'.repeat(100)),
  ]) {
    const made = withoutBinary(t)
    damage(installBinary(made))
    t.regex((await loaded([made])).message ?? '', /no shared library: the download is damaged\n.*install/i)
  }
})

linux('a binary that is cut anywhere is an error that says so', async (t) => {
  const { length } = readFileSync(addon)
  for (const part of [0.001, 0.02, 0.3, 0.6, 0.9, 0.9999]) {
    const made = withoutBinary(t)
    truncateSync(installBinary(made), Math.floor(length * part))
    const { code, message = '' } = await loaded([made])
    t.is(code, 'ERR_FUSION_BINARY', `cut at ${part}`)
    t.regex(message, /cut short: its last \d+ bytes are missing/)
  }
})

linux('a binary for another CPU or system says for which', async (t) => {
  const bytes = readFileSync(addon)
  bytes.writeUInt16LE(183, 18)
  const arm = path.join(folder(t), 'arm64.node')
  writeFileSync(arm, bytes)
  const error = await loaded([root], { env: { FUSION_SQLITE_BINDING: arm } })
  t.regex(error.candidates?.[0]?.reason ?? '', /the file is for linux-arm64, and this process is linux-x64/)

  const mac = Buffer.alloc(4096)
  mac.writeUInt32LE(0xfeedfacf, 0)
  mac.writeUInt32LE(0x100000c, 4)
  writeFileSync(arm, mac)
  const other = await loaded([root], { env: { FUSION_SQLITE_BINDING: arm } })
  t.regex(other.candidates?.[0]?.reason ?? '', /the file is for darwin-arm64/)
})

test('--permission without --allow-addons', async (t) => {
  const { code, message = '' } = await loaded([root], { node: ['--permission', '--allow-fs-read=*'] })
  t.is(code, 'ERR_FUSION_BINARY')
  t.regex(message, /add --allow-addons/)
})

linux('the glibc that a binary needs is named beside the one there is', (t) => {
  const require = createRequire(import.meta.url)
  const { failure } = require('../native/failure.js') as { failure: (tried: object[], installed: object) => Error }
  const said = "/lib/libc.so.6: version `GLIBC_2.99' not found (required by x.node)"
  const { message } = failure([{ name: 'x', error: Object.assign(new Error(said), { code: 'ERR_DLOPEN_FAILED' }) }], {})
  t.regex(message, /x: it needs glibc 2\.99, and this system has 2\.\d+\nUse a newer system/)
})

test('a loader that a bundler has inlined says so', async (t) => {
  const made = withoutBinary(t)
  const inlined = path.join(folder(t), 'app', 'dist')
  cpSync(made, inlined, { recursive: true })
  writeFileSync(path.join(inlined, 'package.json'), '{ "name": "app", "version": "1.0.0" }')
  const { code, message = '' } = await loaded([inlined])
  t.is(code, 'ERR_FUSION_BINARY')
  t.regex(message, /A bundler has inlined fusion-sqlite.*keep it external/)
})

test('two versions in one tree: each loads its own binary, and each notices the other on one file', async (t) => {
  const files = ['1.0.0', '2.0.0'].map((version) => {
    const made = withoutBinary(t, { version })
    installBinary(made, { version })
    return made
  })
  const script = `
    const [one, two] = process.argv.slice(1, 3).map((folder) => require(folder))
    const file = process.argv[3]
    const first = new one.DatabaseSync(file)
    first.exec('CREATE TABLE t(x); PRAGMA journal_mode = WAL')
    const second = new two.DatabaseSync(file, { foreignHandles: 'ignore' })
    second.exec('INSERT INTO t VALUES (1)')
    first.exec('INSERT INTO t VALUES (2)')
    let code = null
    try { new two.DatabaseSync(file, { foreignHandles: 'error' }) } catch (error) { code = error.code }
    const rows = second.prepare('SELECT count(*) AS n FROM t').get().n
    console.log(JSON.stringify({ same: one.DatabaseSync === two.DatabaseSync, rows, code, locks: one.engineInfo().lockKind }))`
  const file = path.join(folder(t), 'two.db')
  const printed = await new Promise<string>((resolve, reject) => {
    const options = { env: { ...process.env, FUSION_SQLITE_BINDING: '' }, timeout: 60_000 }
    execFile(process.execPath, ['-e', script, ...files, file], options, (error, stdout) =>
      error ? reject(error) : resolve(stdout),
    )
  })
  const result = JSON.parse(printed) as Record<string, unknown>
  t.is(result.same, false)
  t.is(result.rows, 2)
  // Two copies of SQLite: each lets go of the other's POSIX locks, where it has those, and reports it.
  t.is(result.code, process.platform === 'win32' ? null : 'ERR_FUSION_FOREIGN_SQLITE')
})
