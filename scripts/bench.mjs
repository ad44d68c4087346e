// `npm run bench`: installs and builds what is missing, the benchmark's peers too, then measures
// under Node 24. `npm run bench -- sqlite` measures DatabaseSync instead of the agent logs,
// `npm run bench -- open` what many databases and short processes cost, `npm run bench -- recovery` the salvage of damaged databases.

import path from 'node:path'
import { ensurePackages, main, node24, prepare, root, run } from './bootstrap.mjs'

await main(() => {
  prepare()
  const args = process.argv.slice(2)
  // Its peer is no package.
  if (args[0] === 'recovery') return run(node24, ['bench/recovery.mjs', ...args.slice(1)])
  ensurePackages(path.join(root, 'bench'))
  return ['sqlite', 'open'].includes(args[0])
    ? run(node24, [`bench/${args[0]}.mjs`, ...args.slice(1)])
    : run(node24, ['bench/bench.mjs', ...args])
})
