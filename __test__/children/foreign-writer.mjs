// A program that knows nothing of this package: writes rows with node:sqlite, a transaction each.
import { once } from 'node:events'
import { DatabaseSync } from 'node:sqlite'

const [file, rows] = process.argv.slice(2)
const db = new DatabaseSync(file, { timeout: 5000 })
db.exec('CREATE TABLE foreignRows (value)')
const insert = db.prepare('INSERT INTO foreignRows VALUES (?)')
process.send('ready')
await once(process, 'message')
for (let i = 0; i < Number(rows); i++) insert.run(i)
db.close()
process.disconnect()
