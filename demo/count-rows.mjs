// Counts the log rows of a database, for a second opinion from another process.

import { HardenedDatabase } from '../index.mjs'

const db = new HardenedDatabase(process.argv[2])
console.log(db.prepare('SELECT count(*) AS rows FROM agentLogEntries').get().rows)
await db.closeAsync()
