// A repair of which nothing proves that it loses nothing: it is not written unless that is allowed.

import { execFile } from 'node:child_process'
import { closeSync, openSync, readFileSync, readdirSync, writeSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase, type RecoveryComparison, recover } from '../index.js'
import { findings } from './children/start.ts'
import { folder } from './support.ts'

const program = fileURLToPath(new URL('../bin/fusion-sqlite.js', import.meta.url))

/**
 * A database whose schema's first page is destroyed, but for the header: SQLite finds no table any
 * more, while the tables' rows and the schema's other pages are there.
 */
function withoutSchema(t: ExecutionContext): string {
  const file = path.join(folder(t), 'orphans.db')
  const db = new DatabaseSync(file)
  for (let table = 0; table < 60; table++) {
    db.exec(`CREATE TABLE t${table} (id INTEGER PRIMARY KEY, a TEXT /* ${'a long declaration '.repeat(10)} */)`)
    db.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO t${table} SELECT i, 'row ' || i || ' of ${table}' FROM n`)
  }
  db.close()
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.alloc(4096 - 100, 0xa5), 0, 4096 - 100, 100)
  closeSync(fd)
  return file
}

function doctor(...args: string[]): Promise<{ code: number; out: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, 'doctor', ...args], { timeout: 60_000 }, (_, out) => {
      resolve({ code: child.exitCode ?? -1, out })
    })
  })
}

interface Refusal extends Error {
  code: string
  comparison: RecoveryComparison
  health: { ok: boolean }
}

test('opening a file whose repair proves nothing throws with the comparison, and changes nothing', async (t) => {
  const file = withoutSchema(t)
  const before = readFileSync(file)
  for (const open of [async () => new HardenedDatabase(file), () => HardenedDatabase.open(file)]) {
    const refusal = (await t.throwsAsync(open)) as Refusal
    t.is(refusal.comparison.holds, false)
    t.regex(refusal.comparison.reason!, /no table/)
    t.is(refusal.health.ok, false)
  }
  t.true(readFileSync(file).equals(before))
  t.deepEqual(
    readdirSync(path.dirname(file)).filter((name) => name.includes('.damaged-')),
    [],
  )
})

test('recover() rejects such a repair, and writes it if the loss is allowed', async (t) => {
  const file = withoutSchema(t)
  const before = readFileSync(file)
  const refusal = (await t.throwsAsync(recover(file))) as Refusal
  t.is(refusal.code, 'ERR_FUSION_LOSS')
  t.true(refusal.message.includes(refusal.comparison.text.slice(0, 40)))
  t.true(readFileSync(file).equals(before))
  const report = await recover(file, { allowLoss: true })
  t.is(report.outcome, 'salvaged')
  t.is(report.comparison!.holds, false)
  t.true(readFileSync(report.preserved!.database).equals(before))
  const db = new DatabaseSync(file)
  const tables = db.prepare("SELECT name FROM sqlite_schema WHERE name GLOB 't[0-9]*'").all() as { name: string }[]
  t.true(tables.length > 30)
  for (const { name } of tables) {
    const { rows } = db.prepare(`SELECT count(*) AS rows FROM ${name}`).get() as { rows: number }
    t.is(rows, 50, name)
  }
  db.close()
  t.deepEqual((await findings(file)).integrity, ['ok'])
})

test('the doctor shows the comparison and changes nothing unless the loss is allowed', async (t) => {
  const file = withoutSchema(t)
  const before = readFileSync(file)
  const refused = await doctor(file, '--repair')
  t.is(refused.code, 2)
  t.regex(refused.out, /could not be proven/)
  t.true(readFileSync(file).equals(before))
  const allowed = await doctor(file, '--repair', '--allow-loss')
  t.regex(allowed.out, /rows recovered/)
  t.false(readFileSync(file).equals(before))
})
