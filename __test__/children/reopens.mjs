// A process that has the database open, opens the file that was put in its place when asked, and appends to it.

import { HardenedDatabase } from '../../index.mjs'
import { commands, tell, tellFailure } from './lines.mjs'

const [, , file, name] = process.argv
const db = new HardenedDatabase(file, { checkpointIdle: 600_000 })
db.on('replaced', () => {})
const append = (text) => db.appendAgentLogs([{ taskId: 'T-1', type: 'text', text }])
await append(`${name} before`)
tell('ready')
for await (const command of commands()) {
  if (command === 'stop') break
  try {
    db.reopen()
    await append(`${name} after`)
    tell('reopened')
  } catch (error) {
    tellFailure(error)
  }
}
await db.closeAsync()
process.exit()
