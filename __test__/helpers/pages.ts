// The pages that a person reads, as the tests of the documents see them.

import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { root } from '../../scripts/bootstrap.mjs'

export const read = (...names: string[]): string => readFileSync(path.join(root, ...names), 'utf8')

function pagesIn(folder: string, recursive = false): string[] {
  return readdirSync(path.join(root, folder), { recursive })
    .map((name) => path.posix.join(folder, String(name).replaceAll('\\', '/')))
    .filter((name) => name.endsWith('.md'))
    .toSorted()
}

/** Every page that links to others. */
export const pages = [...pagesIn('.'), ...pagesIn('docs', true), ...pagesIn('.github', true), 'fuzz/README.md']

/** The pages of those who use the package. */
export const guides = pages.filter((page) => page === 'README.md' || page.startsWith('docs/'))

export interface Fence {
  page: string
  line: number
  language: string
  /** What follows the language: the name of a file, or `not run: ` and the reason. */
  info: string
  text: string
}

/** The fenced blocks of a page, in its order. */
export function fences(page: string): Fence[] {
  const text = read(page)
  return [...text.matchAll(/^```(?<language>\w+)?(?<info>[^\n]*)\n(?<text>[^]*?)^```$/gm)].map((match) => ({
    page,
    line: text.slice(0, match.index).split('\n').length,
    language: match.groups?.language ?? '',
    info: (match.groups?.info ?? '').trim(),
    text: match.groups?.text ?? '',
  }))
}

/** The text of a page without its code, whose brackets are no links. */
export const withoutCode = (text: string): string =>
  text.replaceAll(/^```[^]*?^```$/gm, '').replaceAll(/(`+)[^]*?\1/g, '')

/** The anchors of a page's headings, as GitHub makes them. */
export function anchors(page: string): Set<string> {
  const made = new Map<string, number>()
  const found = new Set<string>()
  for (const [, heading = ''] of read(page)
    .replaceAll(/^```[^]*?^```$/gm, '')
    .matchAll(/^#{1,6} (.*)$/gm)) {
    const plain = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase()
    const slug = plain.replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-')
    const times = made.get(slug) ?? 0
    made.set(slug, times + 1)
    found.add(times === 0 ? slug : `${slug}-${times}`)
  }
  return found
}
