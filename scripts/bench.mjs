// `npm run bench`: installs and builds what is missing, the benchmark's peers too, then measures
// under Node 24. `npm run bench -- sqlite` measures DatabaseSync instead of the agent logs,
// `npm run bench -- recovery` the salvage of damaged databases, `npm run bench -- start` the way to
// the first row.

import path from 'node:path'
import { ensurePackages, main, node24, prepare, root, run } from './bootstrap.mjs'
import { layOut } from './pack.mjs'

await main(() => {
  prepare()
  const args = process.argv.slice(2)
  // Its peer is no package.
  if (args[0] === 'recovery') return run(node24, ['bench/recovery.mjs', ...args.slice(1)])
  ensurePackages(path.join(root, 'bench'))
  if (args[0] === 'start') {
    const given = args.includes('--package') ? [] : ['--package', layOut(path.join(root, 'target', 'start'))]
    return run(node24, ['bench/start.mjs', ...given, ...args.slice(1)])
  }
  return args[0] === 'sqlite'
    ? run(node24, ['bench/sqlite.mjs', ...args.slice(1)])
    : run(node24, ['bench/bench.mjs', ...args])
})
