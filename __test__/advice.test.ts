// What each way into the package says about one cause: the same reason and the same sentence, from an open, a write,
// an append, a backup, a checkpoint and every command.

import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { database, folder } from './support.ts'

const require = createRequire(import.meta.url)
const index = require.resolve('../index.js')
const cli = require.resolve('../bin/fusion-sqlite.js')
const isRoot = process.getuid?.() === 0
const NOBODY = 65534

/** A way into the package. */
type Way = 'open' | 'write' | 'append' | 'checkpoint' | 'backup' | 'cli backup' | 'cli checkpoint' | 'cli doctor'

interface Said {
  reason?: string
  system?: string
  exitCode?: number
  message: string
}

/** What each way but the commands does. */
const BODIES: Record<string, string> = {
  open: 'new HardenedDatabase(file)',
  write: `const db = new HardenedDatabase(file)
    for (let n = 0; n < 1000; n++) db.exec('INSERT INTO filler VALUES (zeroblob(60000))')`,
  // The log keeps its entries, and reports why it cannot write them.
  append: `const db = new HardenedDatabase(file)
    // A log does not keep the process alive.
    setInterval(() => {}, 1000)
    await new Promise((_, reject) => {
      db.on('error', reject)
      const text = 'x'.repeat(4000)
      const entry = { taskId: 'FN-1', timestamp: '2026-01-01T00:00:00.000Z', type: 'text', text }
      db.appendAgentLogs(Array.from({ length: 2000 }, () => entry)).catch(reject)
    })`,
  checkpoint: `await new HardenedDatabase(file).checkpoint('truncate')`,
  backup: 'await backupFile(file)',
}

/** What another process says that goes `way` to `file`: after `shell`, as `user`, in a mount name space of its own. */
function go(
  t: ExecutionContext,
  way: Way,
  file: string,
  { shell = '', user, mounts = false }: { shell?: string; user?: number; mounts?: boolean } = {},
): Said {
  const body = way.startsWith('cli ')
    ? `const command = [${JSON.stringify(cli)}, ${JSON.stringify(way.slice(4))}, file, '--json']
       const { stdout } = require('node:child_process').spawnSync(process.execPath, command)
       const { exitCode, error, health } = JSON.parse(stdout)
       const finding = health?.findings.find(({ type }) => type === 'refusedFile')
       say({ exitCode, message: finding?.lines[0] ?? 'no error', ...error })`
    : `const { HardenedDatabase, backupFile } = require(${JSON.stringify(index)})
       ${BODIES[way]}
       say({ message: 'no error' })`
  const text = `
    const file = ${JSON.stringify(file)}
    const say = ({ reason, system, exitCode, message }) => {
      console.log(JSON.stringify({ reason, system, exitCode, message }))
      process.exit(0)
    }
    ${user === undefined ? '' : `process.setgroups([]); process.setgid(${user}); process.setuid(${user})`}
    ;(async () => { ${body} })().catch(say)`
  const script = ['sh', '-c', `${shell}\nexec "$0" -e "$1"`, process.execPath, text]
  const command = mounts ? ['unshare', '-m', ...script] : script
  const { stdout, stderr } = spawnSync(command[0]!, command.slice(1), { encoding: 'utf8', timeout: 120_000 })
  const line = stdout.trim().split('\n').at(-1) ?? ''
  if (line.startsWith('{')) return JSON.parse(line) as Said
  t.fail(`${way}: ${stdout}${stderr}`)
  return { message: '' }
}

/** Whether this user may mount in a name space of its own. */
const mayMount = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0

/** A database that has a table to fill. */
function prepared(t: ExecutionContext): string {
  const file = database(t)
  const text = `const db = new (require(${JSON.stringify(index)}).HardenedDatabase)(process.argv[1])
    db.exec('CREATE TABLE filler (x)'); db.close()`
  const { status, stderr } = spawnSync(process.execPath, ['-e', text, file], { encoding: 'utf8' })
  t.is(status, 0, stderr)
  return file
}

/** Every way says `reason` in the words of `sentence`, and of a permission only where that is the reason. */
function agree(t: ExecutionContext, said: Record<string, Said>, reason: string, sentence: RegExp): void {
  for (const [way, { reason: found, message }] of Object.entries(said)) {
    t.is(found, reason, `${way}: ${message}`)
    t.regex(message, sentence, way)
    t.notRegex(message, /permission/, way)
  }
}

