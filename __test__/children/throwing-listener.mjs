// A listener that throws at each event, among entries that must be stored all the same.
import { HardenedDatabase } from '../../index.js'

const db = new HardenedDatabase(process.argv[2], { linger: 0 })
let caught = 0
process.on('uncaughtException', (error) => {
  if (error.message !== 'from the listener') throw error
  caught++
})
db.on('rejected', () => {
  throw new Error('from the listener')
})
const bad = { taskId: 'gone', text: 'x', type: 'text' }
for (const text of ['a', 'b', 'c']) {
  db.appendAgentLog({ taskId: 'T', text, type: 'text' })
  db.appendAgentLog(bad)
}
const receipt = await db.appendAgentLogs([{ taskId: 'T', text: 'd', type: 'text' }])
await db.flushAgentLogs()
console.log(`caught ${caught}`, receipt)
db.close()
