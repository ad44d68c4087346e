// THIRD-PARTY-NOTICES.md: the licences of what the binary is linked from, as its crates come with them.

import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { SetupError, root } from './bootstrap.mjs'

function metadata() {
  const { status, stdout, stderr, error } = spawnSync('cargo', ['metadata', '--locked', '--format-version', '1'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  if (error || status !== 0) throw new SetupError(`cargo metadata failed: ${error?.message ?? stderr}`)
  return JSON.parse(stdout)
}

/** The crates that are linked: what the package depends on, but for build scripts, tests and macros. */
function linkedCrates() {
  const { packages, resolve } = metadata()
  const byId = new Map(packages.map((crate) => [crate.id, crate]))
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]))
  const isMacro = (id) => byId.get(id).targets.some(({ kind }) => kind.includes('proc-macro'))
  const found = new Set([resolve.root])
  for (const id of found) {
    for (const { pkg, dep_kinds: kinds } of nodes.get(id).deps) {
      if (kinds.some(({ kind }) => kind === null) && !isMacro(pkg)) found.add(pkg)
    }
  }
  found.delete(resolve.root)
  return [...found].map((id) => byId.get(id)).toSorted((a, b) => a.name.localeCompare(b.name))
}

/** The text of a crate's licence; MIT's where it offers a choice. */
function licenceText({ manifest_path: manifest }) {
  const folder = path.dirname(manifest)
  const files = readdirSync(folder).filter((name) => /^(licen[cs]e|copying|unlicense)/i.test(name))
  const chosen = files.find((name) => /mit/i.test(name)) ?? files.toSorted()[0]
  return chosen === undefined ? undefined : readFileSync(path.join(folder, chosen), 'utf8').trim()
}

const FIXED = `SQLite is in the public domain: https://sqlite.org/copyright.html

The Rust standard library is Copyright (c) The Rust Project Contributors, under the MIT licence or the Apache License,
Version 2.0.`

/** The whole text. Crates with the same licence text share it. */
export function notices() {
  const byText = new Map()
  for (const crate of linkedCrates()) {
    const text = licenceText(crate) ?? `The crate comes with no text. It is licensed as: ${crate.license}.`
    const name = `${crate.name} ${crate.version} (${crate.license})`
    byText.set(text, [...(byText.get(text) ?? []), name])
  }
  const sections = [...byText].map(([text, crates]) => `## ${crates.join(', ')}\n\n\`\`\`text\n${text}\n\`\`\``)
  const head = '# What the binary of fusion-sqlite is made of'
  return `${[head, FIXED, ...sections].join('\n\n')}\n`
}
