// Prints what a process with another SQLite finds in a database.
import { DatabaseSync } from 'node:sqlite'

const db = new DatabaseSync(process.argv[2], { timeout: 10_000 })
const texts = db.prepare('SELECT text FROM agentLogEntries ORDER BY id').all()
console.log(
  JSON.stringify({
    texts: texts.map((row) => row.text),
    integrity: db.prepare('PRAGMA integrity_check').get().integrity_check,
    lastModified: Number(db.prepare(`SELECT value FROM __meta WHERE key = 'lastModified'`).get().value),
  }),
)
db.close()
