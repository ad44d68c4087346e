// A process whose files may not grow beyond a size, for as long as it says so: a COMMIT fails in
// the middle of being written down.

import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { HardenedDatabase } from '../../index.mjs'
import { tell } from './lines.mjs'

const [file] = process.argv.slice(2)
const db = new HardenedDatabase(file, { checkpointIdle: 600_000, checkpointFrames: 1_000_000 })
const entries = (name, count) =>
  Array.from({ length: count }, (_, i) => ({
    taskId: 'T-1',
    text: `${name} ${i}`,
    type: 'text',
    detail: 'd'.repeat(500),
  }))
await db.appendAgentLogs(entries('before', 10))

function limit(bytes) {
  execFileSync('prlimit', [`--pid=${process.pid}`, `--fsize=${bytes}:`])
}
function failure(body) {
  try {
    body()
    return 'done'
  } catch (error) {
    return [error.code, error.errcode, db.isTransaction]
  }
}

const events = []
let error
const failed = new Promise((resolve) => {
  for (const event of ['error', 'corrupt', 'healed']) {
    db.on(event, (cause) => {
      if (events.at(-1) !== event) events.push(event)
      error = cause.errcode
      resolve()
    })
  }
})
const insert = db.prepare("INSERT INTO tasks (id, description, createdAt, updatedAt) VALUES (?, ?, '', '')")
const description = 'x'.repeat(50_000)
limit(statSync(`${file}-wal`).size + 8192)
db.exec('BEGIN')
insert.run('T-100', description)
const committed = failure(() => db.exec('COMMIT'))
const appended = failure(() => insert.run('T-100', description))
const receipt = db.appendAgentLogs(entries('meanwhile', 30))
await failed
limit('unlimited')
const { committed: rows } = await receipt
insert.run('T-100', description)
const { tasks } = db.prepare("SELECT count(*) AS tasks FROM tasks WHERE id = 'T-100'").get()
await db.closeAsync()
tell('done', { committed, appended, error, events, again: [rows, tasks] })
