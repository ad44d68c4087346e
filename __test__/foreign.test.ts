// Two copies of SQLite in one process on one file: found, answered, spared and protected. A second
// process is who sees whether a lock holds.

import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, readdirSync, cpSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import * as sqlite from '../index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-foreign-')))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

const info = sqlite.engineInfo()
/** Where locks can be lost. */
const unix = process.platform === 'win32' ? test.skip : test
/** Where they need not be. */
const ofd = info.lockKind === 'ofd' ? test : test.skip

let files = 0

/** What a process prints, as JSON. `script` finds the package, a database file and helpers. */
function play(
  script: string,
  { journalMode = 'wal', env = {} }: { journalMode?: string; env?: NodeJS.ProcessEnv } = {},
) {
  const file = path.join(folder, `${++files}.db`)
  const source = `
    const fs = require('node:fs')
    const { spawnSync } = require('node:child_process')
    const fusion = require(${JSON.stringify(root)})
    const { DatabaseSync } = require('node:sqlite')
    const file = ${JSON.stringify(file)}
    const warnings = []
    process.on('warning', ({ name, code, path }) => {
      if (name !== 'ExperimentalWarning') warnings.push([name, code, path])
    })
    const settled = () => new Promise(setImmediate)
    const answer = (body) => { try { return body() } catch (error) { return error.code + ' ' + (error.errcode ?? '') } }
    // Whether another process can write now.
    const stranger = () => spawnSync(process.execPath, ['--no-warnings', '--eval',
      "const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]);" +
      "try { db.exec('BEGIN IMMEDIATE; COMMIT'); console.log('writes') } catch (error) { console.log(error.errcode) }",
      file], { encoding: 'utf8' }).stdout.trim()
    const readAll = () => {
      for (const name of ['', '-wal', '-shm', '-journal']) if (fs.existsSync(file + name)) fs.readFileSync(file + name)
    }
    const descriptors = () => fs.readdirSync('/dev/fd').length
    {
      const db = new DatabaseSync(file)
      db.exec('PRAGMA journal_mode = ${journalMode}; CREATE TABLE t(x); INSERT INTO t VALUES (1)')
      db.close()
    }
    const main = async () => { ${script} }
    main().then((value) => console.log(JSON.stringify(value)))`
  const child = spawnSync(process.execPath, ['--no-warnings', '--eval', source], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, ...env },
  })
  if (child.status !== 0) throw new Error(`ended with ${child.status ?? child.signal}: ${child.stderr}`)
  return { file, seen: JSON.parse(child.stdout) as unknown }
}

for (const Class of ['DatabaseSync', 'HardenedDatabase']) {
  unix(`${Class} warns of node:sqlite on the same file, once, with the file and the remedy`, (t) => {
    const { file, seen } = play(`
      const other = new DatabaseSync(file)
      other.prepare('SELECT * FROM t').all()
      for (let i = 0; i < 3; i++) new fusion.${Class}(file).close()
      await settled()
      other.close()
      new fusion.${Class}(file).close()
      await settled()
      return warnings`)
    t.deepEqual(seen, [['FusionSqliteWarning', 'FUSION_FOREIGN_SQLITE', file]])
  })

  unix(`${Class} refuses the file where foreignHandles is 'error', and says nothing where it is 'ignore'`, (t) => {
    const { seen } = play(`
      const other = new DatabaseSync(file)
      const open = (foreignHandles) => answer(() => new fusion.${Class}(file, { foreignHandles }).close() ?? 'opened')
      const seen = [open('error'), open('ignore'), open('nonsense'), open(null)]
      other.close()
      seen.push(open('error'))
      await settled()
      return [...seen, warnings]`)
    const invalid = 'ERR_INVALID_ARG_TYPE '
    t.deepEqual(seen, ['ERR_FUSION_FOREIGN_SQLITE ', 'opened', invalid, invalid, 'opened', []])
  })
}

unix('a read-only node:sqlite and an uninvolved file are told apart', (t) => {
  const { seen } = play(
    `const other = new DatabaseSync(file, { readOnly: true })
    const first = answer(() => new fusion.DatabaseSync(file, { foreignHandles: 'error' }).close() ?? 'opened')
    const second = answer(() => new fusion.DatabaseSync(file + '2', { foreignHandles: 'error' }).close() ?? 'opened')
    other.close()
    return [first, second]`,
    { journalMode: 'delete' },
  )
  // Where descriptors do not tell O_NOFOLLOW a SQLite that only reads is not told from a copy.
  const readOnly = process.platform === 'linux' ? 'ERR_FUSION_FOREIGN_SQLITE ' : 'opened'
  t.deepEqual(seen, [readOnly, 'opened'])
})

