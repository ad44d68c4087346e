// What is published, as `npm run pack` makes it. `npm run pack:try` installs it and uses it.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { stage } from '../scripts/pack.mjs'
import * as table from '../scripts/targets.mjs'
import { folder } from './support.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
interface Target {
  name: string
  os: string
  cpu: string
  libc?: string
  addon: string
  packageName: string
}

const targets = table.targets as Target[]
const host = table.hostTarget() as Target
const json = (file: string) => JSON.parse(readFileSync(file, 'utf8')) as Record<string, any>
const manifest = json(path.join(root, 'package.json'))

function staged(t: import('ava').ExecutionContext) {
  const into = path.join(folder(t), 'npm')
  stage({ into, only: [host], incomplete: true })
  return { main: path.join(into, 'fusion-sqlite'), platform: (name: string) => path.join(into, name) }
}

test('nothing is packed without the binary of every platform, nor from the sources', (t) => {
  t.throws(() => stage({ into: path.join(folder(t), 'npm'), only: [host] }), {
    message: /no binary for: .*build:target/,
  })
  const packed = spawnSync('npm', ['pack', '--dry-run'], {
    cwd: root,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  })
  t.not(packed.status, 0)
  t.regex(packed.stderr, /npm run pack makes it/)
})

test('the package names every platform in its own version, and each package has its licences', (t) => {
  const { main, platform } = staged(t)
  const { optionalDependencies, scripts, devDependencies, private: hidden } = json(path.join(main, 'package.json'))
  t.deepEqual(
    optionalDependencies,
    Object.fromEntries(targets.map(({ packageName }) => [packageName, manifest.version])),
  )
  t.deepEqual([scripts, devDependencies, hidden], [undefined, undefined, undefined])
  for (const target of targets) {
    const made = json(path.join(platform(target.name), 'package.json'))
    t.is(made.name, target.packageName)
    t.is(made.version, manifest.version)
    t.deepEqual([made.os, made.cpu, made.libc], [[target.os], [target.cpu], target.libc && [target.libc]])
    t.is(existsSync(path.join(platform(target.name), made.main)), target.name === host.name)
  }
  for (const made of [main, platform(host.name)]) {
    t.true(existsSync(path.join(made, 'LICENSE')))
    t.regex(
      readFileSync(path.join(made, 'THIRD-PARTY-NOTICES.md'), 'utf8'),
      /rusqlite \d[^]*SQLite is|SQLite is[^]*rusqlite \d/,
    )
  }
})

test('the loader knows exactly the platforms that are published', (t) => {
  const loader = readFileSync(path.join(root, 'binding.js'), 'utf8')
  const named = [...loader.matchAll(/^ {2}'([\w-]+)': \(\) => require\.resolve\('fusion-sqlite-([\w-]+)'\)/gm)]
  t.deepEqual(named.map(([, name]) => name).toSorted(), targets.map(({ name }) => name).toSorted())
  for (const [, name, resolved] of named) t.is(name, resolved)
})

test('every file that the package names is in it, and every link of its documents leads somewhere', (t) => {
  const { main } = staged(t)
  const packed = json(path.join(main, 'package.json'))
  const named = JSON.stringify([packed.exports, packed.bin, packed.main, packed.types]).match(
    /(?<=")\.?\/?[\w./-]+\.\w+(?=")/g,
  )
  t.true((named?.length ?? 0) > 10)
  for (const name of [...(named ?? []), ...packed.files]) t.true(existsSync(path.join(main, name)), name)
  const documents = ['README.md', ...readdirSync(path.join(main, 'docs')).map((name) => `docs/${name}`)]
  for (const document of documents.filter((name) => name.endsWith('.md'))) {
    const text = readFileSync(path.join(main, document), 'utf8')
    for (const [, link = ''] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
      t.true(existsSync(path.join(main, path.dirname(document), link)), `${document}: ${link}`)
    }
  }
})

test('the packed files and the sources export the same', (t) => {
  const { main } = staged(t)
  const keys = (file: string) => {
    const env = { ...process.env, FUSION_SQLITE_BINDING: path.join(root, host.addon) }
    const script = `const all = require(process.argv[1]); console.log(JSON.stringify(Object.entries(all).map(([name, value]) => [name, typeof value, value.name, value.length])))`
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script, file], { encoding: 'utf8', env })
    return stdout || stderr
  }
  t.is(keys(path.join(main, 'index.js')), keys(path.join(root, 'index.js')))
  t.true(keys(path.join(main, 'index.js')).includes('["DatabaseSync","function"'))
})
