// Another process: writes the first of the entries, through node:sqlite in a transaction each or
// through fusion-sqlite, as fast as they are taken. Prints what a row takes of the main thread and of
// the WAL. A reader keeps the WAL from being used again, so that its size is what was written to it.

import { readFile, stat } from 'node:fs/promises'
import { DatabaseSync } from 'node:sqlite'
import { HardenedDatabase } from '../index.mjs'
import { MEASURED_ROWS, readEntries } from './entries.mjs'
import { mainThreadTime } from './main-thread.mjs'

const [, , way, input, file, schema] = process.argv
const entries = (await readEntries(input)).slice(0, MEASURED_ROWS)

function throughNodeSqlite(db) {
  const insert = db.prepare(
    'INSERT INTO agentLogEntries(taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)',
  )
  for (const { taskId, timestamp = '', text, type, detail = null, agent = null } of entries) {
    insert.run(taskId, timestamp, text, type, detail, agent)
  }
}

async function throughFusionSqlite(db) {
  for (const entry of entries) while (!db.appendAgentLog(entry)) await db.flushAgentLogs()
  await db.flushAgentLogs()
}

const [Database, write] =
  way === 'node:sqlite' ? [DatabaseSync, throughNodeSqlite] : [HardenedDatabase, throughFusionSqlite]
const db = new Database(file)
db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON')
db.exec(await readFile(schema, 'utf8'))
const task = db.prepare(`INSERT OR IGNORE INTO tasks(id, createdAt, updatedAt) VALUES (?, '', '')`)
for (const { taskId } of entries) task.run(taskId)
const reader = new Database(file)
reader.exec('BEGIN')
reader.prepare('SELECT count(*) FROM tasks').get()

const walSize = async () => (await stat(`${file}-wal`)).size
const before = await walSize()
const time = mainThreadTime()
await write(db)
const microseconds = time()
const walBytes = (await walSize()) - before
reader.close()
db.close()
console.log(JSON.stringify({ microseconds: microseconds / entries.length, walBytes: walBytes / entries.length }))
