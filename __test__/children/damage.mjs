// A process that writes garbage over the pages of a database's log table and its indexes, and then
// commits something, so that nobody goes on with what they remember of those pages.

import { closeSync, fsyncSync, openSync, statSync, writeSync } from 'node:fs'
import { HardenedDatabase } from '../../index.mjs'
import { tell } from './lines.mjs'

const file = process.argv[2]
const db = new HardenedDatabase(file)
const { page_size: size } = db.prepare('PRAGMA page_size').get()
const roots = db
  .prepare("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'agentLogEntries' ORDER BY rootpage")
  .all()
  .map((row) => row.rootpage)
const fd = openSync(file, 'r+')
for (const root of roots) writeSync(fd, Buffer.alloc(size, 0xa5), 0, size, (root - 1) * size)
fsyncSync(fd)
closeSync(fd)
db.exec("UPDATE __meta SET value = '99' WHERE key = 'schemaVersion'")
tell('damaged', { pages: roots, of: statSync(file).size / size })
// Leaves without closing: a close would checkpoint.
process.kill(process.pid, 'SIGKILL')
