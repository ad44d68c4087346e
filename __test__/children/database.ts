// Databases of tests, in folders of their own that go with the test.

import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import type { ExecutionContext } from 'ava'
import { HardenedDatabase } from '../../index.js'

const schema = new URL('../../examples/fusion-schema.sql', import.meta.url)

/** A folder that is removed after the test. */
export async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await realpath(await mkdtemp(path.join(os.tmpdir(), 'fusion-sqlite-test-')))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Makes a closed database with Fusion's schema and the tasks T-1 to T-20. */
export async function createDatabase(file: string): Promise<void> {
  const db = new HardenedDatabase(file)
  db.exec(await readFile(schema, 'utf8'))
  const insert = db.prepare("INSERT INTO tasks (id, createdAt, updatedAt) VALUES (?, '2026-11-23', '2026-11-23')")
  for (let number = 1; number <= 20; number++) insert.run(`T-${number}`)
  db.close()
}

/** `count` entries, whose texts are `name` and a number. */
export function entriesOf(name: string, count: number, detail: string | null = null) {
  return Array.from({ length: count }, (_, number) => ({
    taskId: `T-${1 + (number % 20)}`,
    text: `${name} ${number}`,
    type: 'text',
    detail,
  }))
}
