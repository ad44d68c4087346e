// `npm run bench`: installs and builds what is missing, the benchmark's peers too, then measures
// under Node 24.

import path from 'node:path'
import { ensurePackages, main, node24, prepare, root, run } from './bootstrap.mjs'

await main(() => {
  prepare()
  ensurePackages(path.join(root, 'bench'))
  return run(node24, ['bench/bench.mjs', ...process.argv.slice(2)])
})
