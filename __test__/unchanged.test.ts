// A file that nobody has written to since a check found it sound is opened without another one, and
// any way of changing it has it checked again. Linux only: elsewhere it is always checked.

import { execFile, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase } from '../index.js'
import { PAGE, filled, leaves, leftInWal, readPage, sql, writePage } from './helpers/damage.ts'
import { entries } from './support.ts'

type Options = ConstructorParameters<typeof HardenedDatabase>[1]

/** Where the times of a file are certain. */
const certain = process.platform === 'linux' ? test : test.skip

/** A short process that opens, reads and closes the file. Whether the file was checked. */
async function visit(file: string, options?: Options): Promise<boolean> {
  const script = `const { HardenedDatabase } = require(process.argv[1])
    const db = new HardenedDatabase(process.argv[2], JSON.parse(process.argv[3]))
    db.prepare('SELECT count(*) FROM sqlite_schema').get()
    console.log(db.stats().health !== null)
    db.close()`
  const program = [path.resolve('index.js'), file, JSON.stringify(options ?? {})]
  const { stdout } = await promisify(execFile)(process.execPath, ['--no-warnings', '--eval', script, ...program])
  return stdout.trim() === 'true'
}

/** Until the last change of the file is so long ago that another one gets another time. */
async function aged(file: string): Promise<void> {
  for (;;) {
    const left = statSync(file).ctimeMs + 2100 - Date.now()
    if (left <= 0) return
    await sleep(left)
  }
}

/** A file with a note that it is sound. */
async function noted(t: ExecutionContext, rows = 500): Promise<string> {
  const file = await filled(t, rows)
  await aged(file)
  t.true(await visit(file), 'a new file is checked')
  return file
}

/** Another process writes and closes, so that the WAL is checkpointed. */
function writtenElsewhere(file: string, statement: string): void {
  const script = `const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]); db.exec(process.argv[2]); db.close()`
  const { status, stderr } = spawnSync(process.execPath, ['--no-warnings', '--eval', script, file, statement])
  if (status !== 0) throw new Error(String(stderr))
}

certain('a file that is unchanged is checked once, and always where that is asked for', async (t) => {
  const file = await noted(t)
  t.false(await visit(file))
  t.false(await visit(file), 'nor after that')
  for (const startupCheck of ['quick', 'full'] as const) t.true(await visit(file, { startupCheck }), startupCheck)
  t.false(await visit(file), 'which changes nothing about it')
  const db = await HardenedDatabase.open(file)
  t.is(db.stats().health, null)
  db.close()
})

certain('a file that was just written is not certain to be unchanged', async (t) => {
  const file = await filled(t, 10)
  // Two changes within the grain of the clock have one time.
  utimesSync(file, new Date(), new Date())
  if (!(await visit(file))) t.fail('a new file is checked')
  if (Date.now() - statSync(file).ctimeMs < 2000) t.true(await visit(file))
  else t.pass()
})

certain('whatever changes the file has it checked', async (t) => {
  const ways: Record<string, (file: string) => void | Promise<void>> = {
    'a byte is overwritten and the time of modification put back': (file) => {
      const { atime, mtime } = statSync(file)
      const page = leaves(file, 'agentLogEntries')[0] ?? 0
      const bytes = readPage(file, page)
      bytes[PAGE - 1] = (bytes[PAGE - 1] ?? 0) ^ 1
      writePage(file, page, bytes)
      utimesSync(file, atime, mtime)
    },
    'the same bytes are written': (file) => writePage(file, 2, readPage(file, 2)),
    'a copy takes its place': (file) => {
      copyFileSync(file, `${file}.copy`)
      renameSync(`${file}.copy`, file)
    },
    'cp -p restores it': (file) => {
      spawnSync('cp', ['-p', file, `${file}.copy`])
      spawnSync('cp', ['-p', `${file}.copy`, file])
    },
    'git checks it out': (file) => {
      const git = (...args: string[]) => {
        const options = ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'core.hooksPath=/dev/null']
        const { status, stderr } = spawnSync('git', [...options, ...args], { cwd: path.dirname(file) })
        if (status !== 0) throw new Error(String(stderr))
      }
      git('init', '--quiet')
      git('add', path.basename(file))
      git('commit', '--quiet', '--message', 'first')
      rmSync(file)
      git('checkout', '--quiet', '--', path.basename(file))
    },
    'another process writes and checkpoints': (file) =>
      writtenElsewhere(file, `UPDATE agentLogEntries SET text = 'other' WHERE id = 1`),
    'another process writes in a rollback journal': (file) =>
      writtenElsewhere(file, `PRAGMA journal_mode = DELETE; UPDATE __meta SET value = '1'`),
    'a killed process leaves a WAL': (file) => leftInWal(t, file, `UPDATE __meta SET value = '1'`),
    'a journal lies next to it': (file) => writeFileSync(`${file}-journal`, Buffer.alloc(512, 1)),
    'it grows': (file) => appendFileSync(file, Buffer.alloc(PAGE)),
    'its mode changes': (file) => chmodSync(file, 0o640),
    'the note is cut': (file) => {
      const note = readFileSync(`${file}-schema`)
      writeFileSync(`${file}-schema`, note.subarray(0, note.length - 9))
    },
    'a byte of the note is changed': (file) => {
      const note = readFileSync(`${file}-schema`)
      const at = note.indexOf('"inode":') + 8
      note[at] = note[at] === 0x31 ? 0x32 : 0x31
      writeFileSync(`${file}-schema`, note)
    },
    'the note is deleted': (file) => rmSync(`${file}-schema`),
    'the note is that of another file': async (file) => {
      const other = await noted(t)
      copyFileSync(`${other}-schema`, `${file}-schema`)
    },
  }
  await Promise.all(
    Object.entries(ways).map(async ([name, change]) => {
      const file = await noted(t)
      t.false(await visit(file), `${name}: before`)
      await change(file)
      t.true(await visit(file, { onCorruption: 'report' }), name)
    }),
  )
})

certain('a damaged page is found although the time of modification was put back', async (t) => {
  const file = await noted(t, 2000)
  const { atime, mtime } = statSync(file)
  for (const page of leaves(file, 'agentLogEntries').slice(-3)) writePage(file, page)
  utimesSync(file, atime, mtime)
  t.throws(() => new HardenedDatabase(file, { onCorruption: 'throw' }), { code: 'ERR_FUSION_DAMAGED' })
  // That it is not refused for the damage that was found makes it no sound file.
  await aged(file)
  for (let i = 0; i < 2; i++) {
    const db = new HardenedDatabase(file, { onCorruption: 'report' })
    t.false(db.stats().health?.ok)
    db[Symbol.dispose]()
  }
})

certain('a file whose findings are no damage is checked again, so that they are reported again', async (t) => {
  const file = await filled(t, 10)
  sql(
    file,
    `PRAGMA foreign_keys = OFF; INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('none', '', '', '')`,
  )
  await aged(file)
  for (let i = 0; i < 2; i++) t.true(await visit(file, { startupCheck: 'full' }))
  t.true(await visit(file))
})

certain('after a write the next check is noted again, with the mode of the database', async (t) => {
  const file = await noted(t)
  chmodSync(file, 0o640)
  const db = new HardenedDatabase(file)
  await db.appendAgentLogs(entries(3))
  await db.closeAsync()
  t.true(await visit(file))
  await aged(file)
  t.true(await visit(file))
  t.false(await visit(file))
  t.true(existsSync(`${file}-schema`))
  t.is(statSync(`${file}-schema`).mode & 0o777, 0o640)
})
