// Ends the process in the way that is asked for, with an entry that nobody waited for.
import { setTimeout as pause } from 'node:timers/promises'
import { HardenedDatabase } from '../../index.mjs'

const [, , file, way] = process.argv
const db = new HardenedDatabase(file)
db.appendAgentLog({ taskId: 'T', text: way, type: 'text' })
if (way === 'process.exit') process.exit(7)
if (way === 'exception') setTimeout(() => { throw new Error('on purpose') }) // prettier-ignore
if (way === 'rejection') Promise.reject(new Error('on purpose'))
if (way === 'signal') {
  process.on('SIGTERM', () => process.exit(8))
  process.kill(process.pid, 'SIGTERM')
  await pause(10_000)
}
