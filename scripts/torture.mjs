// `npm run torture`: installs and builds what is missing, better-sqlite3 too, then runs the torture under Node 24.
// See docs/reliability.md; `npm run torture -- --help` lists the options.

import path from 'node:path'
import { ensurePackages, main, node24, prepare, root, run } from './bootstrap.mjs'

await main(() => {
  prepare()
  ensurePackages(path.join(root, 'bench'))
  return run(node24, ['--disable-warning=ExperimentalWarning', 'torture/torture.mjs', ...process.argv.slice(2)])
})
