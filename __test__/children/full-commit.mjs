// A process whose files may not grow beyond a size: every COMMIT of the log fails before it wrote its last frame, and
// what was accepted is taken back.
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { HardenedDatabase } from '../../index.mjs'

const [, , file, room] = process.argv
const entries = (count) =>
  Array.from({ length: count }, (_, i) => ({ taskId: 'T', text: `${i}`, type: 'text', detail: 'd'.repeat(400) }))
const limit = (bytes) => execFileSync('prlimit', [`--pid=${process.pid}`, `--fsize=${bytes}:`])

const db = new HardenedDatabase(file, { checkpointIdle: 600_000, checkpointFrames: 1_000_000 })
await db.appendAgentLogs(entries(1))
limit(statSync(`${file}-wal`).size + Number(room))
// Several attempts: each leaves in the WAL what the next one writes over.
const failed = new Promise((resolve) => db.on('error', resolve))
const told = db.appendAgentLogs(entries(200)).then(
  () => 'committed',
  (error) => error.code,
)
await failed
while (db.stats().failures < 3) await new Promise((resolve) => setTimeout(resolve, 10))
const taken = db.takePending().length
limit('unlimited')
console.log(JSON.stringify([taken, await told, db.stats().state]))
await db.closeAsync()
