// Appends to a database whose rollback journal is kept, in batches of 5, until it is killed or has
// written as many as it was asked for; each is acknowledged by a line once it is committed.

import { HardenedDatabase } from '../../index.mjs'

const [, , file, name, batches] = process.argv
const db = new HardenedDatabase(file, { journalMode: 'keep' })
for (let batch = 0; batch < Number(batches); batch++) {
  const texts = Array.from({ length: 5 }, (_, row) => `${name} ${batch}.${row}`)
  await db.appendAgentLogs(texts.map((text) => ({ taskId: 'T', type: 'text', text })))
  process.stdout.write(`kept ${name} ${batch}\n`)
}
await db.closeAsync()
console.log('mode', new HardenedDatabase(file, { readOnly: true }).prepare('PRAGMA journal_mode').get().journal_mode)
