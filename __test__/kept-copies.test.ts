// The option keepCopies, and what info says of copies that are kept.

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { HardenedDatabase, backupFile, fileInfo, recover, restore } from '../index.js'
import { database, entry } from './support.ts'

const program = fileURLToPath(new URL('../bin/fusion-sqlite.js', import.meta.url))

test('keepCopies is checked', async (t) => {
  const file = database(t)
  await backupFile(file)
  for (const [value, code] of [
    [0, 'ERR_OUT_OF_RANGE'],
    [1.5, 'ERR_OUT_OF_RANGE'],
    [2 ** 31, 'ERR_OUT_OF_RANGE'],
    ['3', 'ERR_INVALID_ARG_TYPE'],
  ] as const) {
    const options = { keepCopies: value as number }
    t.throws(() => new HardenedDatabase(file, options), { code })
    await t.throwsAsync(() => recover(file, options), { code })
    await t.throwsAsync(() => restore(file, `${file}.backup`, options), { code })
    await t.throwsAsync(() => fileInfo(file, options), { code })
  }
})

test('what a restore replaced with the same goes once there are enough newer copies', async (t) => {
  const db = new HardenedDatabase(database(t), { keepCopies: 1 })
  t.teardown(() => db[Symbol.dispose]())
  const file = db.location()!
  const copies = () => readdirSync(path.dirname(file)).filter((name) => name.includes('.before-restore-'))
  const { path: first } = await db.backup(`${file}.first`)
  const spare = await db.restore(first)
  t.regex(spare.preserved!.database, /-spare$/)
  t.true(existsSync(spare.preserved!.database))
  await db.appendAgentLogs([entry('nowhere else')])
  // This restore has a keepCopies of its own, and removes nothing.
  const unique = await restore(file, first, { keepCopies: 5 })
  t.notRegex(unique.preserved!.database, /-spare$/)
  t.is(copies().length, 2)
  const { sidecars } = await fileInfo(file, { keepCopies: 1 })
  t.deepEqual(
    sidecars.filter(({ removable }) => removable).map((it) => it.path),
    [spare.preserved!.database],
  )
  t.true((await fileInfo(file)).sidecars.every(({ removable }) => !removable))
  await db.appendAgentLogs([entry('nowhere else either')])
  await db.restore(first)
  t.false(existsSync(spare.preserved!.database))
  t.is(copies().length, 2, 'the others hold what the database does not')
  const out = execFileSync(process.execPath, [program, 'info', file], { encoding: 'utf8', timeout: 60_000 })
  for (const name of copies()) t.true(out.includes(name))
})
