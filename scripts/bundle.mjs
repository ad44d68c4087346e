// The modules of the package as three files, because to find, read and compile dozens of them takes
// most of the time until the first query. Each module stays a function of its own, which runs when it
// is first required.
//
// | file | modules |
// |---|---|
// | index.js | DatabaseSync, and what it requires at the top level of its modules |
// | hardened.js | the same of HardenedDatabase and of the other exports; tag stores and functions, too |
// | lazy.js | the rest: the commands, page maps, what explains a failed load |

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { root } from './bootstrap.mjs'
import { manifest } from './targets.mjs'

const BUNDLE = 'index.js'

/** What an `import` of the package loads. */
const exportedModules = () => requires('index.js').filter((id) => !id.startsWith('lib/doctor/'))

const GROUPS = [
  { file: BUNDLE, entries: () => ['index.js', 'lib/database-sync.js'] },
  { file: 'hardened.js', entries: () => [...exportedModules(), 'lib/tag-store.js', 'lib/functions.js'] },
]
const LAZY = 'lazy.js'

/** A call of `require` with a path, and whether it stands at the top level, by its indentation. */
const REQUIRE = /^( *)(.*?)\brequire\('(\.{1,2}\/[^']+\.js)'\)/gm
const CALL = /\brequire\('(\.{1,2}\/[^']+)'\)/g

/** The module that `request` means in the module `id`; ids are paths from the package's root. */
function resolve(id, request) {
  return path.posix.join(path.posix.dirname(id), request)
}

const read = (id) => readFileSync(path.join(root, id), 'utf8')

/** The modules that the module `id` requires; `topLevel`: not inside of functions. */
function requires(id, topLevel = false) {
  const calls = [...read(id).matchAll(REQUIRE)].filter(([, indentation]) => indentation === '' || !topLevel)
  return calls.map(([, , , request]) => resolve(id, request))
}

/** The ids of `entries` and of all that they require, but for those that are in `known`. */
function reachable(entries, known, topLevel) {
  const found = new Set(entries.filter((id) => !known.has(id)))
  for (const id of found) {
    for (const required of requires(id, topLevel)) if (!known.has(required)) found.add(required)
  }
  return [...found]
}

/** A module's source, whose relative requires ask the bundle instead. Of package.json the version is used. */
function moved(id) {
  return read(id).replace(CALL, (_, request) => {
    const required = resolve(id, request)
    return required === 'package.json' ? `({ version: '${manifest.version}' })` : `__bundled('${required}')`
  })
}

// The parentheses have V8 compile a module's function with the file, instead of twice.
const eager = (id) => `'${id}': (function (module, exports) {\n${moved(id)}}),\n`
const lazy = (id) => `'${id}'(module, exports) {\n${moved(id)}},\n`

/** Under this symbol index.js has the function that gives the package's other files their modules. */
const KEY = `Symbol.for('fusion-sqlite.module')`

const LOADER = `// The modules named below, put together by scripts/bundle.mjs of fusion-sqlite's repository.
'use strict'
const loaded = new Map()
function find(id) {
  return modules[id] ?? require('./hardened.js')(__bundled)[id] ?? require('./${LAZY}')(__bundled)[id]
}
function __bundled(id) {
  const known = loaded.get(id)
  if (known !== undefined) return known.exports
  const module = { exports: {} }
  loaded.set(id, module)
  try {
    find(id)(module, module.exports)
  } catch (error) {
    loaded.delete(id)
    throw error
  }
  return module.exports
}
`

const END = `module.exports = Object.defineProperty(__bundled('index.js'), ${KEY}, { value: __bundled })\n`

const more = (ids, how) => `'use strict'\nmodule.exports = (__bundled) => ({\n${ids.map(how).join('')}})\n`

/** The text of each file, for a package whose other files ask for the modules `entries`. */
export function bundle(entries) {
  const known = new Set()
  const texts = {}
  for (const { file, entries: first } of GROUPS) {
    const ids = reachable(first(), known, true)
    for (const id of ids) known.add(id)
    texts[file] = file === BUNDLE ? `${LOADER}const modules = {\n${ids.map(eager).join('')}}\n${END}` : more(ids, eager)
  }
  const all = reachable([...known, ...entries], new Set(), false)
  texts[LAZY] = more(
    all.filter((id) => !known.has(id)),
    lazy,
  )
  for (const [, id] of Object.values(texts)
    .join('')
    .matchAll(/\b__bundled\('([^']+)'\)/g)) {
    if (!all.includes(id)) throw new Error(`the bundle lacks ${id}`)
  }
  return texts
}

/** What the file `id` calls for a module. */
function asked(id, module) {
  const file = path.posix.relative(path.posix.dirname(id), BUNDLE)
  return `require('${file.startsWith('.') ? file : `./${file}`}')[${KEY}]('${module}')`
}

/** The source of a file that stays outside, as `id`, whose requires of modules ask the bundle. */
export function outside(id) {
  return read(id).replace(CALL, (_, request) => asked(id, resolve(id, request)))
}

/** A file that is a module of the bundle, for those who ask for it by its path. */
export function stub(id) {
  return `'use strict'\nmodule.exports = ${asked(id, id)}\n`
}
