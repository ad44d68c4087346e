// Publishes what `npm run pack` made: the platforms' packages first, so that the package never names
// one that is not there. What the registry has already is left out: the step can be run again.
// `--dry-run` publishes nothing.

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { SetupError, main, npm, root } from './bootstrap.mjs'
import { manifest, targets } from './targets.mjs'

const dryRun = process.argv.includes('--dry-run')

function isPublished(name) {
  const args = ['view', `${name}@${manifest.version}`, 'version', '--loglevel=silent']
  const { stdout } = spawnSync('npm', args, { cwd: root, encoding: 'utf8', shell: process.platform === 'win32' })
  return stdout?.trim() === manifest.version
}

await main(() => {
  const tag = process.env.GITHUB_REF_NAME
  if (!dryRun && tag !== `v${manifest.version}`) {
    throw new SetupError(`the tag is ${tag ?? 'not known'}, and the version ${manifest.version}`)
  }
  for (const name of [...targets.map(({ packageName }) => packageName), manifest.name]) {
    const tarball = path.join(root, 'npm', `${name}-${manifest.version}.tgz`)
    if (!existsSync(tarball)) throw new SetupError(`${path.relative(root, tarball)} is missing: npm run pack`)
    if (!dryRun && isPublished(name)) {
      console.log(`${name} ${manifest.version} is published`)
      continue
    }
    const how = dryRun ? ['--dry-run'] : ['--provenance']
    const code = npm(['publish', tarball, '--access', 'public', '--loglevel=error', ...how], root)
    if (code !== 0) throw new SetupError(`publishing ${name} failed with code ${code}`)
  }
  return 0
})
