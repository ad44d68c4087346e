// Many databases in one process: how many descriptors each takes, and that another SQLite is found
// among thousands of them.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import * as sqlite from '../index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-many-')))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

const ofd = sqlite.engineInfo().lockKind === 'ofd' ? test : test.skip

let folders = 0

/** What a process prints, as JSON. `script` finds the package and helpers. */
function play(script: string): unknown {
  const source = `
    const fs = require('node:fs')
    const path = require('node:path')
    const fusion = require(${JSON.stringify(root)})
    const { DatabaseSync } = require('node:sqlite')
    const folder = ${JSON.stringify(path.join(folder, String(++folders)))}
    fs.mkdirSync(folder)
    const schema = fs.readFileSync(${JSON.stringify(path.join(root, 'examples/fusion-schema.sql'))}, 'utf8')
    const files = (count, journalMode = 'wal') => Array.from({ length: count }, (_, i) => {
      const file = path.join(folder, i + '.db')
      if (i > 0) { fs.copyFileSync(path.join(folder, '0.db'), file); return file }
      const db = new DatabaseSync(file)
      db.exec('PRAGMA journal_mode = ' + journalMode)
      db.exec(schema)
      db.exec("INSERT INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')")
      db.close()
      return file
    })
    const read = (db) => db.prepare('SELECT count(*) AS n FROM tasks').get().n
    // What each descriptor of a database leads to.
    const descriptors = (file) => fs.readdirSync('/dev/fd').flatMap((fd) => {
      try { return [fs.readlinkSync('/dev/fd/' + fd)] } catch { return [] }
    }).filter((to) => to.startsWith(file)).map((to) => to.slice(file.length)).sort()
    const answer = (body) => { try { return body() ?? null } catch (error) { return error.code } }
    const main = async () => { ${script} }
    main().then((value) => console.log(JSON.stringify(value)))`
  const child = spawnSync(process.execPath, ['--no-warnings', '--eval', source], { encoding: 'utf8', timeout: 110_000 })
  if (child.status !== 0) throw new Error(`ended with ${child.status ?? child.signal}: ${child.stderr}`)
  return JSON.parse(child.stdout)
}

/** Where /dev/fd says what a descriptor leads to. */
const counted = process.platform === 'linux' ? ofd : test.skip

counted('a DatabaseSync has the descriptors that SQLite opens, and none is left', (t) => {
  const seen = play(`
    const [file] = files(1)
    const count = (open) => {
      const db = open()
      read(db)
      const found = descriptors(file)
      db.close()
      return found
    }
    const seen = [count(() => new DatabaseSync(file)), count(() => new fusion.DatabaseSync(file))]
    return [...seen, descriptors(file)]`) as string[][]
  t.deepEqual(seen, [['', '-shm', '-wal'], ['', '-shm', '-wal'], []])
})

counted('connections that come and go leave at most one descriptor behind while others are open', (t) => {
  const seen = play(`
    const [file] = files(1)
    const open = () => { const db = new fusion.DatabaseSync(file); read(db); return db }
    let first = open()
    const stays = open()
    first.close()
    for (let i = 0; i < 20; i++) open().close()
    const during = descriptors(file)
    stays.close()
    return [during, descriptors(file)]`)
  // The description that has the locks is that of the first connection.
  t.deepEqual(seen, [['', '', '-shm', '-wal'], []])
})

counted(
  'a HardenedDatabase has at most 5 descriptors while its writer has no connection, and 7 while it works',
  (t) => {
    const seen = play(`
    const [file] = files(1)
    const db = new fusion.HardenedDatabase(file)
    read(db)
    // The writer may be looking at the file.
    let idle = Infinity
    while (idle > 5) {
      idle = descriptors(file).length
      await new Promise(setImmediate)
    }
    const append = () => db.appendAgentLogs([{ taskId: 'T', text: 'text', type: 'text' }])
    let most = 0
    for (let i = 0; i < 20; i++) { await append(); most = Math.max(most, descriptors(file).length) }
    await db.closeAsync()
    return [idle, most, descriptors(file)]`) as [number, number, string[]]
    const [idle, most, left] = seen
    t.true(idle <= 5, `${idle} while idle`)
    t.true(most <= 7, `${most} at work`)
    t.deepEqual(left, [])
  },
)

for (const journalMode of ['wal', 'delete']) {
  for (const [what, prepare] of [
    ['has read', 'read(other)'],
    ['has done nothing yet', ''],
    ['is in a transaction', `other.exec('BEGIN IMMEDIATE')`],
  ]) {
    ofd(`among hundreds of databases another SQLite is found that ${what}: ${journalMode}`, (t) => {
      const seen = play(`
        const all = files(200, ${JSON.stringify(journalMode)})
        const dbs = all.map((file) => { const db = new fusion.DatabaseSync(file); read(db); return db })
        const open = (file) => answer(() => new fusion.DatabaseSync(file, { foreignHandles: 'error' }).close())
        const before = open(all[100])
        const other = new DatabaseSync(all[100])
        ${prepare}
        const during = [open(all[100]), open(all[99])]
        // Its locks are spared: whatever is closed now.
        for (const db of dbs.splice(0)) db.close()
        const { deferredCloses } = fusion.engineInfo()
        other.close()
        const after = open(all[100])
        return [before, during, deferredCloses > 0, after, fusion.engineInfo().deferredCloses]`)
      t.deepEqual(seen, [null, ['ERR_FUSION_FOREIGN_SQLITE', null], true, null, 0])
    })
  }
}

ofd('another SQLite that comes between a look and a close is spared', (t) => {
  const seen = play(`
    const [file] = files(1)
    const { spawnSync } = require('node:child_process')
    const stranger = () => spawnSync(process.execPath, ['--no-warnings', '--eval',
      "const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]);" +
      "try { db.exec('BEGIN IMMEDIATE; COMMIT'); console.log('writes') } catch (error) { console.log(error.errcode) }",
      file], { encoding: 'utf8' }).stdout.trim()
    // A process of its own has the file open, too: its lock is the one that the kernel names first.
    const third = require('node:child_process').spawn(process.execPath, ['--no-warnings', '--eval',
      "const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]);" +
      "db.prepare('SELECT * FROM tasks').all(); console.log('open'); process.stdin.on('end', () => db.close()).resume()",
      file], { stdio: ['pipe', 'pipe', 'inherit'] })
    await new Promise((resolve) => third.stdout.once('data', resolve))
    const [one, two] = [1, 2].map(() => new fusion.DatabaseSync(file))
    read(one)
    read(two)
    const other = new DatabaseSync(file)
    other.exec('BEGIN IMMEDIATE')
    one.close()
    two.close()
    const during = stranger()
    other.exec('COMMIT')
    other.close()
    third.stdin.end()
    await new Promise((resolve) => third.once('exit', resolve))
    return [during, stranger()]`)
  t.deepEqual(seen, ['5', 'writes'])
})
