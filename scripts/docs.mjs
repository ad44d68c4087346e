// `npm run docs`: writes docs/api.md from the types, index.d.ts and what it exports of binding.d.ts. Each export
// gets a heading, its comment as text, and its declaration with the comments of its members.
// `--check` writes nothing and fails if the committed page is another.

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import prettier from 'prettier'
import { main, root } from './bootstrap.mjs'

const PAGE = 'docs/api.md'

/** The sections of the page: what each holds, by how a declaration begins. */
const SECTIONS = [
  ['Classes', /^class /],
  ['Functions', /^function /],
  ['Constants', /^const /],
  ['Options', /^(?:interface|type) \w*(?:Options|Schedule|ForeignHandles)\b/],
  ['Other types', /^(?:interface|type) /],
]

const HEAD = `# API

Generated from the types by \`npm run docs\`. Types, units, defaults and errors are in the comments; [Options](options.md)
and [Errors](errors.md) have them as tables. Everything runs on the thread that calls it, unless it returns a promise.
`

const read = (name) => readFileSync(path.join(root, name), 'utf8')

/** A comment as text: without its stars, \`@param\`, \`@returns\` and \`@throws\` as sentences. */
function prose(comment) {
  return comment
    .replace(/^\/\*\*\s?|\s*\*\/$/g, '')
    .replaceAll(/^ *\* ?/gm, '')
    .replaceAll(/@param (\w+) /g, '- `$1`: ')
    .replaceAll(/@returns /g, '- Returns ')
    .replaceAll(/@throws /g, '- Throws ')
    .replaceAll(/^# (.*)$/gm, '**$1:**')
    .trim()
}

/** The exports of a file of types, in its order: \`{ name, comment, declaration }\`. */
function exportsOf(text) {
  const found = text.matchAll(
    /^(?<comment>\/\*\*(?:(?!\*\/)[^])*\*\/\n)?(?:export (?:declare )?)(?<declaration>(?:class|function|const|interface|type) (?<name>\w+)[^]*?)(?=\n\n(?:\/\*\*|export |type )|\nexport |$(?![^]))/gm,
  )
  return [...found].map(({ groups: { name, declaration, comment = '' } }) => ({
    name,
    declaration,
    comment: prose(comment),
  }))
}

/** What index.d.ts exports: its own declarations, and those that it takes from binding.d.ts. */
function allExports() {
  const own = read('index.d.ts')
  const [, names = ''] = /^export \{([^}]*)\} from '\.\/binding\.js'/m.exec(own) ?? []
  const taken = new Set(names.split(',').map((name) => name.replace('type', '').trim()))
  return [...exportsOf(own), ...exportsOf(read('binding.d.ts')).filter(({ name }) => taken.has(name))]
}

/** One export; overloads of a function are one. */
function chapter(name, declarations) {
  const { comment } = declarations.find((one) => one.comment !== '') ?? { comment: '' }
  const code = declarations.map(({ declaration }) => declaration.trim()).join('\n')
  return `### ${name}\n\n${comment}\n\n\`\`\`ts not run: a declaration\n${code}\n\`\`\`\n`
}

export async function page() {
  const left = new Map()
  for (const one of allExports()) left.set(one.name, [...(left.get(one.name) ?? []), one])
  const parts = [HEAD]
  for (const [title, start] of SECTIONS) {
    const chapters = [...left].filter(([, [first]]) => start.test(first.declaration))
    for (const [name] of chapters) left.delete(name)
    const links = chapters.map(([name]) => `[${name}](#${name.toLowerCase()})`).join(' · ')
    parts.push(`## ${title}\n\n${links}\n`, ...chapters.map(([name, declarations]) => chapter(name, declarations)))
  }
  if (left.size > 0) throw new Error(`exports without a section: ${[...left.keys()].join(', ')}`)
  const options = await prettier.resolveConfig(path.join(root, PAGE))
  return prettier.format(parts.join('\n'), { ...options, parser: 'markdown' })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main(async () => {
    const text = await page()
    if (!process.argv.includes('--check')) writeFileSync(path.join(root, PAGE), text)
    else if (read(PAGE) !== text) {
      console.error(`${PAGE} is not what the types say: run npm run docs and commit it`)
      return 1
    }
    return 0
  })
}
