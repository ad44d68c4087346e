// One run in a process of its own, which has the judge's node:sqlite: `node run-one.mjs JSON`. Prints the result.

import { runCell } from './run.mjs'

const result = await runCell(JSON.parse(process.argv[2]))
console.log(JSON.stringify(result))
process.exit()
