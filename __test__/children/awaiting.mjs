// Awaits batches of 20 entries, as many as it is told to, and reports every tenth.
import { once } from 'node:events'
import { HardenedDatabase } from '../../index.js'

const [file, batches] = process.argv.slice(2)
const db = new HardenedDatabase(file)
const entries = Array.from({ length: 20 }, (_, i) => ({ taskId: 'T', text: `row ${i}`, type: 'text' }))
process.send('ready')
await once(process, 'message')
for (let done = 1; done <= Number(batches); done++) {
  await db.appendAgentLogs(entries)
  if (done % 10 === 0) process.send(done)
}
await db.closeAsync()
process.disconnect()
