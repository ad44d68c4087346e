// A database in a place where nothing can be written: it is checked, backed up and recovered from there,
// and is as it was afterwards.

import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, chownSync, closeSync, copyFileSync, mkdirSync, openSync } from 'node:fs'
import { readFileSync, readdirSync, statSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { DatabaseSync } from '../index.js'
import { isRoot, operate } from './helpers/operate.ts'
import { folder } from './support.ts'

const ROWS = 900

interface State {
  name: string
  /** Endings of the files that lie there. */
  files: string[]
  journal?: 'delete'
  damage?: (file: string) => void
  /** Rows that can be read; all, unless it says otherwise. */
  least?: number
}

function scribble(file: string, at: number, length: number): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.alloc(length, 0x5a), 0, length, at)
  closeSync(fd)
}

const STATES: State[] = [
  { name: 'closed, in WAL mode', files: [''] },
  { name: 'a -wal with commits that are nowhere else', files: ['', '-wal'] },
  { name: 'the same and its -shm', files: ['', '-wal', '-shm'] },
  { name: 'with a rollback journal', files: [''], journal: 'delete' },
  { name: 'without its header, closed', files: [''], damage: (it) => scribble(it, 0, 100), least: 1 },
  {
    name: 'a page destroyed that no commit of the -wal has',
    files: ['', '-wal'],
    damage: (it) => scribble(it, 3 * 4096, 4096),
    least: 1,
  },
  { name: 'a page destroyed, closed', files: [''], damage: (it) => scribble(it, 6 * 4096, 4096), least: 1 },
]

/** Makes the database in `at`; with a `-wal`, two thirds of the rows are only there. */
function make(t: ExecutionContext, at: string, { files, journal, damage }: State): string {
  const made = path.join(folder(t), 'made.db')
  const file = path.join(at, 'source.db')
  const db = new DatabaseSync(made)
  db.exec(`PRAGMA journal_mode = ${journal ?? 'wal'}; PRAGMA wal_autocheckpoint = 0`)
  db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)')
  const insert = db.prepare("INSERT INTO t (text) VALUES ('row' || hex(zeroblob(60)))")
  for (let row = 0; row < ROWS; row++) {
    if (row === ROWS / 3) db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    insert.run()
  }
  if (!files.includes('-wal')) db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  for (const ending of files) {
    copyFileSync(made + ending, file + ending)
    chmodSync(file + ending, 0o644)
  }
  db.close()
  damage?.(file)
  return file
}

/** What a file holds, in short. */
const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')

/** All that there is to be seen of a folder. */
function seen(at: string) {
  const files = readdirSync(at).map((name) => {
    const { mode, uid, mtimeMs, ino } = statSync(path.join(at, name))
    return { name, mode, uid, mtimeMs, ino, hash: hash(path.join(at, name)) }
  })
  return { files, mtimeMs: statSync(at).mtimeMs }
}

async function readsIt(t: ExecutionContext, state: State, at: string, uid: number | undefined, file: string) {
  const to = folder(t)
  chmodSync(to, 0o777)
  const before = seen(at)
  const [checked, recovered, backup, info] = await operate(uid, [
    ['check', file],
    ['recover', file, { to: path.join(to, 'rescued.db') }],
    ['backupFile', file, path.join(to, 'copy.backup')],
    ['fileInfo', file],
  ])
  t.deepEqual(seen(at), before, `${state.name}: the source is as it was`)
  t.is(checked.error, undefined, state.name)
  t.is(info.error, undefined, state.name)
  t.is(checked.value.ok, state.damage === undefined, `${state.name}: ${JSON.stringify(checked.value.findings)}`)
  t.is(recovered.error, undefined, `${state.name}: ${recovered.error?.message}`)
  const count = (name: string): number => {
    const db = new DatabaseSync(path.join(to, name), { readOnly: true })
    try {
      return Number(db.prepare('SELECT count(*) n FROM t').get()!.n)
    } finally {
      db.close()
    }
  }
  const rows = count('rescued.db')
  if (state.damage === undefined) {
    t.is(rows, ROWS, state.name)
    t.is(backup.error, undefined, `${state.name}: ${backup.error?.message}`)
    t.is(count('copy.backup'), ROWS, state.name)
  } else {
    t.true(rows >= state.least!, `${state.name}: ${rows}`)
    t.is(backup.error!.code, 'ERR_FUSION_BACKUP_DAMAGED', state.name)
  }
  const left = readdirSync(to).filter((name) => !['rescued.db', 'copy.backup'].includes(name))
  t.deepEqual(left, [], `${state.name}: nothing else is left`)
}

