'use strict'

// What a user does first: opens a database, writes and reads a row, appends log entries.

const { readFileSync } = require('node:fs')
const path = require('node:path')

module.exports = async function exercise({ HardenedDatabase, engineInfo }, file) {
  const db = new HardenedDatabase(file)
  db.exec(readFileSync(path.join(__dirname, 'examples', 'fusion-schema.sql'), 'utf8'))
  db.exec(`INSERT OR IGNORE INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
  db.prepare('INSERT INTO agentLogEntries(taskId, timestamp, text, type) VALUES (?, ?, ?, ?)').run(
    'T',
    '',
    'run',
    'text',
  )
  const { committed } = await db.appendAgentLogs([
    { taskId: 'T', type: 'text', text: 'one' },
    { taskId: 'T', type: 'tool', text: 'two' },
  ])
  const { rows } = db.prepare('SELECT count(*) AS rows FROM agentLogEntries').get()
  await db.closeAsync()
  const { sqliteVersion, lockKind } = engineInfo()
  console.log(JSON.stringify({ committed, rows, sqliteVersion, lockKind }))
}