unix('a copy of the file in flight is no SQLite', (t) => {
  const { seen } = play(`
    const held = ['', '-wal', '-shm'].map((name) => name === '' ? fs.openSync(file, 'r') : undefined)
    const first = new fusion.DatabaseSync(file, { foreignHandles: 'error' })
    first.prepare('SELECT * FROM t').all()
    held.push(fs.openSync(file + '-wal', 'r'), fs.openSync(file + '-shm', 'r'))
    const stream = fs.createReadStream(file)
    await new Promise((resolve) => stream.once('open', resolve))
    const second = new fusion.DatabaseSync(file, { foreignHandles: 'error' })
    second.close()
    first.close()
    return fusion.engineInfo().deferredCloses`)
  t.is(seen, 0)
})

unix('connections of its own, on any thread, are not foreign', (t) => {
  const { seen } = play(`
    const { Worker } = require('node:worker_threads')
    const options = JSON.stringify({ foreignHandles: 'error', timeout: 30_000 })
    const body = \`
      const { DatabaseSync } = require(${JSON.stringify(root)})
      for (let i = 0; i < 200; i++) {
        const db = new DatabaseSync(\${JSON.stringify(file)}, \${options})
        db.prepare('SELECT * FROM t').all()
        db.close()
      }\`
    const workers = Array.from({ length: 4 }, () => new Worker(body, { eval: true }))
    const ends = workers.map((worker) => new Promise((resolve, reject) => {
      worker.once('error', reject).once('exit', resolve)
    }))
    await Promise.all(ends)
    return [fusion.engineInfo().deferredCloses, fusion.engineInfo().forcedCloses]`)
  t.deepEqual(seen, [0, 0])
})

unix('another copy of this package is foreign', (t) => {
  const copy = path.join(folder, 'copy')
  mkdirSync(copy)
  for (const name of readdirSync(root)) {
    if (name.endsWith('.node') || /^(index|binding)\.js$/.test(name)) {
      copyFileSync(path.join(root, name), path.join(copy, name))
    }
  }
  for (const name of ['lib', 'native']) cpSync(path.join(root, name), path.join(copy, name), { recursive: true })
  const { seen } = play(`
    const other = new (require(${JSON.stringify(copy)}).DatabaseSync)(file)
    const refused = answer(() => new fusion.DatabaseSync(file, { foreignHandles: 'error' }))
    other.close()
    return refused`)
  t.is(seen, 'ERR_FUSION_FOREIGN_SQLITE ')
})

/** node:sqlite has a lock, and the files that it holds it on are read. */
const readWhileLocked = (protect: string) => `
    const told = ${protect}
    const db = new DatabaseSync(file)
    db.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (2)')
    const before = stranger()
    readAll()
    const after = stranger()
    const { nodeSqliteLocks } = fusion.engineInfo()
    return [told, before, after, nodeSqliteLocks]`

for (const journalMode of ['wal', 'delete']) {
  // With POSIX locks of its own each unlock would drop the other's lock: no close is needed.
  ofd(`closing drops no lock of node:sqlite, and no descriptor is left: ${journalMode}`, (t) => {
    const { seen } = play(
      `const other = new DatabaseSync(file)
      other.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (2)')
      const cycle = () => {
        const [first, second] = [1, 2].map(() => new fusion.DatabaseSync(file, { foreignHandles: 'ignore' }))
        first.prepare('SELECT * FROM t').all()
        second.close()
        first.close()
      }
      cycle()
      const { deferredCloses: after1 } = fusion.engineInfo()
      for (let i = 0; i < 50; i++) cycle()
      const { deferredCloses: after51, forcedCloses } = fusion.engineInfo()
      const during = stranger()
      other.exec('COMMIT')
      other.close()
      const before = descriptors()
      const last = new fusion.DatabaseSync(file, { foreignHandles: 'error' })
      const [{ n }] = last.prepare('SELECT count(*) AS n FROM t').all()
      last.close()
      return {
        during, n, forcedCloses, kept: after1 > 0, grown: after51 - after1,
        left: fusion.engineInfo().deferredCloses, fewer: descriptors() < before, after: stranger(),
      }`,
      { journalMode },
    )
    const expected = { during: '5', n: 2, forcedCloses: 0, kept: true, grown: 0, left: 0, fewer: true, after: 'writes' }
    t.deepEqual(seen, expected)
  })

  ofd(`a read of the live files drops node:sqlite's locks, but not once it is protected: ${journalMode}`, (t) => {
    t.deepEqual(play(readWhileLocked('null'), { journalMode }).seen, [null, '5', 'writes', 'posix'])
    const told = { protected: true, reason: null }
    const protectedTwice = '(fusion.protectNodeSqlite(), fusion.protectNodeSqlite())'
    t.deepEqual(play(readWhileLocked(protectedTwice), { journalMode }).seen, [told, '5', '5', 'ofd'])
  })
}

