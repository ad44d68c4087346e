// Errors by their cause: what the system refused, said in a sentence, with what to do.

import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase } from '../index.js'
import { database, folder } from './support.ts'

const require = createRequire(import.meta.url)
const index = require.resolve('../index.js')
const isRoot = process.getuid?.() === 0
const NOBODY = 65534

interface Told {
  code?: string
  reason?: string
  system?: string
  message: string
}

/** What a program of another process prints: an error, or what it made. Run as `user`, with `limits` of the shell. */
function inProcess(
  t: ExecutionContext,
  program: string,
  { user, limits }: { user?: number; limits?: string } = {},
): Told {
  const text = `
    const { HardenedDatabase, check, backupFile, recover } = require(${JSON.stringify(index)})
    const fs = require('node:fs')
    const say = (error) => {
      const { code, reason, system, message } = error ?? { message: 'no error' }
      console.log(JSON.stringify({ code, reason, system, message }))
    }
    ${user === undefined ? '' : `process.setgid(${user}); process.setuid(${user})`}
    ;(async () => { ${program} })().then(() => say(), say)`
  const command =
    limits === undefined
      ? [process.execPath, '-e', text]
      : ['sh', '-c', `${limits}; exec "$0" -e "$1"`, process.execPath, text]
  const { stdout, stderr } = spawnSync(command[0]!, command.slice(1), { encoding: 'utf8', timeout: 100_000 })
  const line = stdout.trim().split('\n').at(-1) ?? ''
  t.true(line.startsWith('{'), `${stdout}${stderr}`)
  return JSON.parse(line) as Told
}

/** What opening a database that is not there says. */
function opening(t: ExecutionContext, file: string): Told {
  return t.throws(() => new HardenedDatabase(file, { startupCheck: 'off' })) as unknown as Told
}

test('a path that leads to no file that could be made', (t) => {
  const inside = folder(t)
  mkdirSync(path.join(inside, 'directory'))
  writeFileSync(path.join(inside, 'file'), 'text')
  t.is(opening(t, path.join(inside, 'directory')).reason, 'isADirectory')
  t.is(opening(t, path.join(inside, 'file', 'x.db')).reason, 'notADirectory')
  const long = opening(t, path.join(inside, 'x'.repeat(300)))
  t.is(long.reason, 'pathTooLong')
  t.regex(long.message, /too long/)
  t.deepEqual(readdirSync(inside).toSorted(), ['directory', 'file'])
})

test('a connection that only reads says how it was opened', (t) => {
  const file = database(t)
  for (const [query, reason] of [
    ['mode=ro', 'openedReadOnly'],
    ['immutable=1', 'immutable'],
  ] as const) {
    const { reason: found, message } = inProcess(
      t,
      `const db = new HardenedDatabase('file:${file}?${query}', { readOnly: true })
       db.exec('CREATE TABLE x (a)')`,
    )
    t.is(found, reason, message)
    t.true(message.includes(query), message)
    t.false(/permission/.test(message), message)
  }
})

test('no descriptor is left', (t) => {
  const file = database(t)
  const { reason, system, message } = inProcess(
    t,
    `const open = []
     try { for (;;) open.push(fs.openSync('/dev/null')) } catch {}
     fs.closeSync(open.pop())
     new HardenedDatabase(${JSON.stringify(file)}, { startupCheck: 'off' })`,
    { limits: 'ulimit -n 64' },
  )
  t.is(reason, 'noDescriptors', message)
  t.is(system, 'EMFILE')
  t.regex(message, /ulimit -n/)
})

test('a -wal, a -shm and a folder of another user', (t) => {
  if (!isRoot) {
    t.log('not tried: only root can become another user')
    return t.pass()
  }
  for (const suffix of ['-wal', '-shm']) {
    const file = database(t)
    chmodSync(path.dirname(file), 0o777)
    chmodSync(file, 0o666)
    writeFileSync(file + suffix, '', { mode: 0o600 })
    chmodSync(file + suffix, 0o600)
    const refused = inProcess(t, `new HardenedDatabase(${JSON.stringify(file)}, { startupCheck: 'off' })`, {
      user: NOBODY,
    })
    t.is(refused.reason, 'noPermission', refused.message)
    t.true(refused.message.includes(file + suffix), refused.message)
    t.regex(refused.message, /chown|chmod/)
    // At once, not after the minutes that a lock is waited for.
    const repair = inProcess(t, `await recover(${JSON.stringify(file)}, { deadline: 60000 })`, { user: NOBODY })
    t.not(repair.code, 'ERR_FUSION_DEADLINE', repair.message)
  }
  const closed = path.join(folder(t), 'closed')
  mkdirSync(closed, { mode: 0o755 })
  chmodSync(path.dirname(closed), 0o755)
  const told = inProcess(t, `new HardenedDatabase(${JSON.stringify(path.join(closed, 'x.db'))})`, { user: NOBODY })
  t.is(told.reason, 'noPermission', told.message)
  t.true(told.message.includes(closed), told.message)
})

test('a full disk, and one without inodes', (t) => {
  const mounted = folder(t)
  const program = (body: string) => `
    const { HardenedDatabase } = require(${JSON.stringify(index)})
    const fs = require('node:fs')
    try { ${body}; console.log(JSON.stringify({ message: 'no error' })) } catch ({ reason, system, message }) {
      console.log(JSON.stringify({ reason, system, message }))
    }`
  const run = (options: string, body: string): Told | undefined => {
    const script = 'mount -t tmpfs -o "$1" tmpfs "$2" 2>/dev/null || exit 77; exec "$3" -e "$4"'
    const args = ['-m', 'sh', '-c', script, 'sh', options, mounted, process.execPath, program(body)]
    const { status, stdout, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8' })
    if (error !== undefined || status === 77 || /unshare/.test(stderr)) return undefined
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Told
  }
  const file = JSON.stringify(path.join(mounted, 'x.db'))
  const full = run(
    'size=1m',
    `const db = new HardenedDatabase(${file}); db.exec('CREATE TABLE t (a)')
     for (;;) db.prepare('INSERT INTO t VALUES (zeroblob(100000))').run()`,
  )
  if (full === undefined) {
    t.log('not tried: this user may not mount')
    return t.pass()
  }
  t.is(full.reason, 'diskFull', full.message)
  t.false(/permission/.test(full.message), full.message)
  const inodes = run(
    'nr_inodes=20',
    `for (let n = 0; ; n++) try { fs.writeFileSync(${JSON.stringify(mounted)} + '/' + n, '') } catch { break }
     new HardenedDatabase(${file})`,
  )
  t.is(inodes?.reason, 'noInodes', inodes?.message)
})

test('a limit on the length of files', (t) => {
  if (process.platform === 'win32') return t.pass('Windows has none')
  const file = path.join(folder(t), 'x.db')
  // Units of 512 or 1,024 bytes, as the shell has them. Node ignores SIGXFSZ, so that the write fails.
  const { reason, system, message } = inProcess(
    t,
    `const db = new HardenedDatabase(${JSON.stringify(file)}, { startupCheck: 'off' })
     db.exec('CREATE TABLE t (a)')
     for (let row = 0; row < 100; row++) db.prepare('INSERT INTO t VALUES (zeroblob(100000))').run()`,
    { limits: 'ulimit -f 1000' },
  )
  t.is(reason, 'fileTooLarge', message)
  t.is(system, 'EFBIG')
  t.regex(message, /ulimit -f/)
  const db = new HardenedDatabase(file)
  t.true(Number(db.prepare('SELECT count(*) n FROM t').get()!.n) > 0, 'what was committed before is there')
  db.close()
})
