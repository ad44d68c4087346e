// `npm run bench`: installs and builds what is missing, the benchmark's peers too, then measures
// under Node 24. `npm run bench -- await` measures appends that are awaited, in one process and in
// four, `npm run bench -- open` what many databases and short processes cost, `npm run bench -- sqlite`
// DatabaseSync, `npm run bench -- recovery` the salvage of damaged databases, `npm run bench -- start`
// the way to the first row.

import path from 'node:path'
import { SetupError, ensurePackages, main, node24, prepare, root, run, tool } from './bootstrap.mjs'
import { layOut } from './pack.mjs'

const release = ['build', '--platform', '--release', '--no-js', '--dts', 'binding.d.ts']

await main(() => {
  prepare()
  // The addon may be newer than its sources and not made for speed.
  if (run(node24, [tool.napi, ...release]) !== 0) throw new SetupError('the release build failed')
  const args = process.argv.slice(2)
  // Its peer is no package.
  if (args[0] === 'recovery') return run(node24, ['bench/recovery.mjs', ...args.slice(1)])
  ensurePackages(path.join(root, 'bench'))
  if (args[0] === 'start') {
    const given = args.includes('--package') ? [] : ['--package', layOut(path.join(root, 'target', 'start'))]
    return run(node24, ['bench/start.mjs', ...given, ...args.slice(1)])
  }
  return ['await', 'open', 'sqlite'].includes(args[0])
    ? run(node24, [`bench/${args[0]}.mjs`, ...args.slice(1)])
    : run(node24, ['bench/bench.mjs', ...args])
})
