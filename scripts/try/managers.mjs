// The package managers: how each of them is called, without its caches or settings of this machine.

import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const write = (folder, name, text) => writeFileSync(path.join(folder, name), text)

/** What `yarn node` gives Node to find packages in yarn's archives. */
const PNP = ['--no-warnings', '--require', './.pnp.cjs', '--experimental-loader', './.pnp.loader.mjs']

/** Options that every npm and pnpm takes from its settings file. */
const npmrc = (url, cache) => `registry=${url}/\ncache=${cache}\naudit=false\nfund=false\nupdate-notifier=false\n`

/**
 * Each manager: the package that brings it and the file in it that Node runs, what prepares a project
 * for the registry at `url`, and the arguments that add the package and that run its command. `loader`:
 * options with which Node finds the packages.
 */
export const managers = [
  {
    name: 'npm',
    setUp: (folder, url, cache) => write(folder, '.npmrc', npmrc(url, cache)),
    add: ['install', 'fusion-sqlite'],
    run: ['exec', '--no', '--', 'fusion-sqlite'],
  },
  {
    name: 'pnpm',
    package: 'pnpm',
    command: 'bin/pnpm.mjs',
    setUp(folder, url, cache) {
      write(folder, '.npmrc', `${npmrc(url, cache)}store-dir=${cache}\n`)
      write(folder, 'pnpm-workspace.yaml', `registry: ${url}/\nstoreDir: ${cache}\n`)
    },
    add: ['add', 'fusion-sqlite'],
    run: ['exec', 'fusion-sqlite'],
  },
  {
    name: 'yarn classic',
    package: 'yarn',
    command: 'bin/yarn.js',
    setUp: (folder, url, cache) => write(folder, '.yarnrc', `registry "${url}/"\ncache-folder "${cache}"\n`),
    add: ['add', 'fusion-sqlite', '--non-interactive', '--no-progress'],
    run: ['--silent', 'run', 'fusion-sqlite'],
  },
  ...['node-modules', 'pnp'].map((linker) => ({
    name: `yarn 4, ${linker}`,
    package: '@yarnpkg/cli-dist',
    command: 'bin/yarn.js',
    setUp(folder, url, cache) {
      write(folder, 'yarn.lock', '')
      const settings = { npmRegistryServer: url, globalFolder: cache, nodeLinker: linker }
      const lines = Object.entries(settings).map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
      const more = [
        'pnpEnableEsmLoader: true',
        'unsafeHttpWhitelist: ["127.0.0.1"]',
        'enableTelemetry: false',
        'enableImmutableInstalls: false',
      ]
      write(folder, '.yarnrc.yml', `${[...lines, ...more].join('\n')}\n`)
    },
    add: ['add', 'fusion-sqlite'],
    run: ['run', 'fusion-sqlite'],
    loader: linker === 'pnp' ? PNP : [],
  })),
  {
    name: 'bun',
    package: 'bun',
    native: true,
    setUp: (folder, url, cache) =>
      write(folder, 'bunfig.toml', `[install]\nregistry = "${url}/"\n[install.cache]\ndir = "${cache}"\n`),
    add: ['add', 'fusion-sqlite'],
    run: ['x', '--no-install', 'fusion-sqlite'],
  },
]

for (const manager of managers) manager.loader ??= []

/** An empty project of `manager` in `folder`. */
export function project(manager, folder, url) {
  const made = path.join(folder, manager.name.replaceAll(/\W+/g, '-'))
  mkdirSync(made, { recursive: true })
  write(made, 'package.json', '{ "name": "app", "version": "1.0.0", "private": true }\n')
  manager.setUp(made, url, path.join(folder, 'cache', path.basename(made)))
  return made
}
