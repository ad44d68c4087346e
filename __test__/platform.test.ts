// `npx fusion-sqlite info --platform`: what a person pastes into a report.

import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { engineInfo } from '../index.js'
import { isRoot } from './helpers/operate.ts'
import { folder } from './support.ts'

const program = fileURLToPath(new URL('../bin/fusion-sqlite.js', import.meta.url))

interface Answer {
  name: string
  question: string
  answer: string
  usual: boolean
}

interface Platform {
  folder: string
  system: Record<string, string>
  engine: { sqliteVersion: string }
  answers: Record<string, Answer[]>
  errors: { topic: string; reason?: string; message: string }[]
}

/** Runs the command; `user` other than this one where the tests are root. */
function run(args: string[], { cwd, user }: { cwd?: string; user?: number } = {}) {
  const options = { cwd, uid: user, encoding: 'utf8', timeout: 60_000 } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, 'info', '--platform', ...args], options)
  return { code: status, out: stdout, err: stderr }
}

function json(args: string[], options = {}): { code: number | null; platform: Platform } {
  const { code, out } = run([...args, '--json'], options)
  const { command, exitCode, platform } = JSON.parse(out) as { command: string; exitCode: number; platform: Platform }
  if (command !== 'info' || exitCode !== code) throw new Error(out)
  return { code, platform }
}

test('it says what the system and the folder are, and answers each question', (t) => {
  const at = folder(t)
  const { code, platform } = json([at])
  t.is(code, 0)
  t.is(platform.folder, at)
  t.is(platform.engine.sqliteVersion, engineInfo().sqliteVersion)
  t.true(platform.system.runtime!.includes(process.versions.node))
  t.deepEqual(platform.errors, [])
  t.deepEqual(Object.keys(platform.answers), [
    'fileSystem',
    'locks',
    'ownership',
    'syncs',
    'identity',
    'memory',
    'renames',
  ])
  const all = Object.values(platform.answers).flat()
  for (const { name, question, answer } of all) t.true(question !== '' && answer !== '', name)
  if (process.platform === 'linux') {
    const names = new Set(all.map(({ name }) => name))
    for (const name of [
      'ofdConflict',
      'ofdQuestion',
      'posixOwner',
      'folderSync',
      'emptyFiles',
      'mapSeen',
      'renameOver',
    ])
      t.true(names.has(name), name)
    t.deepEqual(
      all.filter(({ usual }) => !usual),
      [],
    )
  }
  t.deepEqual(readdirSync(at), [], 'nothing is left')
})

test('the text has the same answers, of the current folder', (t) => {
  const at = folder(t)
  const { code, out, err } = run([], { cwd: at })
  t.is(code, 0, err)
  t.is(err, '')
  for (const { question, answer } of Object.values(json([at]).platform.answers).flat()) {
    // How much is free differs from one moment to the next.
    if (question.startsWith('free') || question.startsWith('files that')) t.true(out.includes(question), question)
    else t.true(out.includes(`${question}: ${answer}`), question)
  }
  t.true(out.includes(at))
  t.deepEqual(readdirSync(at), [])
})

test('a folder that may not be written to: what can be known is said, and why not the rest', (t) => {
  if (process.platform === 'win32') return t.pass('a folder there has no mode')
  const at = folder(t)
  chmodSync(at, 0o555)
  t.teardown(() => chmodSync(at, 0o755))
  const user = isRoot ? 65_534 : undefined
  const { code, platform } = json([at], { user })
  t.is(code, 70)
  t.true(platform.answers.fileSystem!.length > 0)
  t.deepEqual(
    platform.errors.map(({ topic, reason }) => [topic, reason]),
    ['locks', 'ownership', 'syncs', 'identity', 'memory', 'renames'].map((topic) => [topic, 'noPermission']),
  )
  t.true(platform.errors[0]!.message.includes(at))
  t.is(run([at], { user }).code, 70)
  t.deepEqual(readdirSync(at), [])
})

test('what is no folder is not asked about', (t) => {
  const at = folder(t)
  const file = path.join(at, 'file')
  writeFileSync(file, 'text')
  for (const name of [file, path.join(at, 'gone')]) {
    const { code, err, out } = run([name])
    t.is(code, 66)
    t.true(err.includes(`${name} is not a directory`), err)
    t.is(out, '')
  }
  t.is(run([at, at]).code, 64)
  const { status } = spawnSync(process.execPath, [program, 'info'], { encoding: 'utf8', timeout: 60_000 })
  t.is(status, 64, 'without --platform a file is needed')
  t.deepEqual(readdirSync(at), ['file'])
})
