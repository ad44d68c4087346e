// Commits SQL to a database, or holds it, and is killed: what was committed stays in the WAL.
// Arguments: the file, and statements. Says `done` when they are carried out, then waits for its end.

import { DatabaseSync } from '../../index.mjs'
import { tell } from './lines.mjs'

const [file, ...statements] = process.argv.slice(2)
const db = new DatabaseSync(file)
db.exec('PRAGMA wal_autocheckpoint = 0')
for (const statement of statements) db.exec(statement)
tell('done')
process.stdin.resume()
process.stdin.on('end', () => db.close())
