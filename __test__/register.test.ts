// `node --import fusion-sqlite/register`: every way to node:sqlite leads to this package. Each case
// is an application of its own in a folder where npm has put the package, run as a real process.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const root = fileURLToPath(new URL('..', import.meta.url))
const app = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-register-')))
mkdirSync(path.join(app, 'node_modules'))
symlinkSync(root, path.join(app, 'node_modules', 'fusion-sqlite'), 'junction')
test.after.always(() => rmSync(app, { recursive: true, force: true }))

const REGISTER = ['--import', 'fusion-sqlite/register']

/** What the application `source` prints, as JSON a line. */
function play(name: string, source: string, flags = REGISTER, env: NodeJS.ProcessEnv = {}): unknown[] {
  const file = path.join(app, name)
  writeFileSync(file, source)
  const child = spawnSync(process.execPath, [...flags, file], {
    cwd: app,
    encoding: 'utf8',
    timeout: 30_000,
    env: { ...process.env, NODE_OPTIONS: undefined, ...env },
  })
  if (child.status !== 0) throw new Error(`${name} ended with ${child.status ?? child.signal}: ${child.stderr}`)
  if (child.stderr !== '') throw new Error(`${name} said: ${child.stderr}`)
  return child.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown)
}

const isOurs = `
  const ours = require('fusion-sqlite').DatabaseSync
  const say = (value) => console.log(JSON.stringify(value))
  const works = (sqlite) => {
    const db = new sqlite.DatabaseSync(':memory:')
    const { version } = db.prepare('SELECT sqlite_version() AS version').get()
    db.close()
    return sqlite.DatabaseSync === ours && version === require('fusion-sqlite').engineInfo().sqliteVersion
  }
`

test('an ESM application', (t) => {
  const seen = play(
    'esm.mjs',
    `import sqlite, { DatabaseSync, StatementSync } from 'node:sqlite'
    import * as namespace from 'node:sqlite'
    import { createRequire } from 'node:module'
    const require = createRequire(import.meta.url)
    ${isOurs}
    say([
      works(sqlite), works({ DatabaseSync }), StatementSync === sqlite.StatementSync,
      works(require('node:sqlite')), require('node:sqlite') === sqlite,
      works(process.getBuiltinModule('node:sqlite')), process.getBuiltinModule('node:sqlite') === sqlite,
      (await import('node:sqlite')) === namespace, 'module.exports' in namespace,
    ])`,
  )
  t.deepEqual(seen, [[true, true, true, true, true, true, true, true, false]])
})

const cjs = `
  ${isOurs}
  const nodeModule = require('node:module')
  say([
    works(require('node:sqlite')),
    works(nodeModule.createRequire(__filename)('node:sqlite')),
    works(nodeModule._load('node:sqlite')),
    works(process.getBuiltinModule('node:sqlite')),
    require('node:sqlite') === process.getBuiltinModule('node:sqlite'),
    require.resolve('node:sqlite') !== '',
    process.getBuiltinModule('node:fs') === require('node:fs'),
    process.getBuiltinModule('node:nonsense') === undefined,
  ])
  import('node:sqlite').then((namespace) => say(works(namespace) && works(namespace.default)))
`

test('a CommonJS application', (t) => {
  t.deepEqual(play('cjs.cjs', cjs), [Array.from({ length: 8 }, () => true), true])
})

test('the same by --require, by NODE_OPTIONS, and by a first import', (t) => {
  const expected = [Array.from({ length: 8 }, () => true), true]
  t.deepEqual(play('require.cjs', cjs, ['--require', 'fusion-sqlite/register']), expected)
  t.deepEqual(play('options.cjs', cjs, [], { NODE_OPTIONS: REGISTER.join(' ') }), expected)
  t.deepEqual(play('first.cjs', `require('fusion-sqlite/register');${cjs}`, []), expected)
})

test('a bundled extension.js: one CommonJS file with what bundlers make of import', (t) => {
  const seen = play(
    'extension.js',
    `'use strict'
    var __create = Object.create, __defProp = Object.defineProperty, __names = Object.getOwnPropertyNames
    var __toESM = (mod) => {
      const target = __create(Object.getPrototypeOf(mod))
      for (const key of __names(mod)) __defProp(target, key, { get: () => mod[key], enumerable: true })
      return __defProp(target, 'default', { value: mod, enumerable: true })
    }
    var import_node_sqlite = __toESM(require('node:sqlite'))
    var import_node_module = require('node:module')
    var require2 = (0, import_node_module.createRequire)(require('node:url').pathToFileURL(__filename).href)
    const activate = async () => {
      ${isOurs}
      say([
        works(import_node_sqlite), works(import_node_sqlite.default), works(require2('node:sqlite')),
        works(await import('node:sqlite')),
      ])
    }
    exports.activate = activate
    activate()`,
  )
  t.deepEqual(seen, [[true, true, true, true]])
})