ofd('a writer on a protected node:sqlite loses no row to a copy of its files and short-lived writers', (t) => {
  const { seen } = play(`
    fusion.protectNodeSqlite()
    const db = new DatabaseSync(file)
    const write = () => { for (let i = 0; i < 50; i++) db.exec('INSERT INTO t VALUES (randomblob(300))') }
    write()
    readAll()
    for (let round = 0; round < 2; round++) {
      spawnSync(process.execPath, ['--no-warnings', '--eval',
        "const db = new (require('node:sqlite').DatabaseSync)(process.argv[1], { timeout: 5000 });" +
        "for (let i = 0; i < 50; i++) db.exec('INSERT INTO t VALUES (randomblob(300))'); db.close()", file])
      write()
    }
    db.close()
    const check = new fusion.DatabaseSync(file)
    return [check.prepare('PRAGMA integrity_check').all(), check.prepare('SELECT count(*) AS n FROM t').get().n]`)
  t.deepEqual(seen, [[{ integrity_check: 'ok' }], 251])
})

ofd('a protected node:sqlite and this package respect each other, and neither is foreign', (t) => {
  const { seen } = play(`
    fusion.protectNodeSqlite()
    const other = new DatabaseSync(file)
    other.exec('BEGIN IMMEDIATE')
    const db = new fusion.DatabaseSync(file, { foreignHandles: 'error' })
    const seen = [answer(() => db.exec('BEGIN IMMEDIATE'))]
    other.exec('INSERT INTO t VALUES (2); COMMIT')
    db.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (3)')
    seen.push(answer(() => other.exec('BEGIN IMMEDIATE')))
    const closing = new fusion.DatabaseSync(file)
    closing.close()
    seen.push(stranger())
    db.exec('COMMIT')
    seen.push(other.prepare('SELECT count(*) AS n FROM t').get().n, fusion.engineInfo().deferredCloses)
    db.close()
    other.close()
    return seen`)
  t.deepEqual(seen, ['ERR_SQLITE_ERROR 5', 'ERR_SQLITE_ERROR 5', '5', 3, 0])
})

ofd('files that were open before stay as they are, and work', (t) => {
  for (const journalMode of ['wal', 'delete']) {
    const { seen } = play(
      `const early = new DatabaseSync(file)
      early.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (2)')
      fusion.protectNodeSqlite()
      const late = new DatabaseSync(file)
      const seen = [late.prepare('SELECT count(*) AS n FROM t').get().n, answer(() => late.exec('BEGIN IMMEDIATE'))]
      seen.push(stranger())
      early.exec('COMMIT')
      late.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (3)')
      seen.push(stranger(), answer(() => early.exec('BEGIN IMMEDIATE')))
      late.exec('COMMIT')
      // It may be locked with POSIX locks, so it is reported and spared.
      seen.push(answer(() => new fusion.DatabaseSync(file, { foreignHandles: 'error' })))
      early.close()
      late.close()
      return [...seen, stranger()]`,
      { journalMode },
    )
    t.deepEqual(seen, [1, 'ERR_SQLITE_ERROR 5', '5', '5', 'ERR_SQLITE_ERROR 5', 'ERR_FUSION_FOREIGN_SQLITE ', 'writes'])
  }
})

