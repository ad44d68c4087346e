'use strict'

require('./lib/supported-node.js')

// `node --import fusion-sqlite/register app.js`: node:sqlite is this package for the whole
// process, however it is asked for.
//
// | asked for by | answered by |
// |---|---|
// | `import`, `import()`, `require`, `createRequire()`, `Module._load` | module.registerHooks |
// | `process.getBuiltinModule` | a replacement of it: hooks are not asked |
// | a worker thread, whatever its options | this file, inherited as an option or added as one |
//
// The bare name `sqlite` is no builtin in any Node and stays what it is.

const nodeModule = require('node:module')
const path = require('node:path')
const { pathToFileURL, fileURLToPath } = require('node:url')
const workerThreads = require('node:worker_threads')
const { kOriginal, originalGetBuiltinModule } = require('./lib/original-node-sqlite.js')
const { protectNodeSqlite } = require('./lib/node-sqlite-locks.js')

const NAME = 'node:sqlite'
const SELF = 'fusion-sqlite/register'

/** On the global object of a thread that is registered; two copies of this package see it. */
const kRegistered = Symbol.for(SELF)

/** The module that `require` is given, and the one that `import` is given. */
const FACADE = pathToFileURL(path.join(__dirname, 'lib', 'node-sqlite.js')).href
const FACADE_FOR_IMPORT = `${FACADE}?import`

/** A module with node:sqlite's named exports: those that this package has, and no others. */
function facadeSource() {
  const names = Object.keys(require('./lib/node-sqlite.js'))
  return [
    `import sqlite from ${JSON.stringify(FACADE)}`,
    ...names.map((name) => `export const ${name} = sqlite.${name}`),
    'export default sqlite',
  ].join('\n')
}

function hookModules() {
  nodeModule.registerHooks({
    resolve(specifier, context, nextResolve) {
      if (specifier !== NAME) return nextResolve(specifier, context)
      // An array, in the first Nodes with hooks a Set.
      return [...(context.conditions ?? [])].includes('require')
        ? { url: FACADE, format: 'commonjs', shortCircuit: true }
        : { url: FACADE_FOR_IMPORT, format: 'module', shortCircuit: true }
    },
    load(url, context, nextLoad) {
      if (url !== FACADE_FOR_IMPORT) return nextLoad(url, context)
      return { format: 'module', source: facadeSource(), shortCircuit: true }
    },
  })
}

function replaceGetBuiltinModule() {
  const original = originalGetBuiltinModule()
  if (original === undefined) return
  const { getBuiltinModule } = {
    getBuiltinModule(id) {
      return id === NAME ? require('./lib/node-sqlite.js') : Reflect.apply(original, this, [id])
    },
  }
  Object.defineProperty(getBuiltinModule, kOriginal, { value: original })
  process.getBuiltinModule = getBuiltinModule
}

/** Whether `value`, of --import or --require, leads to this file or the one beside it. */
function isSelf(value) {
  if (value === undefined) return false
  if (value === SELF) return true
  const file = value.startsWith('file:') ? fileURLToPath(value) : path.resolve(value)
  return file === __filename || file === path.join(__dirname, 'register.mjs')
}

/** Whether Node options load this file into each thread that inherits them. */
function loadsSelf(options) {
  return options.some((option, index) => {
    const [name, value] = option.split(/=(.*)/s)
    return ['--import', '--require', '-r'].includes(name) && isSelf(value ?? options[index + 1])
  })
}

/**
 * Options of a worker that registers, whatever the caller gives it. `inherited`: whether a worker
 * without options of its own does so by itself. A worker whose script is a text does not: Node
 * runs it without waiting for --import.
 */
function registering(options, inherited) {
  const { execArgv, eval: isText } = options ?? {}
  // What is not a list of options is the original's to reject.
  if (execArgv !== undefined && !Array.isArray(execArgv)) return options
  const given = execArgv ?? process.execArgv
  if (!isText && (execArgv === undefined ? inherited : loadsSelf(given))) return options
  return { ...options, execArgv: [...given, '--require', __filename] }
}

/** `options` without the Node options that `error` says are the process's, not a worker's. */
function withoutRefused(options, error) {
  const refused = new Set(error.message.split(': ').at(-1).split(', '))
  return { ...options, execArgv: options.execArgv.filter((option) => !refused.has(option)) }
}

function replaceWorker() {
  const Original = workerThreads.Worker
  // Not what NODE_OPTIONS says: a worker may be given another environment.
  const inherited = loadsSelf(process.execArgv)
  class Worker extends Original {
    constructor(filename, options) {
      const registered = registering(options, inherited)
      try {
        super(filename, registered)
      } catch (error) {
        // Options that the process was started with go to a worker unsaid, but not said.
        if (error?.code !== 'ERR_WORKER_INVALID_EXEC_ARGV' || options?.execArgv !== undefined) throw error
        super(filename, withoutRefused(registered, error))
      }
    }
  }
  workerThreads.Worker = Worker
  // For those who import { Worker }.
  nodeModule.syncBuiltinESMExports()
}

function register() {
  if (globalThis[kRegistered]) return
  if (typeof nodeModule.registerHooks !== 'function') {
    throw new Error(
      `${SELF} needs module.registerHooks, which Node has since 22.15.0, 23.5.0 and 24.0.0; this is ` +
        `${process.version}. Update Node, or replace the import of node:sqlite by hand.`,
    )
  }
  Object.defineProperty(globalThis, kRegistered, { value: true })
  hookModules()
  replaceGetBuiltinModule()
  replaceWorker()
  // Whatever reaches the real one all the same shall at least keep its locks. Where that cannot
  // be done, engineInfo() says why.
  protectNodeSqlite()
}

register()
