// The package under Bun. Most scripts run under Node as well, and must see the same there.

import { execFile, spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { DatabaseSync } from '../index.js'
import { builtAddon } from '../scripts/bootstrap.mjs'
import { layOut } from '../scripts/pack.mjs'
import { fences } from './helpers/pages.ts'
import { child, database, folder, seenByAnotherProcess } from './support.ts'

const modules = fileURLToPath(new URL('../node_modules/', import.meta.url))

/** Bun's binary: of the platform's package, or where the install script of `bun` moves it. */
function findBun(): string | undefined {
  const candidates = [
    path.join(modules, `@oven/bun-${process.platform}-${process.arch === 'arm64' ? 'aarch64' : process.arch}/bin/bun`),
    path.join(modules, 'bun/bin/bun.exe'),
  ]
  return candidates.find((file) => /^\d+\./.test(spawnSync(file, ['--version'], { encoding: 'utf8' }).stdout ?? ''))
}

const bun = findBun()
const expected = process.platform === 'linux' && process.arch === 'x64'
if (bun === undefined && !expected) console.log('bun.test.ts is skipped: npm has installed no Bun for this platform')
const bunTest = bun === undefined && !expected ? test.skip : test

interface Ran {
  code: number
  stdout: string
  stderr: string
}

async function run(runtime: string | undefined, script: string, args: string[] = []): Promise<Ran> {
  if (runtime === undefined) throw new Error('bun is not installed: npm ci did not install its optional dependency')
  try {
    const { stdout, stderr } = await promisify(execFile)(runtime, [child(script), ...args], {
      timeout: 60_000,
      maxBuffer: 2 ** 26,
    })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr, signal } = error as Ran & { signal: string | null }
    if (typeof code !== 'number') throw new Error(`${script} ended by ${signal}: ${stderr}`, { cause: error })
    return { code, stdout, stderr }
  }
}

async function printed(runtime: string | undefined, script: string, args: string[] = []): Promise<unknown> {
  const { code, stdout, stderr } = await run(runtime, script, args)
  if (code !== 0) throw new Error(`${script} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as unknown
}

bunTest('Bun: DatabaseSync, sessions, backup, serialize, tag stores and errors as under Node', async (t) => {
  const underNode = (await printed(process.execPath, 'bun-api.mjs')) as unknown[]
  t.true(underNode.length > 50)
  t.deepEqual(await printed(bun, 'bun-api.mjs'), underNode)
})

bunTest('Bun: the log, its receipts, rejections, events, workers and close as under Node', async (t) => {
  const underNode = (await printed(process.execPath, 'bun-log.mjs', [path.join(folder(t), 'a.db')])) as unknown[]
  t.true(underNode.length > 20)
  t.deepEqual(await printed(bun, 'bun-log.mjs', [path.join(folder(t), 'a.db')]), underNode)
})

bunTest('Bun: a Fusion-shaped store as on node:sqlite under Node', async (t) => {
  const file = () => path.join(folder(t), 'fusion.db')
  const underNode = await printed(process.execPath, 'fusion-client.ts', ['drive', 'node:sqlite', file()])
  for (const kind of ['DatabaseSync', 'HardenedDatabase']) {
    t.deepEqual(await printed(bun, 'fusion-client.ts', ['drive', kind, file()]), underNode, kind)
  }
})

bunTest('Bun and Node write to one file at once', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  await printed(bun, 'fusion-client.ts', ['setup', 'HardenedDatabase', file])
  // The store asks for WAL before it sets its timeout, as Fusion does: it may meet whoever makes the WAL.
  const daemon = new DatabaseSync(file)
  daemon.exec('SELECT count(*) FROM agentLogEntries')
  await Promise.all([
    printed(bun, 'fusion-client.ts', ['write', 'HardenedDatabase', file, 'A,200']),
    printed(process.execPath, 'fusion-client.ts', ['write', 'DatabaseSync', file, 'B,200']),
  ])
  daemon.close()
  const { texts, integrity, lastModified } = await seenByAnotherProcess(t, file)
  t.is(texts.length, 400)
  t.is(integrity, 'ok')
  t.is(lastModified, 402)
})

for (const [way, code] of [
  ['natural', 0],
  ['exit', 7],
  ['uncaught', 1],
  ['rejection', 1],
  ['sigterm', 7],
  ['listener', 0],
  ['path', 7],
  ['forgotten', 0],
  ['worker-natural', 0],
  ['worker-exit', 0],
  ['worker-terminate', 0],
  ['worker-main', 7],
] as const) {
  bunTest(`Bun: what was accepted is written when the process ends (${way})`, async (t) => {
    const file = database(t)
    const ran = await run(bun, 'ends.mjs', [file, way])
    t.is(ran.code, code, ran.stderr)
    const { texts, integrity } = await seenByAnotherProcess(t, file)
    t.is(integrity, 'ok')
    t.deepEqual(
      texts,
      Array.from({ length: 2000 }, (_, i) => `row ${i}`),
    )
  })
}

for (const end of ['natural', 'terminate', 'exit']) {
  bunTest(`Bun: a worker's entries are kept where the main thread never loaded the package (${end})`, async (t) => {
    const file = database(t)
    const ran = await run(bun, 'bare-worker.cjs', [file, end])
    t.is(ran.code, 0, ran.stderr)
    t.is((await seenByAnotherProcess(t, file)).texts.length, 2000)
  })
}

bunTest("Bun: its own SQLite is noticed, and protected; register says that it can't", async (t) => {
  const { register, ...found } = (await printed(bun, 'bun-foreign.mjs', [folder(t)])) as { register: string }
  t.regex(register, /needs module\.registerHooks/)
  if (process.platform !== 'linux') return
  t.deepEqual(found as object, {
    forgotten: true,
    unprotected: ['ERR_FUSION_FOREIGN_SQLITE', 'ERR_FUSION_FOREIGN_SQLITE'],
    protect: { protected: true, reason: null },
    protected: ['not noticed', 'not noticed'],
    locks: 'ofd',
  })
})

bunTest('Bun: the program of docs/bun.md is one executable that needs no node_modules', async (t) => {
  t.timeout(300_000)
  if (bun === undefined) throw new Error('bun is not installed: npm ci did not install its optional dependency')
  const fence = fences('docs/bun.md').find(({ text }) => text.includes('with-binding'))
  const [, binary = ''] = /from '\.\/node_modules\/[\w-]+\/(.*?)'/.exec(fence?.text ?? '') ?? []
  t.is(binary, 'fusion-sqlite.linux-x64-gnu.node')
  const made = folder(t)
  layOut(made)
  const addon = path.basename(builtAddon() ?? '')
  const platform = path.parse(addon).name.replace('.', '-')
  const program = fence?.text.replaceAll(binary, addon).replaceAll('fusion-sqlite-linux-x64-gnu', platform) ?? ''
  writeFileSync(path.join(made, 'app.js'), program)
  const args = ['build', '--compile', '--external', 'fusion-sqlite-*', 'app.js', '--outfile', 'app']
  await promisify(execFile)(bun, args, { cwd: made })
  rmSync(path.join(made, 'node_modules'), { recursive: true })
  const elsewhere = folder(t)
  const { stdout } = await promisify(execFile)(path.join(made, 'app'), [], { cwd: elsewhere, timeout: 60_000 })
  t.regex(stdout, /committed: 1/)
  using db = new DatabaseSync(path.join(elsewhere, 'app.db'))
  t.deepEqual(
    db
      .prepare('SELECT text FROM agentLogEntries')
      .all()
      .map(({ text }) => text),
    ['compiled'],
  )
})
