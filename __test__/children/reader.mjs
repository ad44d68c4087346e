// A process that holds a read transaction open until it is told to stop.

import { HardenedDatabase } from '../../index.mjs'
import { commands, tell } from './lines.mjs'

const db = new HardenedDatabase(process.argv[2], { readOnly: true })
db.exec('BEGIN')
const { rows } = db.prepare('SELECT count(*) AS rows FROM agentLogEntries').get()
tell('reading', { rows })
for await (const command of commands()) if (command === 'stop') break
db.exec('COMMIT')
db.close()
tell('done')
process.exit()
