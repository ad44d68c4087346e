// `npm run release -- VERSION`: writes the version into every file that has one, dates the changelog,
// commits, and tags. Pushing the tag publishes (.github/workflows/release.yml).

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { SetupError, main, root, run } from './bootstrap.mjs'
import { manifest } from './targets.mjs'

/** Where the version stands: a file and the text before it, which must be there. */
const places = [
  ['package.json', '"name": "fusion-sqlite",\n  "version": "'],
  ['package-lock.json', '{\n  "name": "fusion-sqlite",\n  "version": "'],
  ['package-lock.json', '"": {\n      "name": "fusion-sqlite",\n      "version": "'],
  ['Cargo.toml', 'name = "fusion-sqlite"\nversion = "'],
  ['Cargo.lock', 'name = "fusion-sqlite"\nversion = "'],
  ['fuzz/Cargo.lock', 'name = "fusion-sqlite"\nversion = "'],
]

function replace(name, before, after) {
  const file = path.join(root, name)
  const text = readFileSync(file, 'utf8')
  if (!text.includes(before)) throw new SetupError(`${name} has not the expected text: ${JSON.stringify(before)}`)
  writeFileSync(file, text.replace(before, after))
}

function git(...args) {
  const code = run('git', args)
  if (code !== 0) throw new SetupError(`git ${args[0]} failed with code ${code}`)
}

await main(() => {
  const version = process.argv[2] ?? ''
  if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) throw new SetupError('name a version: npm run release -- 1.2.3')
  git('diff', '--quiet', 'HEAD')
  for (const [name, before] of places) replace(name, `${before}${manifest.version}"`, `${before}${version}"`)
  const today = new Date().toISOString().slice(0, 10)
  replace('CHANGELOG.md', `## [${version}] - unreleased\n`, `## [${version}] - ${today}\n`)
  git('commit', '--all', '--quiet', '--message', `release: ${version}`)
  git('tag', `v${version}`)
  console.log(`tagged v${version}; to publish: git push --follow-tags origin HEAD v${version}`)
  return 0
})
