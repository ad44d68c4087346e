// Loads the package into contexts of node:vm, as Jest does for each test file, and counts those that
// are there when they ended.
const { readFileSync } = require('node:fs')
const { builtinModules } = require('node:module')
const path = require('node:path')
const { setTimeout: sleep } = require('node:timers/promises')
const vm = require('node:vm')

const [, , folder, way] = process.argv
const root = path.join(__dirname, '../..')
const addon = require(path.join(root, 'binding.js'))
const REALMS = 20

/** The package in a realm of its own, with the one addon. */
function load() {
  const context = vm.createContext({
    AbortController,
    AbortSignal,
    setTimeout,
    clearTimeout,
    URL,
    process: { ...process },
  })
  const modules = new Map()
  const load = (file) => {
    if (file === path.join(root, 'binding.js')) return addon
    let module = modules.get(file)
    if (module !== undefined) return module.exports
    module = { exports: {} }
    modules.set(file, module)
    const source = `(function (module, exports, require) {${readFileSync(file, 'utf8')}\n})`
    const wrapped = vm.runInContext(source, context, { filename: file })
    const from = (name) =>
      name.startsWith('node:') || builtinModules.includes(name)
        ? require(name)
        : load(path.join(path.dirname(file), name))
    wrapped(module, module.exports, from)
    return module.exports
  }
  return load(path.join(root, 'index.js'))
}

async function useOnce(number) {
  const { HardenedDatabase, check } = load()
  const file = path.join(folder, `${number}.db`)
  const db = new HardenedDatabase(file)
  db.on('checkpoint', () => {})
  db.exec('CREATE TABLE t(v)')
  await db.flushAgentLogs()
  await db.check()
  if (way === 'progress') await check(file, { progress() {} })
  if (way !== 'left open') db.close()
  return new WeakRef(HardenedDatabase)
}

async function main() {
  const realms = []
  for (let i = 0; i < REALMS; i++) realms.push(await useOnce(i))
  let kept = REALMS
  for (let i = 0; i < 60 && kept > 0; i++) {
    // What a WeakRef gave away is kept until the turn's end.
    await sleep(20)
    globalThis.gc()
    await sleep(20)
    kept = realms.filter((realm) => realm.deref() !== undefined).length
  }
  console.log(`kept ${kept} of ${REALMS}`)
}

main()
