// Databases in memory, and temporary ones: what is about a file says what to do instead.

import { existsSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { DatabaseSync, HardenedDatabase, backup, backupFile, check, fileInfo, recover, restore } from '../index.js'
import { folder } from './support.ts'

for (const location of [':memory:', '', 'file::memory:', 'file:shared?mode=memory&cache=shared']) {
  test(`check, backup, restore and recover of ${JSON.stringify(location)}`, async (t) => {
    const file = path.join(folder(t), 'copy.db')
    const db = new HardenedDatabase(location, { createTable: true })
    t.teardown(() => db.close())
    db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1)')
    const operations = {
      check: [() => db.check(), /check\(\) .*PRAGMA integrity_check/],
      backup: [() => db.backup(file), /backup\(\) .*backup\(db, path\)/],
      restore: [() => db.restore(file), /restore\(\) .*deserialize/],
      recover: [() => db.recover(), /recover\(\) .*open a copy/],
    } as const
    for (const [name, [run, advice]] of Object.entries(operations)) {
      const error = (await t.throwsAsync(run as () => Promise<unknown>, { code: 'ERR_INVALID_STATE' }, name))!
      t.regex(error.message, /in memory, or a temporary one, and has no file/, name)
      t.regex(error.message, advice, name)
    }
    t.false(existsSync(file))
    // What the messages name works.
    t.is(db.prepare('PRAGMA integrity_check').get()!.integrity_check, 'ok')
    await backup(db, file)
    const copy = new DatabaseSync(file, { readOnly: true })
    t.is(copy.prepare('SELECT a FROM t').get()!.a, 1)
    copy.close()
    db.deserialize(new DatabaseSync(file).serialize())
    t.is(db.prepare('SELECT a FROM t').get()!.a, 1)
  })

  test(`the module's functions name no file by ${JSON.stringify(location)}`, async (t) => {
    const other = path.join(folder(t), 'other.db')
    const calls: [string, () => unknown][] = [
      ['check', () => check(location)],
      ['backupFile', () => backupFile(location, other)],
      ['restore', () => restore(location, other)],
      ['recover', () => recover(location, { to: other })],
      ['fileInfo', () => fileInfo(location)],
    ]
    for (const [name, call] of calls) {
      const error = (await t.throwsAsync(async () => call(), { code: 'ERR_INVALID_ARG_TYPE' }, name))!
      t.regex(error.message, /database in memory or a temporary one.*backup\(db, path\)/, name)
    }
    t.false(existsSync(other))
  })
}
