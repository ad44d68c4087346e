// Words that hide what a sentence is about, in place of a noun or an active verb (CONTRIBUTING.md, "Words").
// `node scripts/words.mjs` lists where they are and fails if there is one.

import { readFileSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { main, root } from './bootstrap.mjs'

export const WORDS = ['told', 'tell', 'tells', 'anew', 'beside', 'bereft', 'nobody', 'somebody', 'whoever']
export const PHRASES = ['is none', 'by itself']

/** docs/api.md is made from index.d.ts, which is counted. */
const GENERATED = 'docs/api.md'
const PLACES = ['src', 'lib', 'docs', 'README.md', 'index.d.ts']
const pattern = new RegExp(`\\b(?:${[...WORDS, ...PHRASES].join('|').replaceAll(' ', '\\s+')})\\b`, 'gi')

function files(name) {
  const file = path.join(root, name)
  if (!statSync(file).isDirectory()) return [name]
  return readdirSync(file, { recursive: true })
    .map((inner) => path.posix.join(name, inner.replaceAll('\\', '/')))
    .filter((inner) => inner !== GENERATED && /\.(rs|c|js|mjs|ts|md)$/.test(inner))
}

/** Each occurrence below `places`: its file, line and word. */
export function occurrences(places = PLACES) {
  return places.flatMap(files).flatMap((file) => {
    const text = readFileSync(path.join(root, file), 'utf8')
    return [...text.matchAll(pattern)].map(({ 0: word, index }) => ({
      file,
      line: text.slice(0, index).split('\n').length,
      word,
    }))
  })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main(() => {
    const found = occurrences()
    for (const { file, line, word } of found) console.log(`${file}:${line}: ${word}`)
    console.log(`${found.length} of the words`)
    return found.length === 0 ? 0 : 1
  })
}
