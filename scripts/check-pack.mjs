// `prepack` of this folder: it holds sources, and a package of them would run nowhere.

import { SetupError, main } from './bootstrap.mjs'

await main(() => {
  throw new SetupError('this folder is not the package: npm run pack makes it, with the binary of every platform')
})
