// The rows that every contender writes: a JSON Lines file of agent log entries.

import { readFileSync } from 'node:fs'

const required = ['taskId', 'timestamp', 'text', 'type']

/** Reads the entries of a file, repeated from the start until there are `count` of them. */
export function readRows(file, count) {
  const entries = []
  for (const [index, line] of readFileSync(file, 'utf8').split('\n').entries()) {
    if (line === '') continue
    const entry = parse(line, `${file}:${index + 1}`)
    entries.push(entry)
    if (entries.length === count) break
  }
  if (entries.length === 0) throw new Error(`${file} holds no entries`)
  return Array.from({ length: count ?? entries.length }, (_, index) => entries[index % entries.length])
}

function parse(line, place) {
  let entry
  try {
    entry = JSON.parse(line)
  } catch (error) {
    throw new Error(`${place}: not a JSON object: ${error.message}`, { cause: error })
  }
  const missing = required.filter((name) => typeof entry?.[name] !== 'string')
  if (missing.length > 0) throw new Error(`${place}: no agent log entry, ${missing.join(', ')} must be a string`)
  return entry
}

export const schemaFile = new URL('../examples/fusion-schema.sql', import.meta.url)

/** SQL that makes a fresh Fusion database with the tasks that the rows belong to. */
export function setupSql(rows) {
  const values = [...new Set(rows.map((row) => row.taskId))].map((id) => {
    const literal = `'${id.replaceAll("'", "''")}'`
    return `(${literal}, ${literal}, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')`
  })
  return `BEGIN;
${readFileSync(schemaFile, 'utf8')}
INSERT INTO tasks(id, title, createdAt, updatedAt) VALUES ${values.join(',\n')};
COMMIT;`
}

export const insertSql =
  'INSERT INTO agentLogEntries(taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)'

export const values = (row) => [row.taskId, row.timestamp, row.text, row.type, row.detail ?? null, row.agent ?? null]

/** The change counter's update, once a transaction, as the package does it. */
export const bumpSql = `UPDATE __meta SET value = CAST(max(CAST(value AS INTEGER) + 1, ?) AS TEXT) WHERE key = 'lastModified'`
