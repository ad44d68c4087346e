// What npm would publish, installed elsewhere without a network: the package and this platform's
// binary, loaded by `import` and by `require`, and type-checked from both kinds of modules.

import { execFile } from 'node:child_process'
import { copyFile, cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
const windows = process.platform === 'win32'

async function npm(folder: string, ...args: string[]): Promise<string> {
  const { stdout } = await run('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: folder,
    shell: windows,
    timeout: 90_000,
  })
  return stdout
}

interface Packed {
  filename: string
  files: { path: string }[]
}

async function pack(folder: string, destination: string): Promise<{ tarball: string; files: string[] }> {
  const output = await npm(folder, 'pack', '--json', '--pack-destination', destination)
  const [packed] = JSON.parse(output.slice(output.indexOf('['))) as Packed[]
  if (!packed) throw new Error(`npm pack printed: ${output}`)
  return { tarball: path.join(destination, packed.filename), files: packed.files.map((file) => file.path) }
}

const useIt = `
  const file = process.argv[2]
  const db = new fusionSqlite.HardenedDatabase(file)
  db.exec('CREATE TABLE t(x)')
  db.prepare('INSERT INTO t VALUES (?)').run(7)
  const row = db.prepare('SELECT x FROM t').get()
  db.close()
  console.log(JSON.stringify({ names: Object.keys(fusionSqlite).toSorted(), x: row.x, engine: fusionSqlite.engineInfo() }))
`

const typedUse = `
  const db = new HardenedDatabase('unused.db')
  const receipt: Promise<{ committed: number }> = db.appendAgentLogs([{ taskId: 'T', text: 'x', type: 'text' }])
  const kept: boolean = db.appendAgentLog({ taskId: 'T', text: 'x', type: 'tool' })
  const lock: 'ofd' | 'posix' | 'windows' = engineInfo().lockKind
  export const used = [receipt, kept, lock]
`

test('the packed package installs offline and loads by import and by require, with types', async (t) => {
  t.timeout(110_000)
  const folder = await mkdtemp(path.join(os.tmpdir(), 'fusion-sqlite-packaging-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))

  const prefix = `fusion-sqlite.${process.platform}-${process.arch}`
  const addon = (await readdir(root)).find((name) => name.startsWith(prefix) && name.endsWith('.node'))
  if (!addon) return t.fail('the addon is not built')
  const platform = addon.split('.')[1] ?? ''
  const platformFolder = path.join(folder, 'platform')
  await cp(path.join(root, 'npm', platform), platformFolder, { recursive: true })
  await copyFile(path.join(root, addon), path.join(platformFolder, addon))

  const main = await pack(root, folder)
  const binary = await pack(platformFolder, folder)
  t.true(binary.files.includes(addon))
  for (const name of [
    'LICENSE',
    'README.md',
    'index.js',
    'index.mjs',
    'index.d.ts',
    'index.d.mts',
    'binding.js',
    'register.js',
    'register.mjs',
    'bin/fusion-sqlite.js',
  ])
    t.true(main.files.includes(name), `${name} is not packed`)
  const foreign = main.files.filter((name) => /^(src|bench|demo|examples|__test__|npm|target)\/|\.node$/.test(name))
  t.deepEqual(foreign, [])

  const app = path.join(folder, 'app')
  await mkdir(app)
  await writeFile(path.join(app, 'package.json'), '{ "private": true }')
  await npm(app, 'install', '--offline', main.tarball, binary.tarball)

  await writeFile(
    path.join(app, 'esm.mjs'),
    `import * as all from 'fusion-sqlite'
    const { default: viaDefault, ...fusionSqlite } = all
    if (viaDefault.HardenedDatabase !== fusionSqlite.HardenedDatabase) throw new Error('two faces')
    ${useIt}`,
  )
  await writeFile(path.join(app, 'cjs.cjs'), `const fusionSqlite = require('fusion-sqlite')\n${useIt}`)
  const results = []
  for (const script of ['esm.mjs', 'cjs.cjs']) {
    const { stdout } = await run(process.execPath, [script, path.join(app, `${script}.db`)], {
      cwd: app,
      timeout: 30_000,
    })
    results.push(JSON.parse(stdout) as { names: string[]; x: number })
  }
  const registered = ['--import', 'fusion-sqlite/register', '--print', "require('node:sqlite').DatabaseSync.name"]
  const { stdout: name, stderr: said } = await run(process.execPath, registered, { cwd: app, timeout: 30_000 })
  t.deepEqual([name.trim(), said], ['DatabaseSync', ''])
  const npx = ['--no-install', 'fusion-sqlite', 'info', path.join(app, 'esm.mjs.db'), '--json']
  // By this Node, and not by whichever is the first on the machine.
  const env = { ...process.env, PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env.PATH}` }
  const { stdout: told } = await run('npx', npx, { cwd: app, env, shell: windows, timeout: 30_000 })
  t.is((JSON.parse(told) as { info: { database: { pages: number } } }).info.database.pages, 2)
  const [esm, cjs] = results
  t.deepEqual(esm, cjs)
  t.is(esm?.x, 7)

  await writeFile(
    path.join(app, 'esm.mts'),
    `import 'fusion-sqlite/register'\nimport { HardenedDatabase, engineInfo } from 'fusion-sqlite'\n${typedUse}`,
  )
  await writeFile(
    path.join(app, 'cjs.cts'),
    `import fusionSqlite = require('fusion-sqlite')\nconst { HardenedDatabase, engineInfo } = fusionSqlite\n${typedUse}`,
  )
  const compile = [path.join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--target', 'es2024']
  const resolution = ['--module', 'nodenext', '--types', 'node', '--typeRoots', path.join(root, 'node_modules/@types')]
  await t.notThrowsAsync(
    run(process.execPath, [...compile, ...resolution, 'esm.mts', 'cjs.cts'], { cwd: app, timeout: 60_000 }).catch(
      (error: Error & { stdout?: string }) => {
        throw new Error(error.stdout || error.message)
      },
    ),
  )
})
