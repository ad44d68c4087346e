// The files that the package makes next to a database: who may read them, how many of them there
// are, and what no copy is removed for.

import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { chownSync, chmodSync, copyFileSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { HardenedDatabase, backupFile, fileInfo, recover, restore } from '../index.js'
import { destroy, filled, leaves, readPage, writePage } from './helpers/damage.ts'
import { createSchema, database, entries, folder } from './support.ts'

const require = createRequire(import.meta.url)
const LOG = 'agentLogEntries'
const isRoot = process.getuid?.() === 0

/** The copies of originals of `file`, the newest first. */
function copies(file: string): string[] {
  const start = `${path.basename(file)}.damaged-`
  const names = readdirSync(path.dirname(file)).filter((name) => name.startsWith(start) && !name.endsWith('-wal'))
  return names.sort().reverse()
}

/** Destroys the header, without which all rows can be found. */
async function destroyHeader(file: string) {
  const page = await readPage(file, 1)
  page.fill(0x5a, 0, 100)
  await writePage(file, 1, page)
}

for (const mode of [0o600, 0o640]) {
  test(`every file next to a database of mode ${mode.toString(8)} has its mode, and its owner`, async (t) => {
    if (process.platform === 'win32') return t.pass('Windows has no modes')
    const file = path.join(folder(t), 'fusion.db')
    writeFileSync(file, '', { mode })
    chmodSync(file, mode)
    const setUp = new HardenedDatabase(file)
    createSchema(setUp)
    setUp.close()
    if (isRoot) chownSync(file, 65534, 65534)
    else t.log('not root: the owner is this user in any case')
    const allAre = (when: string) => {
      for (const name of readdirSync(path.dirname(file))) {
        const { mode: of, uid, gid } = statSync(path.join(path.dirname(file), name))
        t.is((of & 0o777).toString(8), mode.toString(8), `${name}, ${when}`)
        if (isRoot) t.deepEqual([uid, gid], [65534, 65534], `${name}, ${when}`)
      }
    }
    const before = process.umask(0o022)
    t.teardown(() => process.umask(before))
    const db = new HardenedDatabase(file)
    await db.appendAgentLogs(entries(3000))
    await db.backup()
    await db.backup()
    allAre('two backups')
    await db.restore(`${file}.backup`)
    allAre('a restore')
    await db.closeAsync()
    destroy(file, leaves(file, LOG).slice(3, 6))
    await recover(file, { to: path.join(path.dirname(file), 'rescued.db') })
    allAre('a recovery into another file')
    await recover(file)
    allAre('a repair')
    await destroyHeader(file)
    await restore(file, `${file}.backup`)
    allAre('a restore over a destroyed header')
    await backupFile(file, path.join(path.dirname(file), 'other.backup'))
    t.true(copies(file).length > 0)
    allAre('the end')
  })
}

test('an original that was kept by a repair that did not end is not copied again', async (t) => {
  const file = await filled(t, 2000)
  destroy(file, leaves(file, LOG).slice(3, 6))
  const kept = `${file}.damaged-20200101T000000Z`
  copyFileSync(file, kept)
  const { outcome, preserved } = await recover(file)
  t.is(outcome, 'salvaged')
  t.is(preserved!.database, kept)
  t.deepEqual(copies(file), [path.basename(kept)])
})

test('originals that the database has all of are removed but for the newest; others stay', async (t) => {
  const file = await filled(t, 500)
  // May hold what the database does not.
  const unknown = `${file}.damaged-20200101T000000Z`
  writeFileSync(unknown, 'an original')
  for (let round = 0; round < 5; round++) {
    const db = new HardenedDatabase(file, { onCorruption: 'throw' })
    await db.appendAgentLogs(entries(1, `round ${round} `))
    await db.closeAsync()
    await destroyHeader(file)
    const original = readFileSync(file)
    const report = await recover(file, { keepCopies: 2 })
    t.is(report.outcome, 'salvaged')
    t.is(report.totals.knownLost, 0)
    t.true(report.preserved!.database.endsWith('-recovered'), report.preserved!.database)
    t.true(report.text.includes(report.preserved!.database))
    t.deepEqual(readFileSync(report.preserved!.database), original)
  }
  t.is(copies(file).length, 3, `two and the one that is not certain: ${copies(file)}`)
  t.true(copies(file).includes(path.basename(unknown)))
  const { beside } = await fileInfo(file)
  const listed = beside.filter(({ kind }) => kind === 'preserved')
  t.deepEqual(listed.map(({ recovered }) => recovered).sort(), [false, true, true])

  destroy(file, leaves(file, LOG).slice(1, 3))
  const lossy = await recover(file, { keepCopies: 0 })
  t.false(lossy.preserved!.database.endsWith('-recovered'))
  t.deepEqual(copies(file), [path.basename(lossy.preserved!.database), path.basename(unknown)])
})

test('a restore that is made twice keeps what was before it once', async (t) => {
  const file = await filled(t, 500)
  await backupFile(file, `${file}.backup`)
  const first = await restore(file, `${file}.backup`)
  const second = await restore(file, `${file}.backup`)
  t.is(second.preserved!.database, first.preserved!.database)
})

test('keepCopies is checked', async (t) => {
  const file = await filled(t, 10)
  for (const keepCopies of [-1, 1.5, NaN, '3']) {
    const options = { keepCopies } as unknown as { keepCopies: number }
    const rejected = await t.throwsAsync(async () => void (await recover(file, options)))
    const thrown = t.throws(() => new HardenedDatabase(file, options))
    for (const { code } of [rejected, thrown] as { code?: string }[])
      t.regex(code!, /^ERR_(OUT_OF_RANGE|INVALID_ARG_TYPE)$/)
  }
})

test('a database that is mounted as a single file is refused, unless hard links are allowed', (t) => {
  const file = database(t)
  const other = path.join(folder(t), 'other.db')
  writeFileSync(other, '')
  const program = `
    const { HardenedDatabase, fileInfo } = require(${JSON.stringify(require.resolve('../index.js'))})
    let code
    try { new HardenedDatabase(${JSON.stringify(other)}).close() } catch (error) { code = error.code }
    const db = new HardenedDatabase(${JSON.stringify(other)}, { allowHardLinks: true })
    db.close()
    fileInfo(${JSON.stringify(other)}).then(({ fileMount }) => console.log(JSON.stringify({ code, fileMount })))`
  // A mount namespace of its own: nothing of this one changes.
  const script = 'mount --bind "$1" "$2" 2>/dev/null || exit 77; exec "$3" -e "$4"'
  const args = ['-m', 'sh', '-c', script, 'sh', file, other, process.execPath, program]
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8' })
  if (error !== undefined || status === 77 || /unshare/.test(stderr)) {
    t.log(`not tried: this user may not mount (${error?.message ?? stderr.trim()})`)
    return t.pass()
  }
  t.is(status, 0, stderr)
  t.deepEqual(JSON.parse(stdout), { code: 'ERR_FUSION_FILE_MOUNT', fileMount: true })
})
