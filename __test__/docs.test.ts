// What README and docs promise to list is all there; every link leads somewhere.

import { existsSync, readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import * as fusionSqlite from '../index.js'
import { root } from '../scripts/bootstrap.mjs'
import { page as apiPage } from '../scripts/docs.mjs'
import { occurrences } from '../scripts/words.mjs'
import { anchors, guides, pages, read, withoutCode } from './helpers/pages.ts'

/** Codes that no caller sees: the salvager says it to the repair, which then asks the backups. */
const INTERNAL = new Set(['ERR_FUSION_NOTHING_TO_SALVAGE'])

test('every error code of the sources is in docs/errors.md, and every one of these is in the sources', (t) => {
  const page = read('docs/errors.md')
  const codes = new Set<string>()
  for (const folder of ['src', 'lib', 'native']) {
    for (const name of readdirSync(path.join(root, folder), { recursive: true }).map(String)) {
      if (!/\.(rs|js|c)$/.test(name)) continue
      for (const [code] of read(folder, name).matchAll(/ERR_FUSION_[A-Z_]*[A-Z]/g)) codes.add(code)
    }
  }
  t.true(codes.size > 30)
  const listed = new Set(
    [...page.matchAll(/^\| `ERR_FUSION_.*?\|/gm)].flatMap(([row]) => row.match(/ERR_FUSION_[A-Z_]+/g) ?? []),
  )
  t.deepEqual(
    [...codes].filter((code) => !listed.has(code) && !INTERNAL.has(code)),
    [],
    'codes that the page does not explain',
  )
  t.deepEqual(
    [...listed].filter((code) => !codes.has(code)),
    [],
    'codes that nothing throws',
  )
})

/** The options of an interface: its names with what their comments say of a default. */
function declared(types: string, name: string): [name: string, fallback: string | undefined][] {
  const [, body = ''] = new RegExp(`interface ${name} [^{]*\\{([^]*?)^\\}`, 'm').exec(types) ?? []
  return [...body.matchAll(/(?:\/\*\*((?:(?!\*\/)[^])*)\*\/\s+)?^ {2}(\w+)\?:/gm)].map(
    ([, comment = '', option = '']) => [
      option,
      /Default (`[\w]+`|[\d,]+(?: \w?iB)?)/.exec(comment)?.[1]?.replaceAll(/[`,]/g, ''),
    ],
  )
}

test('every option of HardenedDatabase is in docs/options.md, with its default', (t) => {
  const types = read('index.d.ts')
  const [tables = ''] = read('docs/options.md').split('## Settings by PRAGMA')
  const rows = new Map(
    [...tables.matchAll(/^\| `(\w+)` +\| ([^|]*)\|/gm)].map(([, name = '', value = '']) => [
      name,
      value.trim().replaceAll(/[`,]/g, ''),
    ]),
  )
  const own = declared(types, 'HardenedDatabaseOptions')
  const inherited = [...declared(types, 'StatementOptions'), ...declared(types, 'DatabaseSyncOptions')]
  t.true(own.length > 20 && inherited.length > 10)
  const options = new Map([...inherited, ...own])
  t.deepEqual([...rows.keys()].toSorted(), [...options.keys()].toSorted())
  for (const [name, fallback] of options) {
    if (fallback !== undefined) t.true(rows.get(name)?.includes(fallback), `${name}: ${rows.get(name)} has ${fallback}`)
  }
})

test('every event and export is declared, and every declared event is in docs/log.md', async (t) => {
  const types = read('index.d.ts')
  const module = await import('../index.mjs')
  const [, events = ''] = /interface HardenedDatabaseEvents \{([^]*?)^\}/m.exec(types) ?? []
  const log = read('docs/log.md')
  for (const [, name] of events.matchAll(/^ {2}(\w+): \[/gm)) t.true(log.includes(`| \`${name}\``), name)
  const { default: _, 'module.exports': __, ...required } = fusionSqlite as Record<string, unknown>
  t.deepEqual(
    Object.keys(module)
      .filter((name) => name !== 'default')
      .toSorted(),
    Object.keys(required).toSorted(),
  )
  const api = anchors('docs/api.md')
  for (const name of Object.keys(required)) {
    t.regex(types, new RegExp(`export (declare )?(class|function|const) ${name}\\b|export \\{.*\\b${name}\\b`), name)
    t.true(api.has(name.toLowerCase()), name)
  }
})

test('docs/api.md is what the types say: npm run docs writes it', async (t) => {
  t.is(read('docs/api.md'), await apiPage())
})

test('README has at most 150 lines, and no page has the words of scripts/words.mjs', (t) => {
  t.true(read('README.md').split('\n').length <= 151)
  t.deepEqual(occurrences(['docs', 'README.md']), [])
})

for (const page of pages) {
  test(`${page}: every relative link and anchor leads somewhere`, (t) => {
    const text = withoutCode(read(page))
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g), ...text.matchAll(/^\[[^\]]+\]: (\S+)$/gm)]
    for (const [, link = ''] of links) {
      if (/^https?:/.test(link)) continue
      const [name = '', anchor] = link.split('#')
      const target = name === '' ? page : path.posix.join(path.posix.dirname(page), name)
      t.true(existsSync(path.join(root, target)), link)
      if (anchor !== undefined && target.endsWith('.md')) t.true(anchors(target).has(anchor), link)
    }
    t.pass()
  })
}

test('every page of docs is reached from the README', (t) => {
  const linked = new Set<string>()
  const follow = (page: string) => {
    if (linked.has(page) || !page.endsWith('.md') || !existsSync(path.join(root, page))) return
    linked.add(page)
    for (const [, link = ''] of withoutCode(readFileSync(path.join(root, page), 'utf8')).matchAll(/\]\(([^)#\s]+)/g)) {
      if (!/^https?:/.test(link)) follow(path.posix.join(path.posix.dirname(page), link))
    }
  }
  follow('README.md')
  t.deepEqual(
    guides.filter((page) => !linked.has(page)),
    [],
  )
})
