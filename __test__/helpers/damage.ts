// Damage as it happens: other bytes in the file, another file in its place, a WAL that is not its
// own. What is damaged is closed, in this process and any other.

import { closeSync, copyFileSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs'
import path from 'node:path'
import type { ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase } from '../../index.js'
import { database, entries, Other } from '../support.ts'

export const PAGE = 4096

/** A closed database with Fusion's schema and so many log rows of some 300 bytes. */
export async function filled(t: ExecutionContext, rows: number): Promise<string> {
  const file = database(t)
  const db = new HardenedDatabase(file, { startupCheck: 'off' })
  await db.appendAgentLogs(entries(rows, `${'filler '.repeat(40)}row `))
  await db.closeAsync()
  return file
}

/** Leaf pages of a table or index, by SQLite's own account. */
export function leaves(file: string, name: string): number[] {
  const db = new DatabaseSync(file)
  try {
    const sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno"
    return (db.prepare(sql).all(name) as { pageno: number }[]).map((row) => row.pageno)
  } finally {
    db.close()
  }
}

export function readPage(file: string, page: number): Buffer {
  const fd = openSync(file, 'r')
  const bytes = Buffer.alloc(PAGE)
  readSync(fd, bytes, 0, PAGE, (page - 1) * PAGE)
  closeSync(fd)
  return bytes
}

export function writePage(file: string, page: number, bytes: Uint8Array = Buffer.alloc(PAGE, 0xa5)): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, PAGE, (page - 1) * PAGE)
  closeSync(fd)
}

/** Writes bytes that no page begins with over pages. */
export function destroy(file: string, pages: number[]): void {
  for (const page of pages) writePage(file, page)
}

/** A varint (https://sqlite.org/fileformat2.html#varint) of up to 53 bits, and where it ends. */
function varint(bytes: Buffer, at: number): [value: number, end: number] {
  let value = 0
  for (;;) {
    const byte = bytes[at++]!
    value = value * 128 + (byte & 0x7f)
    if (byte < 0x80) return [value, at]
  }
}

/** The rowids on leaf pages of a table. */
export function rowids(file: string, pages: number[]): number[] {
  return pages.flatMap((number) => {
    const page = readPage(file, number)
    if (page[0] !== 13) throw new Error(`page ${number} is no leaf of a table`)
    return Array.from({ length: page.readUInt16BE(3) }, (_, i) => {
      const [, end] = varint(page, page.readUInt16BE(8 + 2 * i))
      return varint(page, end)[0]
    })
  })
}

/** Runs SQL on a closed database, and closes it again. */
export function sql(file: string, statements: string): void {
  const db = new DatabaseSync(file)
  db.exec(statements)
  db.close()
}

/** Another process runs SQL and is killed: what it committed is in the WAL only. */
export async function leftInWal(t: ExecutionContext, file: string, ...statements: string[]): Promise<void> {
  const other = new Other(t, 'leaves-wal.mjs', [file, ...statements])
  await other.says('done')
  other.process.kill('SIGKILL')
  await other.ended
}

/** A sound database beside the WAL of another one, as a restore leaves it that replaces one file only. */
export async function withStaleWal(t: ExecutionContext): Promise<string> {
  const file = await filled(t, 2000)
  const restored = path.join(path.dirname(file), 'restored.db')
  copyFileSync(file, restored)
  sql(restored, `DELETE FROM agentLogEntries WHERE id % 3 = 0; UPDATE agentLogEntries SET text = 'short'; VACUUM`)
  await leftInWal(
    t,
    file,
    `UPDATE agentLogEntries SET text = text || hex(randomblob(100))`,
    `INSERT INTO agentLogEntries (taskId, timestamp, text, type) SELECT taskId, timestamp, text, type FROM agentLogEntries`,
  )
  renameSync(restored, file)
  rmSync(`${file}-shm`)
  return file
}

/** An entry of the log table's index is missing: an old page of it was written back. */
export async function withIndexOutOfStep(t: ExecutionContext): Promise<{ file: string; index: string }> {
  const file = await filled(t, 2000)
  const db = new DatabaseSync(file)
  const { name: index } = db
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'agentLogEntries' AND sql IS NOT NULL`)
    .get() as { name: string }
  db.close()
  const before = leaves(file, index).map((page) => ({ page, bytes: readPage(file, page) }))
  sql(file, 'DELETE FROM agentLogEntries WHERE id = 2')
  const changed = before.find(({ page, bytes }) => !bytes.equals(readPage(file, page)))
  if (changed === undefined) throw new Error('no page of the index was written in place')
  writePage(file, changed.page, changed.bytes)
  return { file, index }
}
