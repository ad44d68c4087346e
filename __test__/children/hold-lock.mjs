// Holds the write lock of a database (or what else a statement takes) until it is told to release it,
// or its parent is gone.
import { DatabaseSync } from 'node:sqlite'
import { createInterface } from 'node:readline'

const db = new DatabaseSync(process.argv[2], { timeout: 10_000 })
db.exec(process.argv[3] ?? 'BEGIN IMMEDIATE')
console.log('locked')
await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()
db.exec('COMMIT')
console.log('released')
db.close()
process.exit()
