// A process that appends to a database, one entry after the other, through whatever happens to it.
// Texts are "name number"; each is told once it is acknowledged. Commands: pause, truncate (the
// WAL), go on, stop.

import { HardenedDatabase } from '../../index.mjs'
import { commands, tell, tellFailure } from './lines.mjs'

const [, , file, name] = process.argv
const db = new HardenedDatabase(file)
for (const event of ['error', 'corrupt', 'replaced']) db.on(event, tellFailure)
db.on('recovering', ({ findings }) => tell('recovering', { findings: findings.map(({ type }) => type) }))
db.on('recovered', (report) => tell('recovered', { report }))

let number = 0
let going = true
let paused = Promise.resolve()

async function append() {
  for (;;) {
    if (!going) return
    const text = `${name} ${number++}`
    const { committed } = await db.appendAgentLogs([{ taskId: 'T', type: 'text', text }])
    tell('appended', { text, committed })
  }
}

tell('ready')
for await (const command of commands()) {
  if (command === 'go on') {
    going = true
    paused = append().catch(tellFailure)
  } else {
    going = false
    await paused
    if (command === 'truncate') tell('truncated', await db.checkpoint('truncate'))
    if (command === 'pause') tell('paused')
    if (command === 'stop') break
  }
}
await db.closeAsync()
tell('done')
process.exit()
