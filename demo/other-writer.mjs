// Another process that opens the database, inserts a few rows and closes it, again and again.
// Prints how many rows it committed.

import { setTimeout as sleep } from 'node:timers/promises'
import { HardenedDatabase } from '../index.mjs'

const [, , file, taskId] = process.argv
const rounds = 10
const rowsPerRound = 20

for (let round = 0; round < rounds; round += 1) {
  const db = new HardenedDatabase(file)
  const insert = db.prepare('INSERT INTO agentLogEntries(taskId, timestamp, text, type) VALUES (?, ?, ?, ?)')
  for (let row = 0; row < rowsPerRound; row += 1) {
    insert.run(taskId, new Date().toISOString(), `round ${round}, row ${row}`, 'text')
  }
  await db.closeAsync()
  await sleep(5)
}
console.log(rounds * rowsPerRound)
