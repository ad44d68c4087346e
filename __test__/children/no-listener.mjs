// Failures that nobody listens to: of a log without a schema, and of an entry of no task.
import { once } from 'node:events'
import { HardenedDatabase } from '../../index.js'

const [, , withoutSchema, withSchema] = process.argv
const entry = { taskId: 'gone', text: 'x', type: 'text' }
const db = new HardenedDatabase(withoutSchema)
db.exec('CREATE TABLE mine (x)')
db.appendAgentLog(entry)
const told = db.flushAgentLogs()
await once(process, 'warning')
db.takePending()
await told
db.close()
const other = new HardenedDatabase(withSchema)
other.appendAgentLog(entry)
const warned = once(process, 'warning')
await other.flushAgentLogs()
await warned
other.close()
console.log('still alive')
