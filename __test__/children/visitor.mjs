// A process that opens the database, inserts 200 rows through the package and closes it: "visit"
// once, "go" again and again until it is told to stop. "batches" go by appendAgentLogs, "rows" one
// by one by run(), "foreign" rows likewise but through node:sqlite, whose locks are POSIX locks.

import { DatabaseSync } from 'node:sqlite'
import { setImmediate as turn } from 'node:timers/promises'
import { HardenedDatabase, engineInfo } from '../../index.mjs'
import { acknowledgements, commands, tell, tellFailure } from './lines.mjs'

const [, , file, acknowledged, name, how] = process.argv
const acknowledge = acknowledgements(acknowledged)
const sql = "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', '2026-11-23', ?, 'text')"

async function visit(round) {
  const texts = Array.from({ length: 200 }, (_, row) => `${name} ${round}.${row}`)
  const db = how === 'foreign' ? new DatabaseSync(file, { timeout: 5000 }) : new HardenedDatabase(file)
  try {
    if (how !== 'batches') {
      const insert = db.prepare(sql)
      for (const text of texts) {
        insert.run(text)
        acknowledge([text])
      }
    } else {
      for (let at = 0; at < texts.length; at += 50) {
        const some = texts.slice(at, at + 50)
        await db.appendAgentLogs(some.map((text) => ({ taskId: 'T-1', type: 'text', text })))
        acknowledge(some)
      }
    }
  } finally {
    db.close()
  }
}

let going = true
let rounds = 0
async function visits(count) {
  for (let done = 0; done < count; done++) {
    if (!going) return
    await visit(++rounds).catch(tellFailure)
    tell('visited')
    // Synchronous visits leave no moment to read commands.
    await turn()
  }
}

let visiting
tell('ready', engineInfo())
for await (const command of commands()) {
  if (command === 'go') visiting = visits(Infinity)
  if (command === 'visit') visiting = visits(1)
  if (command === 'stop') break
}
going = false
await visiting
tell('done')
process.exit()
