// Every program in README and docs runs as it stands there. A block with `not run: …` after its language says why it does
// not. The pages' programs find a healthy `app.db` in their folder; those of README and guide.md start in an empty one.

import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase } from '../index.js'
import { ensurePackages, root } from '../scripts/bootstrap.mjs'
import { layOut } from '../scripts/pack.mjs'
import { type Fence, fences, guides } from './helpers/pages.ts'
import { folder } from './support.ts'

const ORMS = path.join(root, '__test__', 'orms')
const RUNNERS = path.join(root, '__test__', 'runners')
const EXTENSION: Record<string, string> = { js: 'mjs', mjs: 'mjs', cjs: 'cjs', ts: 'mts' }

/** A project in which the package is installed, and what `others` has. */
function project(t: ExecutionContext, others?: string): string {
  const made = folder(t)
  const modules = path.join(made, 'node_modules')
  mkdirSync(modules)
  symlinkSync(root, path.join(modules, 'fusion-sqlite'), 'junction')
  for (const name of others ? readdirSync(others).filter((one) => !one.startsWith('.')) : []) {
    // Packages find their own dependencies where they really are.
    symlinkSync(path.join(others as string, name), path.join(modules, name), 'junction')
  }
  return made
}

async function node(t: ExecutionContext, cwd: string, script: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [script], { cwd, timeout: 120_000 }).catch(
    (error: Error & { stdout: string; stderr: string }) => {
      throw new Error(`${script}: ${error.message}\n${error.stdout}`, { cause: error })
    },
  )
  t.notRegex(stderr, /Warning/, script)
  return stdout
}

const isProgram = ({ language, info }: Fence) => language in EXTENSION && !info.startsWith('not run: ')

/** One that a test runner runs. */
const isTest = ({ info }: Fence) => info.includes('.test.')

/** What a program prints is in the comment at the end of its `console.log`, where it has one. */
function checkOutput(t: ExecutionContext, { text }: Fence, printed: string) {
  for (const [, expected = ''] of text.matchAll(/^console\.log\(.*\) \/\/ ([[{].*[\]}])$/gm)) {
    t.true(printed.includes(expected), `${printed} has ${expected}`)
  }
}

test('a block that is not run says why', (t) => {
  const all = guides.flatMap(fences).filter(({ language }) => language in EXTENSION)
  t.true(all.filter(isProgram).length > 20)
  for (const { page, line, info } of all) {
    t.regex(info, /^$|^[\w.-]+\.m?js$|^not run: \w.{10,}$/, `${page}:${line}`)
  }
})

for (const page of guides.filter((one) => one !== 'docs/guide.md')) {
  const programs = fences(page).filter((fence) => isProgram(fence) && !isTest(fence))
  if (programs.length === 0) continue
  test(`${page}: its programs run`, async (t) => {
    t.timeout(600_000)
    const isOrms = page === 'docs/orms.md'
    if (isOrms) ensurePackages(ORMS)
    for (const fence of programs) {
      const made = project(t, isOrms ? path.join(ORMS, 'node_modules') : undefined)
      if (page !== 'README.md') {
        const db = new HardenedDatabase(path.join(made, 'app.db'))
        await db.appendAgentLogs([{ taskId: 'T', type: 'text', text: 'a row' }])
        db.close()
      }
      const name = `line-${fence.line}.${EXTENSION[fence.language]}`
      writeFileSync(path.join(made, name), fence.text)
      checkOutput(t, fence, await node(t, made, name))
    }
    t.pass()
  })
}

const guideTest = process.platform === 'win32' ? test.skip : test
guideTest('docs/guide.md: every step works as written in an empty folder', async (t) => {
  t.timeout(600_000)
  const made = project(t)
  // `npx` runs what is installed, and `node` is this one; the package is there already.
  const bin = path.join(made, 'bin')
  mkdirSync(bin)
  const command = (name: string, script: string) => {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${script}\n`)
    chmodSync(path.join(bin, name), 0o755)
  }
  command('npm', 'exit 0')
  command('npx', 'exec "$@"')
  command('node', `exec "${process.execPath}" "$@"`)
  command('fusion-sqlite', `exec "${process.execPath}" node_modules/fusion-sqlite/bin/fusion-sqlite.js "$@"`)
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, NO_COLOR: '1' }
  let printed = ''
  for (const { language, info, text, line } of fences('docs/guide.md')) {
    if (language === 'js') writeFileSync(path.join(made, info), text)
    if (language !== 'sh') continue
    const { stdout, stderr } = await promisify(execFile)('sh', ['-ec', text], {
      cwd: made,
      env,
      timeout: 120_000,
    }).catch((error: Error & { stdout: string }) => {
      throw new Error(`docs/guide.md:${line}: ${error.message}\n${error.stdout}`, { cause: error })
    })
    printed += stdout + stderr
  }
  for (const expected of [
    '2 committed',
    'notes: 2000',
    'app.db: healthy',
    'true []',
    'verified',
    'app.db is repaired',
  ]) {
    t.true(printed.includes(expected), `${expected}\n${printed}`)
  }
  // After the repair, too: nothing was lost.
  t.is(printed.match(/notes: 2000/g)?.length, 2, printed)
  t.true(readdirSync(made).some((name) => name.startsWith('app.db.damaged-')))
  t.true(readdirSync(made).some((name) => name.startsWith('app.db.before-restore-')))
})

test('the program of docs/locks.md shows that node:sqlite loses its lock, and this package does not', async (t) => {
  if (process.platform !== 'linux') return t.pass()
  const made = project(t)
  const fence = fences('docs/locks.md').find(({ info }) => info === 'see.mjs')
  writeFileSync(path.join(made, 'see.mjs'), fence?.text ?? '')
  const see = async (library: string) =>
    (await promisify(execFile)(process.execPath, ['--no-warnings', 'see.mjs', library], { cwd: made })).stdout
  t.regex(await see('node:sqlite'), /lock lost: two writers/)
  t.regex(await see('fusion-sqlite'), /database is locked/)
})

test('docs/testing.md: vitest runs its test', async (t) => {
  t.timeout(600_000)
  ensurePackages(RUNNERS)
  const made = folder(t)
  layOut(made)
  symlinkSync(path.join(RUNNERS, 'node_modules', 'vitest'), path.join(made, 'node_modules', 'vitest'), 'junction')
  const fence = fences('docs/testing.md').find(isTest)
  writeFileSync(path.join(made, fence?.info ?? ''), fence?.text ?? '')
  const vitest = path.join(RUNNERS, 'node_modules', 'vitest', 'vitest.mjs')
  const env = { ...process.env, NO_COLOR: '1', CI: '1' }
  const { stdout } = await promisify(execFile)(process.execPath, [vitest, 'run', '--root', made], { cwd: made, env })
  t.regex(stdout, /Tests +1 passed/)
})