ofd('worker threads that use a protected node:sqlite lose no row', (t) => {
  const { seen } = play(`
    const { Worker } = require('node:worker_threads')
    const body = \`
      const db = new (require('node:sqlite').DatabaseSync)(\${JSON.stringify(file)}, { timeout: 30000 })
      const fs = require('node:fs')
      for (let i = 0; i < 50; i++) {
        db.exec('INSERT INTO t VALUES (randomblob(300))')
        if (i % 10 === 0) fs.readFileSync(\${JSON.stringify(file)})
      }
      db.close()\`
    const start = () => {
      const worker = new Worker(body, { eval: true })
      return new Promise((resolve, reject) => { worker.once('error', reject).once('exit', resolve) })
    }
    const early = [start(), start()]
    fusion.protectNodeSqlite()
    await Promise.all([...early, start(), start()])
    const db = new fusion.DatabaseSync(file)
    return [db.prepare('PRAGMA integrity_check').all(), db.prepare('SELECT count(*) AS n FROM t').get().n]`)
  t.deepEqual(seen, [[{ integrity_check: 'ok' }], 201])
})

ofd('what cannot be protected is told', (t) => {
  const script = `const told = fusion.protectNodeSqlite()
    const { nodeSqliteLocks, nodeSqliteLocksReason } = fusion.engineInfo()
    return [told, nodeSqliteLocks, nodeSqliteLocksReason]`
  const posix = 'FUSION_SQLITE_LOCKS=posix is set in the environment'
  const { seen } = play(script, { env: { FUSION_SQLITE_LOCKS: 'posix' } })
  t.deepEqual(seen, [{ protected: false, reason: posix }, 'posix', posix])
  // Node's permission model forbids extensions.
  const forbidden = 'no extensions today'
  const refused = play(`DatabaseSync.prototype.loadExtension = () => { throw new Error('${forbidden}') }; ${script}`)
  t.deepEqual(refused.seen, [{ protected: false, reason: forbidden }, 'posix', forbidden])
})

const linux = process.platform === 'linux' && info.lockKind === 'ofd' ? test : test.skip

linux('its locks give another SQLite away where descriptors cannot be listed', (t) => {
  const inside = mkdtempSync(path.join(folder, 'no-list-'))
  const program = `
    const fs = require('node:fs')
    const { spawnSync } = require('node:child_process')
    const fusion = require(${JSON.stringify(root)})
    const { DatabaseSync } = require('node:sqlite')
    const open = (file) => {
      try { new fusion.DatabaseSync(file, { foreignHandles: 'error' }).close(); return 'opened' } catch (error) { return error.code }
    }
    const stranger = (file) => spawnSync(process.execPath, ['--no-warnings', '--eval',
      "const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]);" +
      "try { db.exec('BEGIN IMMEDIATE; COMMIT'); console.log('writes') } catch (error) { console.log(error.errcode) }",
      file], { encoding: 'utf8' }).stdout.trim()
    const seen = [fusion.engineInfo().foreignCheck]
    const other = new DatabaseSync('x.db')
    other.exec('PRAGMA journal_mode = wal; CREATE TABLE t (a)')
    seen.push(open('x.db'), open('y.db'))
    const writer = new DatabaseSync('z.db')
    const held = Array.from({ length: 3 }, () => new fusion.DatabaseSync('z.db', { foreignHandles: 'ignore' }))
    for (const db of held) db.prepare('SELECT * FROM sqlite_schema').all()
    writer.exec('BEGIN IMMEDIATE; CREATE TABLE t (a)')
    for (const db of held) db.close()
    seen.push(stranger('z.db'), fusion.engineInfo().deferredCloses > 0)
    writer.exec('COMMIT')
    writer.close()
    new fusion.DatabaseSync('z.db').close()
    seen.push(stranger('z.db'), fusion.engineInfo().deferredCloses)
    other.close()
    seen.push(open('x.db'), fusion.engineInfo().deferredCloses)
    console.log(JSON.stringify(seen))`
  const script = 'cd "$1" && mount -t tmpfs tmpfs /proc || exit 77; exec "$2" --no-warnings --eval "$3"'
  const args = ['-m', 'sh', '-c', script, 'sh', inside, process.execPath, program]
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8', timeout: 60_000 })
  if (error !== undefined || status === 77 || stderr.startsWith('unshare')) {
    t.log(`not tried: this user may not mount: ${stderr.trim()}`)
    return t.pass()
  }
  const found = 'ERR_FUSION_FOREIGN_SQLITE'
  // The descriptor of the open that was refused waits for the other SQLite's close.
  t.deepEqual(JSON.parse(stdout), ['impossible', found, 'opened', '5', true, 'writes', 1, 'opened', 0], stderr)
})
