// Whatever is made of or next to a database has its mode and, where root makes it, its owner.

import { chmodSync, chownSync, closeSync, openSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { DatabaseSync } from '../index.js'
import { isRoot, operate } from './helpers/operate.ts'
import { database } from './support.ts'

function scribble(file: string, page: number): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.alloc(4096, 0x5a), 0, 4096, page * 4096)
  closeSync(fd)
}

const CASES: [mode: number, owner?: number][] = [[0o600], [0o640], [0o644]]
if (isRoot) CASES.push([0o600, 65_534], [0o640, 65_534])

if (process.platform !== 'win32') {
  for (const [mode, owner] of CASES) {
    test(`files of a database of mode ${mode.toString(8)} and owner ${owner ?? 'of this process'}`, async (t) => {
      const file = database(t)
      const fill = new DatabaseSync(file)
      fill.exec(`INSERT INTO agentLogEntries (taskId, timestamp, text, type)
        WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 3000)
        SELECT 'T', '2026', hex(zeroblob(100)), 'text' FROM n; PRAGMA wal_checkpoint(TRUNCATE)`)
      fill.close()
      for (const name of readdirSync(path.dirname(file))) {
        const at = path.join(path.dirname(file), name)
        chmodSync(at, mode)
        if (owner !== undefined) chownSync(at, owner, owner)
      }
      const { uid, gid } = statSync(file)
      const made = new Set<string>()
      const all = async (...operations: unknown[][]) => {
        for (const { error } of await operate(undefined, operations)) t.is(error, undefined, error?.message)
        for (const name of readdirSync(path.dirname(file))) {
          const found = statSync(path.join(path.dirname(file), name))
          t.is(found.mode & 0o7777, mode, name)
          t.deepEqual([found.uid, found.gid], [uid, gid], name)
          made.add(name.slice(path.basename(file).length).replace(/\d{8}T\d{6}Z(-\d+)?/, '*'))
        }
      }
      rmSync(`${file}-schema`, { force: true })
      await all(['log', file], ['backupFile', file], ['backupFile', file])
      await all(['restore', file, `${file}.backup`])
      scribble(file, 30)
      await all(['recover', file, { to: `${file}.rescued` }])
      await all(['recover', file, { useBackup: false }])
      scribble(file, 0)
      await all(['restore', file, `${file}.backup`])
      for (const ending of ['', '-wal', '-shm']) rmSync(file + ending, { force: true })
      await all(['restore', file, `${file}.backup`])
      for (const name of ['', '-schema', '.backup', '.backup.1', '.rescued', '.damaged-*']) t.true(made.has(name), name)
      t.true([...made].some((name) => name.startsWith('.before-restore-*')))
    })
  }
}