if (process.platform !== 'win32') {
  test('a source in a folder of another user, who alone may write there', async (t) => {
    for (const state of STATES) {
      const at = folder(t)
      const file = make(t, at, state)
      chmodSync(at, 0o555)
      t.teardown(() => chmodSync(at, 0o755))
      await readsIt(t, state, at, isRoot ? 65_534 : undefined, file)
    }
  })

  test('a source that may be read only, in a folder that may be written to', async (t) => {
    for (const state of STATES) {
      const at = folder(t)
      const file = make(t, at, state)
      for (const ending of state.files) chmodSync(file + ending, 0o444)
      if (isRoot) for (const ending of state.files) chownSync(file + ending, 0, 0)
      chmodSync(at, 0o777)
      await readsIt(t, state, at, isRoot ? 65_534 : undefined, file)
    }
  })

  test('a source on a read-only mount', async (t) => {
    const at = folder(t)
    const mounted = path.join(at, 'm')
    mkdirSync(mounted)
    try {
      execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', mounted], { stdio: 'pipe', timeout: 10_000 })
    } catch (error) {
      t.log(`skipped: mount is not permitted: ${(error as Error).message.trim()}`)
      t.pass()
      return
    }
    t.teardown(() => execFileSync('umount', ['--lazy', mounted], { timeout: 10_000 }))
    for (const [number, state] of STATES.entries()) {
      const place = path.join(mounted, String(number))
      mkdirSync(place)
      const file = make(t, place, state)
      execFileSync('mount', ['-o', 'remount,ro', mounted], { timeout: 10_000 })
      await readsIt(t, state, place, undefined, file)
      execFileSync('mount', ['-o', 'remount,rw', mounted], { timeout: 10_000 })
    }
  })

  test('a source that may be written to is as it was after a recovery from it', async (t) => {
    for (const state of STATES) {
      const at = folder(t)
      const file = make(t, at, state)
      const list = () => readdirSync(at).toSorted()
      const names = list()
      // Readers note in a -shm what they read.
      const bytes = names.filter((name) => !name.endsWith('-shm')).map((name) => hash(path.join(at, name)))
      const [recovered] = await operate(undefined, [['recover', file, { to: path.join(folder(t), 'to.db') }]])
      t.is(recovered.error, undefined, state.name)
      t.deepEqual(list(), names, state.name)
      const after = names.filter((name) => !name.endsWith('-shm')).map((name) => hash(path.join(at, name)))
      t.deepEqual(after, bytes, state.name)
    }
  })
}

if (process.platform !== 'win32') {
  test('nothing is made next to a -wal without a -shm, by a check, info or a recovery', async (t) => {
    const at = folder(t)
    chmodSync(at, 0o777)
    const state = STATES.find(({ files }) => files.length === 2)!
    const file = make(t, at, state)
    const before = seen(at)
    const to = path.join(folder(t), 'rescued.db')
    const answers = await operate(undefined, [
      ['check', file],
      ['fileInfo', file],
      ['recover', file, { to }],
    ])
    t.deepEqual(
      answers.map(({ error }) => error),
      [undefined, undefined, undefined],
    )
    t.deepEqual(seen(at), before)
    const db = new DatabaseSync(to, { readOnly: true })
    t.is(db.prepare('SELECT count(*) n FROM t').get()!.n, ROWS)
    db.close()
  })

  test('a database without a -shm that a process holds for itself is waited for', async (t) => {
    const at = folder(t)
    const file = path.join(at, 'held.db')
    const program = `
      const db = new (require(process.argv[1]).DatabaseSync)(process.argv[2])
      db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = wal; CREATE TABLE t (a)')
      console.log('holds it')
      process.stdin.resume().on('end', () => db.close())`
    const index = fileURLToPath(new URL('../index.js', import.meta.url))
    const holder = spawn(process.execPath, ['-e', program, index, file], { timeout: 60_000 })
    t.teardown(() => holder.kill('SIGKILL'))
    await once(holder.stdout, 'data')
    t.deepEqual(readdirSync(at).toSorted(), ['held.db', 'held.db-wal'])
    const [checked] = await operate(undefined, [['check', file, { kind: 'quick' }]])
    t.deepEqual(
      checked.value.findings.map(({ type }: { type: string }) => type),
      ['locked'],
    )
    t.deepEqual(readdirSync(at).toSorted(), ['held.db', 'held.db-wal'])
    holder.stdin.end()
    await once(holder, 'exit')
  })
}

test('a recovery replaces nothing that is at its target', async (t) => {
  const at = folder(t)
  const file = make(t, at, { name: 'closed', files: [''] })
  const to = path.join(at, 'taken')
  writeFileSync(to, 'mine')
  const [recovered] = await operate(undefined, [['recover', file, { to }]])
  t.is(recovered.error!.errcode, 14)
  t.is(readFileSync(to, 'utf8'), 'mine')
})
