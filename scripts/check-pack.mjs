// Runs before `npm pack` and `npm publish`: every file that package.json promises must be there.

import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { main, root } from './bootstrap.mjs'

await main(() => {
  const { files } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
  const missing = files.filter((file) => file !== 'lib' && !existsSync(path.join(root, file)))
  if (missing.length === 0) return 0
  console.error(`error: not in the package: ${missing.join(', ')}. Run: npm run build`)
  return 1
})