test('worker threads, whatever their options', (t) => {
  const workers = `
    ${isOurs}
    const { Worker, SHARE_ENV } = require('node:worker_threads')
    const { once } = require('node:events')
    const nested = \`new (require('node:worker_threads').Worker)(${JSON.stringify(
      path.join(app, 'in-worker.cjs'),
    )}, { execArgv: [] }).on('message', (seen) => require('node:worker_threads').parentPort.postMessage(seen))\`
    const text = require('node:fs').readFileSync(${JSON.stringify(path.join(app, 'in-worker.cjs'))}, 'utf8')
    const all = async () => {
      for (const options of [undefined, {}, { execArgv: [] }, { env: {} }, { env: SHARE_ENV }]) {
        for (const script of [[${JSON.stringify(path.join(app, 'in-worker.cjs'))}, options],
                              [text, { ...options, eval: true }], [nested, { ...options, eval: true }]]) {
          const worker = new Worker(...script)
          say((await once(worker, 'message'))[0])
        }
      }
      try { new Worker('./x', { execArgv: ['--expose-gc'] }) } catch (error) { say(error.code) }
      try { new Worker('./x', { execArgv: 1 }) } catch (error) { say(error.code) }
    }
    all()`
  writeFileSync(
    path.join(app, 'in-worker.cjs'),
    `'use strict'; ${isOurs}
    require('node:worker_threads').parentPort.postMessage(works(require('node:sqlite')) && works(process.getBuiltinModule('node:sqlite')))`,
  )
  const expected = [...Array.from({ length: 15 }, () => true), 'ERR_WORKER_INVALID_EXEC_ARGV', 'ERR_INVALID_ARG_TYPE']
  // --expose-gc: an option that a worker inherits but must not be given.
  t.deepEqual(play('workers.cjs', workers, ['--expose-gc', ...REGISTER]), expected)
  t.deepEqual(play('workers-env.cjs', workers, [], { NODE_OPTIONS: REGISTER.join(' ') }), expected)
  t.deepEqual(play('workers-first.cjs', `require('fusion-sqlite/register');${workers}`, ['--expose-gc']), expected)
})

test('the bare name sqlite is no builtin, with and without', (t) => {
  const bare = `
    const seen = []
    const note = (error) => seen.push([error.code, error.message.split('\\n')[0]])
    try { require('sqlite') } catch (error) { note(error) }
    seen.push(process.getBuiltinModule('sqlite') === undefined, require('node:module').isBuiltin('sqlite'))
    import('sqlite').catch(note).then(() => console.log(JSON.stringify(seen)))`
  t.deepEqual(play('bare.cjs', bare), play('bare.cjs', bare, []))
})

test("a package's own names are those of node:sqlite that it has, in its order", (t) => {
  const [[names, ours, real]] = play(
    'names.cjs',
    `const original = process.getBuiltinModule[Symbol.for('fusion-sqlite.getBuiltinModule')]
    console.log(JSON.stringify([
      Object.keys(require('node:sqlite')), Object.keys(require('fusion-sqlite')), Object.keys(original('node:sqlite')),
    ]))`,
    ['--disable-warning=ExperimentalWarning', ...REGISTER],
  ) as [[string[], string[], string[]]]
  t.deepEqual(
    names,
    real.filter((name) => ours.includes(name)),
  )
})

test('a Node without registerHooks is told what it lacks', (t) => {
  const [message] = play(
    'old.cjs',
    `require('node:module').registerHooks = undefined
    try { require('fusion-sqlite/register') } catch (error) { console.log(JSON.stringify(error.message)) }`,
    [],
  )
  t.regex(String(message), /needs module\.registerHooks, which Node has since 22\.15\.0/)
})

test('registering protects the real node:sqlite, and says so', (t) => {
  const [locks] = play(
    'locks.cjs',
    `const { nodeSqliteLocks, lockKind } = require('fusion-sqlite').engineInfo()
    console.log(JSON.stringify([nodeSqliteLocks, lockKind]))`,
  ) as [[string, string]]
  t.is(locks[0], locks[1])
})
