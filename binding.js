'use strict'

// The addon: finds this platform's binary and loads it, or says why it cannot (./native/failure.js).
//
// | binary | where it comes from |
// |---|---|
// | the one that the application names | `fusion-sqlite/with-binding`, else FUSION_SQLITE_BINDING; no other is tried |
// | else fusion-sqlite.<target>.node beside this file | `npm run build` |
// | else the package fusion-sqlite-<target> | installed with this one, as an optional dependency |

const fs = require('node:fs')
const { createRequire } = require('node:module')
const path = require('node:path')
const choice = require('./native/choice.js')
const { missingBytes } = require('./native/image.js')
const { libc } = require('./native/libc.js')

/** Written out one by one: whatever traces the files of an application finds them. */
const installed = {
  'darwin-arm64': () => require.resolve('fusion-sqlite-darwin-arm64'),
  'darwin-x64': () => require.resolve('fusion-sqlite-darwin-x64'),
  'linux-arm64-gnu': () => require.resolve('fusion-sqlite-linux-arm64-gnu'),
  'linux-arm64-musl': () => require.resolve('fusion-sqlite-linux-arm64-musl'),
  'linux-x64-gnu': () => require.resolve('fusion-sqlite-linux-x64-gnu'),
  'linux-x64-musl': () => require.resolve('fusion-sqlite-linux-x64-musl'),
  'win32-arm64-msvc': () => require.resolve('fusion-sqlite-win32-arm64-msvc'),
  'win32-x64-msvc': () => require.resolve('fusion-sqlite-win32-x64-msvc'),
}

/** The names of the binaries that could run here, the likeliest first. */
function targets() {
  const { platform, arch } = process
  if (platform === 'win32') return [`win32-${arch}-msvc`]
  if (platform !== 'linux') return [`${platform}-${arch}`]
  const abis = { glibc: ['gnu'], musl: ['musl'], unknown: ['gnu', 'musl'] }[libc()]
  return abis.map((abi) => `linux-${arch}-${abi}`)
}

/** Loads a file. One that was cut short is not given to the system, which may end the process over it. */
function loadFile(file) {
  const missing = missingBytes(file)
  if (missing > 0) throw new Error(`the file is cut short: its last ${missing} bytes are missing`)
  // In a single executable `require` knows no files.
  return typeof require.resolve === 'function' ? require(file) : createRequire(file)(file)
}

function versionIn(folder) {
  return JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).version
}

/**
 * The binary of an installed package, which must be of this package's version. Package managers put it
 * next to this one; to look there first takes half a millisecond less than to resolve the name.
 */
function findInstalled(target, resolve) {
  const name = `fusion-sqlite-${target}`
  const expected = require('./package.json').version
  const sibling = path.join(__dirname, '..', name)
  if (fs.existsSync(sibling) && versionIn(sibling) === expected)
    return path.join(sibling, `fusion-sqlite.${target}.node`)
  const file = resolve()
  const version = versionIn(path.dirname(file))
  if (version !== expected) throw new Error(`${name} is of version ${version}, and fusion-sqlite of ${expected}`)
  return file
}

/** Each binary to try: what an error calls it, and how its file is found. */
function candidates() {
  const named = choice.nativeBinding ?? (process.env.FUSION_SQLITE_BINDING || undefined)
  if (named !== undefined) return [{ name: named, find: () => path.resolve(named) }]
  const possible = targets()
  const built = possible.map((target) => path.join(__dirname, `fusion-sqlite.${target}.node`)).find(fs.existsSync)
  if (built !== undefined) return [{ name: built, find: () => built }]
  return possible
    .filter((target) => Object.hasOwn(installed, target))
    .map((target) => ({ name: `fusion-sqlite-${target}`, find: () => findInstalled(target, installed[target]) }))
}

function load() {
  if (typeof choice.nativeBinding === 'object') return choice.nativeBinding
  const tried = []
  try {
    for (const { name, find } of candidates()) {
      let file
      try {
        file = find()
        return loadFile(file)
      } catch (error) {
        tried.push({ name, file, error })
      }
    }
  } catch (error) {
    // Where a bundler has inlined this file there is no __dirname.
    tried.push({ name: 'binding.js', error })
  }
  throw require('./native/failure.js').failure(tried, installed)
}

module.exports = load()
choice.loaded = true
