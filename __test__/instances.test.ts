// The package's JavaScript is loaded any number of times in one thread: by Jest and vitest for each
// test file, after a cleared require cache, from two copies with one addon.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { builtAddon, ensurePackages, root } from '../scripts/bootstrap.mjs'
import { folder, run, seenByAnotherProcess } from './support.ts'

const runners = fileURLToPath(new URL('runners/', import.meta.url))
const schema = fileURLToPath(new URL('../examples/fusion-schema.sql', import.meta.url))

/** The package as npm installs it, in a project of its own. */
function project(t: ExecutionContext): string {
  const made = folder(t)
  const installed = path.join(made, 'node_modules/fusion-sqlite')
  mkdirSync(installed, { recursive: true })
  for (const part of [
    'index.js',
    'index.mjs',
    'binding.js',
    'native',
    'package.json',
    'lib',
    path.basename(builtAddon() ?? 'not built'),
  ]) {
    cpSync(path.join(root, part), path.join(installed, part), { recursive: true })
  }
  writeFileSync(path.join(made, 'package.json'), '{ "private": true }')
  return made
}

/** Runs a test runner in `made` to its end. */
async function runner(made: string, command: string, args: string[]) {
  const child = spawn(process.execPath, [path.join(runners, 'node_modules', command), ...args], {
    cwd: made,
    env: { ...process.env, NO_COLOR: '1', CI: '1', FUSION_FOLDER: made, FUSION_SCHEMA: schema },
    timeout: 240_000,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  }
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { code, signal, output }
}

async function areStored(t: ExecutionContext, made: string, files: number, expected: string[]) {
  const databases = readdirSync(made).filter((name) => name.endsWith('.db'))
  t.is(databases.length, files)
  for (const name of databases) {
    const { texts, integrity } = await seenByAnotherProcess(t, path.join(made, name))
    t.is(integrity, 'ok')
    t.deepEqual(texts.slice(0, expected.length), expected)
  }
}

test.before('Jest and vitest are installed', (t) => {
  t.timeout(600_000)
  ensurePackages(runners.replace(/[\\/]$/, ''))
})

for (const [name, args] of [
  ['in one process', ['--runInBand']],
  ['in one process that looks for open handles', ['--runInBand', '--detectOpenHandles']],
  ['in worker processes', ['--maxWorkers=2']],
  ['in worker threads', ['--maxWorkers=2', '--workerThreads']],
] as const) {
  test.serial(`Jest: every test file uses the package, and the process ends (${name})`, async (t) => {
    t.timeout(300_000)
    const made = project(t)
    // More files than an event may have listeners before Node warns.
    const files = args[0] === '--runInBand' ? 12 : 4
    for (let i = 0; i < files; i++) cpSync(path.join(runners, 'uses.jest.js'), path.join(made, `${i}.test.js`))
    const { code, signal, output } = await runner(made, 'jest/bin/jest.js', ['--rootDir', made, ...args])
    t.is(signal, null, output)
    t.is(code, 0, output)
    t.notRegex(output, /did not exit|open handle|MaxListeners|torn down/, output)
    // On a machine that is too busy Jest ends its workers with a signal, after half a second.
    if (output.includes('force exited')) return
    await areStored(t, made, files, ['awaited', 'left', 'by path'])
  })
}

for (const pool of ['vmThreads', 'vmForks', 'threads', 'forks']) {
  test.serial(`vitest: every test file uses the package, and the process ends (${pool})`, async (t) => {
    t.timeout(300_000)
    const made = project(t)
    symlinkSync(path.join(runners, 'node_modules/vitest'), path.join(made, 'node_modules/vitest'), 'junction')
    for (let i = 0; i < 3; i++) cpSync(path.join(runners, 'uses.vitest.mjs'), path.join(made, `${i}.test.mjs`))
    const args = ['run', '--root', made, '--pool', pool, '--maxWorkers=1']
    const { code, signal, output } = await runner(made, 'vitest/vitest.mjs', args)
    t.is(signal, null, output)
    t.is(code, 0, output)
    t.notRegex(output, /close timed out|MaxListeners|Unhandled/, output)
    // vitest ends its forks with a signal that nothing handles.
    await areStored(
      t,
      made,
      3,
      pool.endsWith('Forks') || pool === 'forks' ? ['awaited'] : ['awaited', 'left', 'by path'],
    )
  })
}

for (const way of ['require-cache', 'addon-too', 'two-copies']) {
  test(`loaded again and again in one thread (${way})`, async (t) => {
    const { code, output } = await run(t, 'reloaded.cjs', [folder(t), way])
    t.is(code, 0, output)
    t.regex(output, /^ok$/m)
    t.notRegex(output, /Warning/)
  })
}

for (const way of ['closed', 'left open', 'progress']) {
  test(`a realm that has ended is not kept (${way})`, async (t) => {
    const { code, output } = await run(t, 'realms.cjs', [folder(t), way], ['--expose-gc'])
    t.is(code, 0, output)
    t.regex(output, /^kept 0 of 20$/m)
  })
}

for (const part of [1, 2, 3, 4]) {
  test.serial(`200 workers that are terminated take their tasks with them (part ${part})`, async (t) => {
    const { code, output } = await run(t, 'terminated.mjs', [folder(t), '50'])
    t.is(code, 0, output)
    t.regex(output, /^50 terminated$/m)
  })
}

for (const way of ['closes', 'throws', 'exits', 'progress-closes', 'event-closes', 'terminates']) {
  test(`what an answer sets off may do anything (${way})`, async (t) => {
    const { code, output } = await run(t, 'reentrant.mjs', [folder(t), way])
    t.is(code, way === 'exits' ? 7 : 0, output)
    t.regex(output, /^stored 3$/m)
  })
}

for (const way of ['check', 'backupFile', 'restore', 'recover', 'append', 'flush', 'checkpoint', 'appendByPath']) {
  test(`an error leads to the call (${way})`, async (t) => {
    const { code, output } = await run(t, 'stacks.mjs', [folder(t), way])
    t.is(code, 0, output)
    t.regex(output, /at (async )?theApplication /)
  })
}

test('the error of a worker leads to the call', async (t) => {
  const { output } = await run(t, 'stacks.mjs', [folder(t), 'worker'])
  t.regex(output, /^in the worker:.*at theApplication /m)
})