for (const [cause, options, ways, shell, reason, sentence] of [
  [
    'a full disk',
    'size=4m',
    ['write', 'append', 'checkpoint', 'backup', 'cli backup', 'cli checkpoint'],
    // Pages that are in the WAL alone, and no room for them in the database.
    `"$0" -e '
      const { DatabaseSync } = require("node:sqlite")
      const fs = require("node:fs")
      const [file, at] = process.argv.slice(1)
      const db = new DatabaseSync(file)
      db.exec("PRAGMA wal_autocheckpoint = 0")
      for (let n = 0; n < 20; n++) db.exec("INSERT INTO filler VALUES (zeroblob(60000))")
      try { for (;;) fs.appendFileSync(at + "/room", Buffer.alloc(4096)) } catch {}
      process.kill(process.pid, "SIGKILL")' "$FILE" "$AT"`,
    'diskFull',
    /the disk is full: no space is left in the file system of .*Free some/,
  ],
  [
    'no inodes',
    'nr_inodes=40',
    ['open', 'write', 'append', 'checkpoint', 'backup', 'cli backup', 'cli checkpoint', 'cli doctor'],
    // A redirection that fails ends the shell that it is of, if that is a builtin's.
    'for n in $(seq 60); do touch "$AT/f$n"; done',
    'noInodes',
    /no inode is left in the file system of/,
  ],
  [
    'a mount for reading only',
    'size=4m',
    ['open', 'write', 'append', 'checkpoint', 'backup', 'cli backup', 'cli checkpoint'],
    'mount -o remount,ro "$AT"',
    'readOnlyFileSystem',
    /the file system of .* is mounted for reading only/,
  ],
] as const) {
  test(`${cause}: every way says so`, (t) => {
    if (!mayMount) {
      t.log('not tried: this user may not mount')
      return t.pass()
    }
    const from = prepared(t)
    const at = path.join(folder(t), 'mounted')
    mkdirSync(at)
    const file = path.join(at, 'fusion.db')
    const before = `AT='${at}'; FILE='${file}'; mount -t tmpfs -o ${options} tmpfs "$AT"; cp '${from}' "$FILE"
      { ${shell}
      } > /dev/null 2>&1`
    const said = Object.fromEntries(ways.map((way) => [way, go(t, way, file, { shell: before, mounts: true })]))
    agree(t, said, reason, sentence)
  })
}

test('a path that leads to no file: every way says so, and every command ends with 66', (t) => {
  const at = folder(t)
  writeFileSync(path.join(at, 'file'), '')
  const deep = path.join(at, ...Array.from({ length: 30 }, () => 'x'.repeat(20)))
  mkdirSync(deep, { recursive: true })
  for (const [file, reason, sentence] of [
    [path.join(at, 'x'.repeat(300)), 'pathTooLong', /too long/],
    [path.join(deep, 'a.db'), 'pathTooLong', /too long/],
    [path.join(at, 'file', 'a.db'), 'notADirectory', /file is not a directory/],
    [at, 'isADirectory', /it is a directory/],
    [path.join(at, 'none', 'a.db'), 'noDirectory', /there is no directory .*none/],
    [path.join(at, 'none.db'), 'noFile', /there is no such file/],
  ] as const) {
    // An open makes what is missing.
    const makes = reason === 'noDirectory' || reason === 'noFile'
    const commands: Way[] = ['cli backup', 'cli checkpoint', 'cli doctor']
    const ways: Way[] = makes ? commands : ['open', ...commands]
    const said = Object.fromEntries(ways.map((way) => [way, go(t, way, file)]))
    agree(t, said, reason, sentence)
    for (const way of commands) t.is(said[way]?.exitCode, 66, `${way} ${reason}`)
  }
})

test('a backup to a path that leads to no file says so', (t) => {
  const file = prepared(t)
  const at = folder(t)
  writeFileSync(path.join(at, 'file'), '')
  for (const [target, reason] of [
    [path.join(at, 'none', 'b.db'), 'noDirectory'],
    [path.join(at, 'file', 'b.db'), 'notADirectory'],
    [at, 'isADirectory'],
    [path.join(at, 'x'.repeat(300)), 'pathTooLong'],
  ] as const) {
    const { stdout } = spawnSync(process.execPath, [cli, 'backup', file, target, '--json'], { encoding: 'utf8' })
    t.is((JSON.parse(stdout) as { error: Said }).error.reason, reason, stdout)
  }
})

test('a -wal or -shm of another user: what writes says so, and so does the doctor', (t) => {
  if (!isRoot) {
    t.log('not tried: only root can become another user')
    return t.pass()
  }
  for (const [ending, mode] of [
    ['-wal', 0o644],
    ['-wal', 0o600],
    ['-shm', 0o644],
    ['-shm', 0o600],
  ] as const) {
    const file = prepared(t)
    chmodSync(path.dirname(file), 0o777)
    // As a process leaves them that was ended.
    const killed = `const db = new (require('node:sqlite').DatabaseSync)(process.argv[1])
      db.exec('INSERT INTO filler VALUES (1)'); process.kill(process.pid, 'SIGKILL')`
    spawnSync(process.execPath, ['-e', killed, file])
    for (const each of ['', '-wal', '-shm']) chmodSync(file + each, 0o666)
    chmodSync(file + ending, mode)
    for (const way of ['open', 'cli checkpoint', 'cli doctor'] as const) {
      const { reason, exitCode, message } = go(t, way, file, { user: NOBODY })
      t.regex(message, new RegExp(`no permission to (read|write) .*fusion\\.db${ending} \\(of user 0, mode 0`), way)
      // Where the doctor can read the database it is a finding, which has no reason.
      if (way !== 'cli doctor') t.is(reason, 'noPermission', `${way}: ${message}`)
      if (way !== 'open') t.is(exitCode, 70, `${way}: ${message}`)
    }
  }
})

test('a folder that cannot be made: the file system that refuses it is named', (t) => {
  if (!mayMount) {
    t.log('not tried: this user may not mount')
    return t.pass()
  }
  const at = path.join(folder(t), 'mounted')
  mkdirSync(at)
  const shell = `mount -t tmpfs -o ro tmpfs '${at}'`
  for (const file of [path.join(at, 'sub', 'a.db'), path.join(at, 'sub', 'deep', 'a.db')]) {
    const { reason, message } = go(t, 'open', file, { shell, mounts: true })
    t.is(reason, 'readOnlyFileSystem', message)
    t.true(message.includes(`the file system of ${at} is`), message)
  }
})
