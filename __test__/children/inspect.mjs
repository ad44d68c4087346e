// A fresh process that opens a database through this package and tells what is in it.

import { HardenedDatabase } from '../../index.mjs'
import { tell } from './lines.mjs'

const found = { error: null, integrity: [], texts: [] }
try {
  const db = new HardenedDatabase(process.argv[2])
  try {
    found.integrity = db
      .prepare('PRAGMA integrity_check')
      .all()
      .map((row) => row.integrity_check)
    found.texts = db
      .prepare('SELECT text FROM agentLogEntries ORDER BY id')
      .all()
      .map((row) => row.text)
  } finally {
    await db.closeAsync()
  }
} catch ({ code, errcode = 0, message }) {
  found.error = { code, errcode, message }
}
tell('found', found)
