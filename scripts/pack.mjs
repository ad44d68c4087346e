// `npm run pack`: makes what is published, in npm/: a folder and a tarball for each platform and for
// fusion-sqlite itself, whose optionalDependencies name the platforms' packages in this version.
// Refuses where a platform's binary is missing (build:target makes them; the release workflow brings
// them from its runners). `npm run pack -- --try` packs what there is, to try it.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { addons } from './build-target.mjs'
import { SetupError, main, npm, root } from './bootstrap.mjs'
import { bundle, outside, stub } from './bundle.mjs'
import { notices } from './notices.mjs'
import { hostTarget, manifest, targets } from './targets.mjs'

const DESTINATION = path.join(root, 'npm')

/** Files as they are; modules that stay outside of the bundle; modules of it that have a path. */
const DOCUMENTS = ['README', 'CHANGELOG', 'ARCHITECTURE', 'CONTRIBUTING', 'RELEASING', 'SECURITY'].map(
  (name) => `${name}.md`,
)
const COPIED = [...DOCUMENTS, 'LICENSE', 'docs', 'index.mjs', 'register.mjs', 'with-binding.mjs']
const TYPES = ['index', 'register', 'with-binding'].flatMap((name) => [`${name}.d.ts`, `${name}.d.mts`])
const OUTSIDE = ['register.js', 'bin/fusion-sqlite.js']
const STUBS = ['with-binding.js', 'lib/node-sqlite.js']
/** What OUTSIDE requires. */
const ENTRIES = [
  ...STUBS,
  'lib/original-node-sqlite.js',
  'lib/node-sqlite-locks.js',
  'lib/doctor/main.js',
  'lib/doctor/exit-codes.js',
  'lib/shown.js',
]

/** Of package.json: what users of the package need. */
const FIELDS = ['name', 'version', 'description', 'keywords', 'license', 'author', 'type', 'main', 'module', 'types']
const MORE_FIELDS = ['bin', 'exports', 'sideEffects', 'engines']

const pick = (fields) =>
  Object.fromEntries(fields.filter((name) => name in manifest).map((name) => [name, manifest[name]]))

/** Where the sources are: as package.json says, else the workflow, else the clone. */
function repositoryUrl() {
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository } = process.env
  if (manifest.repository) return manifest.repository.url
  if (server && repository) return `git+${server}/${repository}.git`
  const { status, stdout } = spawnSync('git', ['remote', 'get-url', 'origin'], { cwd: root, encoding: 'utf8' })
  const url = status === 0 ? stdout.trim() : ''
  return url.startsWith('https://') ? `git+${url.replace(/(\.git)?$/, '.git')}` : undefined
}

/** repository, homepage and bugs; npm compares the first with the workflow that publishes. */
function addresses() {
  const url = repositoryUrl()
  if (url === undefined) return {}
  const page = url.replace(/^git\+/, '').replace(/\.git$/, '')
  return { repository: { type: 'git', url }, homepage: `${page}#readme`, bugs: { url: `${page}/issues` } }
}

const writeJson = (file, value) => writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`)

/** The addon of `target`: built for it, or, on the platform itself, by `npm run build`. */
export function addonOf(target) {
  return [path.join(addons, target.addon), path.join(root, target.addon)].find(existsSync)
}

function stagePlatform(into, target, addon, thirdParty) {
  const folder = path.join(into, target.name)
  mkdirSync(folder, { recursive: true })
  const { os, cpu, libc } = target
  writeJson(path.join(folder, 'package.json'), {
    ...pick(['version', 'license', 'author', 'engines']),
    name: target.packageName,
    description: `The binary of fusion-sqlite for ${target.triple}`,
    ...addresses(),
    os: [os],
    cpu: [cpu],
    ...(libc === undefined ? {} : { libc: [libc] }),
    main: target.addon,
    files: [target.addon, 'THIRD-PARTY-NOTICES.md'],
    preferUnplugged: true,
  })
  const text = `# ${target.packageName}\n\nThe binary of \`fusion-sqlite\` for ${target.triple}. Install \`fusion-sqlite\`, which brings it.\n`
  writeFileSync(path.join(folder, 'README.md'), text)
  writeFileSync(path.join(folder, 'THIRD-PARTY-NOTICES.md'), thirdParty)
  cpSync(path.join(root, 'LICENSE'), path.join(folder, 'LICENSE'))
  if (addon !== undefined) cpSync(addon, path.join(folder, target.addon))
  return folder
}

function stageMain(into, thirdParty) {
  const folder = path.join(into, manifest.name)
  const files = { ...bundle(ENTRIES), 'THIRD-PARTY-NOTICES.md': thirdParty }
  for (const id of OUTSIDE) files[id] = outside(id)
  for (const id of STUBS) files[id] = stub(id)
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
    writeFileSync(path.join(folder, name), text)
  }
  const copied = [...COPIED, ...TYPES, 'binding.d.ts']
  for (const name of copied) cpSync(path.join(root, name), path.join(folder, name), { recursive: true })
  writeJson(path.join(folder, 'package.json'), {
    ...pick(FIELDS),
    ...addresses(),
    ...pick(MORE_FIELDS),
    files: [...new Set([...Object.keys(files), ...copied])].toSorted(),
    optionalDependencies: Object.fromEntries(targets.map(({ packageName }) => [packageName, manifest.version])),
  })
  return folder
}

/**
 * Fills the folder `into`; returns the packages, each with its folder, and the platforms without a
 * binary. With `incomplete` their packages are made all the same, else it is an error.
 */
export function stage({ incomplete = false, only = targets, into = DESTINATION } = {}) {
  const missing = targets.filter((target) => !only.includes(target) || addonOf(target) === undefined)
  if (missing.length > 0 && !incomplete) {
    const names = missing.map(({ triple }) => triple).join(', ')
    throw new SetupError(`no binary for: ${names}. Make each of them: npm run build:target -- TRIPLE`)
  }
  rmSync(into, { recursive: true, force: true })
  const thirdParty = notices()
  const packages = targets.map((target) => {
    const addon = missing.includes(target) ? undefined : addonOf(target)
    return { target, name: target.packageName, folder: stagePlatform(into, target, addon, thirdParty) }
  })
  packages.push({ name: manifest.name, folder: stageMain(into, thirdParty) })
  return { packages, missing }
}

/** The same, packed: each package with its tarball, too. */
export function pack({ into = DESTINATION, ...options } = {}) {
  const { packages, missing } = stage({ into, ...options })
  const code = npm(
    ['pack', '--loglevel=error', '--pack-destination', into, ...packages.map(({ folder }) => folder)],
    root,
    { quiet: true },
  )
  if (code !== 0) throw new SetupError(`npm pack failed with code ${code}`)
  for (const one of packages) one.tarball = path.join(into, `${one.name}-${manifest.version}.tgz`)
  return { packages, missing }
}

/** Lays the package and this platform's binary out in `folder` as npm does; returns the package's folder. */
export function layOut(folder) {
  const { packages } = stage({ into: path.join(folder, 'staged'), only: [hostTarget()], incomplete: true })
  const modules = path.join(folder, 'node_modules')
  rmSync(modules, { recursive: true, force: true })
  for (const { name, folder: from, target } of packages) {
    if (target === undefined || target.name === hostTarget().name)
      cpSync(from, path.join(modules, name), { recursive: true })
  }
  return path.join(modules, manifest.name)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main(() => {
    const { missing } = pack({ incomplete: process.argv.includes('--try') })
    for (const { triple } of missing) console.log(`without a binary: ${triple}`)
    return 0
  })
}
