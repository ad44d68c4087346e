// What the README promises to list is all there.

import { readFile, readdir } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import * as fusionSqlite from '../index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (...names: string[]) => readFile(path.join(root, ...names), 'utf8')

/** Codes that no caller sees: the salvager says it to the repair, which then asks the backups. */
const INTERNAL = new Set(['ERR_FUSION_NOTHING_TO_SALVAGE'])

test('every error code of the sources is in the table of errors', async (t) => {
  const readme = await read('README.md')
  const codes = new Set<string>()
  for (const folder of ['src', 'lib', 'native']) {
    for (const name of await readdir(path.join(root, folder), { recursive: true })) {
      if (!/\.(rs|js|c)$/.test(name)) continue
      for (const [code] of (await read(folder, name)).matchAll(/ERR_FUSION_[A-Z_]*[A-Z]/g)) codes.add(code)
    }
  }
  t.true(codes.size > 30)
  const listed = new Set(
    [...readme.matchAll(/^\| `ERR_FUSION_.*?\|/gm)].flatMap(([row]) => row.match(/ERR_FUSION_[A-Z_]+/g) ?? []),
  )
  t.deepEqual(
    [...codes].filter((code) => !listed.has(code) && !INTERNAL.has(code)),
    [],
    'codes that the README does not explain',
  )
  t.deepEqual(
    [...listed].filter((code) => !codes.has(code)),
    [],
    'codes that nothing throws',
  )
})

test('every option of HardenedDatabase is in the table of options', async (t) => {
  const [, table = ''] = /^## Options\n([^]*?)^## /m.exec(await read('README.md')) ?? []
  const [, statement = ''] = /interface StatementOptions \{([^]*?)^\}/m.exec(await read('index.d.ts')) ?? []
  const [, own = ''] = /interface HardenedDatabaseOptions [^{]*\{([^]*?)^\}/m.exec(await read('index.d.ts')) ?? []
  const [, base = ''] = /interface DatabaseSyncOptions .*?\{([^]*?)^\}/m.exec(await read('index.d.ts')) ?? []
  const names = [...(statement + base + own).matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name)
  t.true(names.length > 20)
  t.deepEqual(
    names.filter((name) => !table.includes(`\`${name}\``)),
    [],
  )
})

test('every event and export is declared, and every declared one told of', async (t) => {
  const [readme, types, module] = await Promise.all([read('README.md'), read('index.d.ts'), import('../index.mjs')])
  const [, events = ''] = /interface HardenedDatabaseEvents \{([^]*?)^\}/m.exec(types) ?? []
  for (const [, name] of events.matchAll(/^ {2}(\w+): \[/gm)) t.true(readme.includes(`\`${name}\``), name)
  const { default: _, 'module.exports': __, ...required } = fusionSqlite as Record<string, unknown>
  t.deepEqual(
    Object.keys(module)
      .filter((name) => name !== 'default')
      .toSorted(),
    Object.keys(required).toSorted(),
  )
  for (const name of Object.keys(required)) {
    t.regex(types, new RegExp(`export (declare )?(class|function|const) ${name}\\b|export \\{.*\\b${name}\\b`), name)
  }
})
