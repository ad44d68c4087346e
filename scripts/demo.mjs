// `npm run demo`: installs and builds what is missing, then plays the demo under Node 24.

import { main, node24, prepare, run } from './bootstrap.mjs'

await main(() => {
  prepare()
  return run(node24, ['demo/demo.mjs', ...process.argv.slice(2)])
})
