// `npx fusion-sqlite …` as its users meet it: processes, exit codes, what is printed, what becomes of
// the file.

import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { PassThrough } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import type { ExecutionContext } from 'ava'
import test from 'ava'
import {
  DatabaseSync,
  type Health,
  type PageMap,
  type RecoveryReport,
  fileInfo,
  pageMap,
  pageMapSvg,
} from '../index.js'
import { Other, folder } from './support.ts'

const internal = createRequire(import.meta.url)
const { Terminal } = internal('../lib/doctor/terminal.js')
const { withConsent } = internal('../lib/doctor/consent.js')
const { isWhole } = internal('../lib/doctor/report.js')
const { tooltip } = internal('../lib/doctor/map-states.js')
const { pageList } = internal('../lib/doctor/format.js')
const { shown } = internal('../lib/shown.js')
const program = fileURLToPath(new URL('../bin/fusion-sqlite.js', import.meta.url))
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

/** What every escape code begins with. */
const ESCAPE = '\x1b'

interface Result {
  code: number
  out: string
  err: string
}

/** Runs the program to its end. Its streams are no terminal. */
function cli(...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, ...args], { timeout: 60_000 }, (error, out, err) => {
      resolve({ code: child.exitCode ?? -1, out, err })
    })
  })
}

/** What it prints with `--json`: one object and nothing else. */
async function json(...args: string[]) {
  const { code, out } = await cli(...args, '--json')
  const answer = JSON.parse(out) as { exitCode: number; command: string; [more: string]: unknown }
  if (answer.exitCode !== code) throw new Error(`exit code ${code}, but it said ${out}`)
  return answer
}

const ROWS = 2000

/** A database of 2,000 rows with an index, that nobody has open. */
function sound(t: ExecutionContext, journalMode = 'wal'): string {
  const file = path.join(folder(t), 'fusion.db')
  const db = new DatabaseSync(file)
  db.exec(`
    PRAGMA journal_mode = ${journalMode};
    CREATE TABLE logs (id INTEGER PRIMARY KEY, task TEXT NOT NULL, text TEXT);
    CREATE INDEX logs_by_task ON logs (task, id);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    INSERT INTO logs SELECT i, 'FN-' || i % 17, 'entry number ' || i || hex(zeroblob(60)) FROM n;
  `)
  db.close()
  return file
}

/** The pages of a table that hold rows, in the file's order. */
async function leaves(file: string, name: string): Promise<number[]> {
  const { owners, runs } = await pageMap(file)
  const owner = owners.findIndex((candidate) => candidate.name === name)
  return runs
    .filter((run) => run.owner === owner && run.role === 'leaf')
    .flatMap((run) => Array.from({ length: run.pages }, (_, index) => run.first + index))
}

/** Overwrites pages; the file is not open. */
function destroy(file: string, pages: number[]): void {
  const bytes = readFileSync(file)
  for (const page of pages) bytes.fill(0xa5, (page - 1) * 4096, page * 4096)
  writeFileSync(file, bytes)
}

async function damaged(t: ExecutionContext): Promise<{ file: string; pages: number[] }> {
  const file = sound(t)
  const pages = (await leaves(file, 'logs')).slice(4, 7)
  destroy(file, pages)
  return { file, pages }
}

/** Fails unless `xml` is well-formed, as far as SVG files of this package go. */
function assertWellFormed(t: ExecutionContext, xml: string): void {
  const token = /<(\/?)([a-zA-Z]+)((?: [a-zA-Z:-]+="[^"<&]*(?:&#\d+;[^"<&]*)*")*)(\/?)>|[^<&]+|&#\d+;/gy
  const open: string[] = []
  let end = 0
  for (let match = token.exec(xml); match !== null; match = token.exec(xml)) {
    end = token.lastIndex
    const [, closes, name, , empty] = match
    if (name === undefined || empty) continue
    if (closes) t.is(open.pop(), name)
    else open.push(name)
  }
  t.is(end, xml.length, `not XML from here on: ${xml.slice(end, end + 80)}`)
  t.deepEqual(open, [])
}

test('a sound database is healthy, and is left as it is', async (t) => {
  const file = sound(t)
  const before = readFileSync(file)
  const { code, out, err } = await cli('doctor', file)
  t.is(code, 0)
  t.regex(out, /healthy/)
  t.false((out + err).includes(ESCAPE))
  t.deepEqual(readFileSync(file), before)
  t.deepEqual(readdirSync(path.dirname(file)), ['fusion.db'])
})

test('a damaged database is explained and not touched', async (t) => {
  const { file } = await damaged(t)
  const before = readFileSync(file)
  const { code, out, err } = await cli('doctor', file)
  t.is(code, 2)
  t.regex(out, /Table logs is damaged/)
  t.regex(out, /What it means:/)
  t.regex(out, /--repair/)
  t.false((out + err).includes(ESCAPE))
  t.deepEqual(readFileSync(file), before)

  const answer = await json('doctor', file, '--quick')
  t.is(answer.command, 'doctor')
  const health = answer.health as Health
  t.is(health.kind, 'quick')
  t.true(health.findings.some((finding) => finding.type === 'tableDamage' && finding.table === 'logs'))
  t.deepEqual(readFileSync(file), before)
})

test('a repair is carried out when asked for, told, and the original kept', async (t) => {
  const { file } = await damaged(t)
  const before = readFileSync(file)
  const answer = await json('doctor', file, '--repair')
  // Three pages of rows are gone for good.
  t.is(answer.exitCode, 2)
  const report = answer.report as RecoveryReport
  t.is(report.outcome, 'salvaged')
  t.deepEqual(readFileSync(report.preserved!.database), before)
  const { recovered, lostAndFound, fromBackup, knownLost } = report.totals
  t.deepEqual([recovered + knownLost!, lostAndFound, fromBackup], [ROWS, 0, 0])
  t.true(knownLost! > 0)
  const again = await cli('doctor', file)
  t.is(again.code, 0)

  const { file: other } = await damaged(t)
  const { code, out } = await cli('doctor', other, '--repair')
  t.is(code, 2)
  t.regex(out, /logs: [\d,]+ rows recovered/)
  t.regex(out, /original is kept as .*\.damaged-/)
  t.regex(out, /\nIn all: [\d,]+ rows recovered; [\d,]+ rows are known to be lost\.\n$/)
})

test('a locked database is no damaged one, and who holds it is told', async (t) => {
  const file = sound(t, 'delete')
  const other = new Other(t, 'hold-lock.mjs', [file, 'BEGIN EXCLUSIVE'])
  await other.says('locked')
  const { code, out } = await cli('doctor', file)
  t.is(code, 3)
  t.regex(out, /locked/)
  t.notRegex(out, /damaged/)
  if (process.platform === 'linux') t.true(out.includes(`process ${other.process.pid}`))
  const about = await json('info', file)
  t.is(about.exitCode, 3)
  other.tell('release')
  await other.says('released')
})

test('what makes no sense is refused with 64, a file that is not there with 66', async (t) => {
  const file = sound(t)
  for (const args of [
    [],
    ['nonsense'],
    ['doctor'],
    ['doctor', file, file],
    ['doctor', file, '--nonsense'],
    ['doctor', file, '--map', file],
    ['backup', file, '--keep', '1'],
    ['backup', file, '--verify', 'a bit'],
    ['checkpoint', file, '--mode', 'sideways'],
    ['restore', file],
    ['recover', file, file],
    ['__proto__', file],
  ]) {
    const { code, out, err } = await cli(...args)
    t.is(code, 64, args.join(' '))
    t.is(out, '')
    t.regex(err, /^fusion-sqlite: /)
  }
  t.is((await cli('doctor', `${file}.nowhere`)).code, 66)
  const beside = await cli('doctor', path.dirname(file))
  t.is(beside.code, 66)
  t.regex(beside.err, /it is a directory. Name a file inside it/)
  t.is((await cli('restore', file, `${file}.nowhere`)).code, 66)
  t.false(existsSync(`${file}.nowhere`))
})

test('help and version are told', async (t) => {
  const { code, out } = await cli('--help')
  t.is(code, 0)
  for (const command of ['doctor', 'info', 'backup', 'restore', 'checkpoint', 'recover']) {
    t.true(out.includes(`  ${command} `))
    const help = await cli(command, '--help')
    t.is(help.code, 0)
    t.true(help.out.includes(`Usage: fusion-sqlite ${command} `))
  }
  t.is((await cli('--version')).out.trim(), version)
})

test('the page map is a picture with the damaged pages in it', async (t) => {
  const { file, pages } = await damaged(t)
  const target = path.join(path.dirname(file), 'map.svg')
  const answer = await json('doctor', file, '--map', target)
  t.is(answer.exitCode, 2)
  const svg = readFileSync(target, 'utf8')
  assertWellFormed(t, svg)
  t.true(svg.includes('3 pages damaged'))
  t.true(svg.includes('logs_by_task'))
  const titles = [...svg.matchAll(/<title>([^<]*)<\/title>/g)].map((match) => match[1])
  const told = titles.filter((title) => title?.endsWith('damaged')).join()
  for (const page of [pages.at(0), pages.at(-1)]) t.true(told.includes(String(page)), told)
})

test('names that are no XML, and maps of any size, make a picture', async (t) => {
  const file = path.join(folder(t), 'odd <&> "name" \u0007.db')
  const db = new DatabaseSync(file)
  db.exec(`CREATE TABLE "<&>'"" ]]> \u0001 ☃" (a); CREATE TABLE "${'x'.repeat(500)}" (a)`)
  db.close()
  const map = await pageMap(file)
  const svg = pageMapSvg(map)
  assertWellFormed(t, svg)
  t.true(svg.includes('&#60;&#38;&#62;'))
  t.false(svg.includes('\u0001'))

  // A large file in which hardly two neighbours are alike.
  const pages = 2_000_000
  const cells = 50_000
  const perCell = pages / cells
  const runs: PageMap['runs'] = Array.from({ length: cells }, (_, index) => ({
    first: index * perCell + 1,
    pages: perCell,
    owner: index % 2,
    role: 'leaf',
    damaged: index === 31_415,
  }))
  const large = pageMapSvg({ ...map, pages, pagesPerCell: perCell, runs, damagedPages: 1 })
  assertWellFormed(t, large)
  t.true(large.includes('Each square stands for 40 pages'))
  t.true(large.includes('class="ring"'))
  t.true(large.length < 2_000_000, `${large.length} characters`)
})

test('a page map of a file in use does not keep anybody from writing', async (t) => {
  const file = sound(t)
  const writer = new DatabaseSync(file)
  writer.exec('BEGIN IMMEDIATE; UPDATE logs SET text = upper(text)')
  const map = await pageMap(file)
  t.is(map.damagedPages, 0)
  writer.exec('COMMIT')
  t.true((await pageMap(file)).pagesFromWal > 0)
  writer.close()
  await t.throwsAsync(pageMap(file, { resolution: 0 }), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(pageMap(file, { signal: AbortSignal.abort(new Error('no')) }), { message: 'no' })
  await t.throwsAsync(fileInfo(`${file}.nowhere`), { code: 'ERR_SQLITE_ERROR' })
})

test('info tells what is known, and changes nothing', async (t) => {
  const file = sound(t)
  const other = new Other(t, 'hold-lock.mjs', [file])
  await other.says('locked')
  const { out, code } = await cli('info', file)
  t.is(code, 0)
  t.regex(out, /journal mode +wal/)
  if (process.platform === 'linux') {
    t.true(out.includes(`process ${other.process.pid}`))
    t.regex(out, /writes/)
  }
  other.tell('release')
  await other.says('released')
  await other.ended
  const before = readdirSync(path.dirname(file))
  const { info } = (await json('info', file)) as unknown as { info: { database: { lastWriter: string } } }
  t.regex(info.database.lastWriter, /^3\.\d+\.\d+$/)
  t.deepEqual(readdirSync(path.dirname(file)), before)
})

/** A process that commits into the WAL and dies: the WAL stays. */
async function withWal(t: ExecutionContext, file: string): Promise<void> {
  const other = new Other(t, 'hold-lock.mjs', [
    file,
    'UPDATE logs SET text = text || id WHERE id < 100; BEGIN IMMEDIATE',
  ])
  await other.says('locked')
  other.process.kill('SIGKILL')
  await other.ended
}

test('a checkpoint is made of a sound database, and not of a damaged one', async (t) => {
  const file = sound(t)
  await withWal(t, file)
  t.true(statSync(`${file}-wal`).size > 0)
  const answer = await json('checkpoint', file)
  t.is(answer.exitCode, 0)
  t.false(existsSync(`${file}-wal`) && statSync(`${file}-wal`).size > 0)

  await withWal(t, file)
  destroy(file, (await leaves(file, 'logs')).slice(-3))
  const before = [readFileSync(file), readFileSync(`${file}-wal`)]
  const { code, out } = await cli('checkpoint', file)
  t.is(code, 2)
  t.regex(out, /No checkpoint was made/)
  t.deepEqual([readFileSync(file), readFileSync(`${file}-wal`)], before)
})

test('backups, restores and recoveries are made', async (t) => {
  const { file } = await damaged(t)
  const target = path.join(path.dirname(file), 'new.db')
  t.is((await cli('backup', file)).code, 2)
  t.false(existsSync(`${file}.backup`))
  const recovered = await cli('recover', file, target)
  // Rows are missing.
  t.is(recovered.code, 2)
  t.true(recovered.out.startsWith(`What could be read of ${file} is in ${target}. ${file} was not changed.\n`))
  t.notRegex(recovered.out, /repaired/)
  const whole = path.join(path.dirname(file), 'whole.db')
  t.is((await cli('recover', target, whole)).code, 0)
  t.is((await cli('doctor', target)).code, 0)
  t.is((await cli('doctor', file)).code, 2)

  t.is((await cli('backup', target)).code, 0)
  const second = await json('backup', target, '--keep', '3', '--verify', 'quick')
  t.is(second.exitCode, 0)
  t.deepEqual((second.result as { kept: string[] }).kept, [`${target}.backup.1`])
  const restored = await json('restore', file, `${target}.backup`)
  t.is(restored.exitCode, 0)
  t.is((await cli('doctor', file)).code, 0)
})

test('a repair that has to wait says so, and who is in the way, and can be given up', async (t) => {
  const { file } = await damaged(t)
  const before = readFileSync(file)
  const other = new Other(t, 'hold-lock.mjs', [file])
  await other.says('locked')
  // As a process is that hangs: it gives nothing up.
  other.process.kill('SIGSTOP')
  const child = spawn(process.execPath, [program, 'doctor', file, '--repair'])
  let told = ''
  let interrupted = false
  const ended = once(child, 'exit')
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      told += text
      const waits = told.includes('waits until') && told.includes(`process ${other.process.pid}`)
      // A second one would end it at once.
      if (waits && !interrupted) interrupted = child.kill('SIGINT')
    })
  }
  t.deepEqual(await ended, [130, null], told)
  t.regex(told, /locks: .*writes/)
  t.deepEqual(readFileSync(file), before)
  other.process.kill('SIGCONT')
  other.tell('release')
  await other.says('released')
  t.is((await cli('doctor', file, '--repair')).code, 2)
})

test('an empty file is said to be empty', async (t) => {
  const file = path.join(folder(t), 'empty.db')
  writeFileSync(file, '')
  const { code, out } = await cli('doctor', file)
  t.is(code, 0)
  t.regex(out, /is empty.*restore a backup/s)
  t.is((await cli('doctor', sound(t))).out.includes('empty'), false)
})

test('what is mistaken for a command or cannot be drawn to is told with what to do', async (t) => {
  const file = sound(t)
  const noCommand = await cli(file)
  t.is(noCommand.code, 64)
  t.true(noCommand.err.includes(`fusion-sqlite doctor ${file}`), noCommand.err)
  const target = path.join(folder(t), 'nowhere', 'map.svg')
  const noFolder = await cli('doctor', file, '--map', target)
  t.is(noFolder.code, 64)
  t.regex(noFolder.err, /there is no such folder/)
  t.is(noFolder.out, '')
})

test('Ctrl-C ends it with 130 and leaves the file as it is', async (t) => {
  if (process.platform !== 'linux') return t.pass('it cannot be seen when the process has begun')
  const file = sound(t, 'delete')
  const other = new Other(t, 'hold-lock.mjs', [file, 'BEGIN EXCLUSIVE'])
  await other.says('locked')
  const before = readFileSync(file)
  const child = spawn(process.execPath, [program, 'doctor', file, '--repair'], { timeout: 60_000 })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const ended = once(child, 'close')
  // It waits for the lock: it has the file open.
  for (;;) {
    const { holders } = await fileInfo(file)
    if (holders.processes?.some(({ pid }) => pid === child.pid)) break
    if (child.exitCode !== null) return t.fail(`it ended with ${child.exitCode}: ${err}`)
  }
  child.kill('SIGINT')
  const [code] = await ended
  t.is(code, 130)
  t.regex(err, /cancelled/)
  t.false(err.includes(ESCAPE))
  t.deepEqual(readFileSync(file), before)
})

/** Files that never were databases, by name. */
const STRANGERS: Record<string, Buffer> = {
  'package.json': Buffer.from(
    JSON.stringify({ name: 'package', files: Array.from({ length: 4000 }, (_, i) => `f${i}`) }),
  ),
  'notes.txt': Buffer.from('no database\r\n'.repeat(2000)),
  'picture.png': Buffer.from(Array.from({ length: 50_000 }, (_, at) => (at * at * 31) % 251)),
  zeros: Buffer.alloc(20_000),
  'short.db': Buffer.from('not a database'),
}

test('what never was a database is said to be none, and no repair of it is offered', async (t) => {
  for (const [name, before] of Object.entries(STRANGERS)) {
    const file = path.join(folder(t), name)
    writeFileSync(file, before)
    const { code, out } = await cli('doctor', file, '--map', `${file}.svg`)
    t.is(code, 2, out)
    t.regex(out, /not an SQLite database/)
    t.regex(out, /There is nothing to repair/i)
    t.notRegex(out, /--repair/)
    const answer = await json('doctor', file, '--repair')
    t.is(answer.exitCode, 2)
    t.is((answer.error as { code: string }).code, 'ERR_FUSION_UNRECOVERABLE')
    const { findings } = answer.health as Health
    t.true(findings.some((finding) => finding.type === 'notADatabase' && !finding.wasDatabase))
    t.is((await cli('info', file)).code, 2)
    t.deepEqual(readFileSync(file), before)
    t.deepEqual(
      readdirSync(path.dirname(file)).filter((other) => other !== name && !other.endsWith('.svg')),
      [],
    )
  }
})

test('what was a database is told from what never was one by what is left of it', async (t) => {
  const traces: Record<string, (file: string) => void> = {
    // Rows behind the first page.
    pages: () => {},
    // Half of the magic, and nothing else.
    magic: (file) => writeFileSync(file, Buffer.concat([Buffer.from('SQLite format 3'), Buffer.alloc(9000, 'x')])),
    snapshot: (file) => {
      writeFileSync(`${file}-schema`, 'fusion-sqlite schema 1 0\n{}')
      writeFileSync(file, 'x'.repeat(9000))
    },
    journal: (file) => {
      writeFileSync(`${file}-journal`, Buffer.from('d9d505f920a163d700000000', 'hex'))
      writeFileSync(file, 'x'.repeat(9000))
    },
  }
  for (const [name, leave] of Object.entries(traces)) {
    const file = sound(t)
    destroy(file, [1])
    leave(file)
    const { code, out } = await cli('doctor', file)
    t.is(code, 2, name)
    t.regex(out, /The first page of the database was overwritten/, name)
    t.regex(out, /--repair/, name)
  }
})

test('a file of a database that is named in its place names the database', async (t) => {
  const file = sound(t)
  const db = new DatabaseSync(file)
  db.exec('INSERT INTO logs (task, text) VALUES (1, 2)')
  for (const ending of ['-wal', '-shm']) {
    const before = readFileSync(file + ending)
    const { code, err } = await cli('doctor', file + ending, '--repair')
    t.is(code, 66)
    t.true(err.includes(`is the ${ending} of ${file}`), err)
    t.deepEqual(readFileSync(file + ending), before)
  }
  db.close()
  writeFileSync(`${file}-journal`, Buffer.from('d9d505f920a163d7', 'hex'))
  t.true((await cli('doctor', `${file}-journal`)).err.includes(`is the -journal of ${file}`))
  // Its database is gone.
  const alone = path.join(folder(t), 'gone.db-wal')
  writeFileSync(alone, Buffer.from('377f068200000000', 'hex'))
  t.regex((await cli('doctor', alone)).err, /which is not there/)
  // A database may be called so.
  const called = path.join(folder(t), 'called-wal')
  writeFileSync(called, readFileSync(file))
  t.is((await cli('doctor', called)).code, 0)
})

if (process.platform !== 'win32') {
  test('a pipe is not waited for', async (t) => {
    const pipe = path.join(folder(t), 'pipe.db')
    execFileSync('mkfifo', [pipe])
    for (const command of ['doctor', 'info']) {
      const { code, err } = await cli(command, pipe)
      t.is(code, 66)
      t.regex(err, /not a regular file/)
    }
  })
}

/** A database as a process leaves it that ends in a transaction. */
function cutOff(t: ExecutionContext): string {
  const file = sound(t, 'delete')
  const copy = path.join(folder(t), 'fusion.db')
  const db = new DatabaseSync(file)
  db.exec("PRAGMA cache_size = 10; BEGIN; UPDATE logs SET text = text || 'cut off'")
  for (const ending of ['', '-journal']) writeFileSync(copy + ending, readFileSync(file + ending))
  db.exec('ROLLBACK')
  db.close()
  return copy
}

test('a transaction that was cut off is explained, and rolled back only if asked to', async (t) => {
  const file = cutOff(t)
  const before = [readFileSync(file), readFileSync(`${file}-journal`)]
  const { code, out, err } = await cli('doctor', file)
  t.is(code, 0, err)
  t.regex(out, /healthy/)
  t.regex(out, /A transaction was cut off/)
  t.notRegex(out + err, /permission/)
  const info = await json('info', file)
  t.is(info.exitCode, 0)
  t.deepEqual([readFileSync(file), readFileSync(`${file}-journal`)], before)
  t.deepEqual(readdirSync(path.dirname(file)), ['fusion.db', 'fusion.db-journal'])

  const answer = await json('doctor', file, '--repair')
  t.is(answer.exitCode, 0)
  t.regex((answer.report as { text: string }).text, /rolled back/)
  t.deepEqual(readdirSync(path.dirname(file)), ['fusion.db'])
  const db = new DatabaseSync(file)
  const { rows } = db.prepare("SELECT count(*) AS rows FROM logs WHERE text LIKE '%cut off'").get() as { rows: number }
  t.is(rows, 0)
  db.close()
})

test('a database whose first page is overwritten is drawn and repaired', async (t) => {
  const file = sound(t)
  t.is((await cli('backup', file)).code, 0)
  destroy(file, [1])
  const target = path.join(path.dirname(file), 'map.svg')
  const answer = await json('doctor', file, '--repair', '--map', target)
  t.is(answer.exitCode, 1)
  const svg = readFileSync(target, 'utf8')
  assertWellFormed(t, svg)
  t.true(svg.includes('names from the saved schema'))
  t.true(svg.includes('logs_by_task'))
  const db = new DatabaseSync(file)
  t.deepEqual({ ...db.prepare('SELECT count(*) AS rows, max(id) AS last FROM logs').get() }, { rows: ROWS, last: ROWS })
  db.close()
})

/** A terminal that remembers what was written to it. */
function screen(env: Record<string, string> = {}, more: object = {}) {
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() }
  const written = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    streams[name].setEncoding('utf8').on('data', (text: string) => (written[name] += text))
    Object.assign(streams[name], { isTTY: true, columns: 60 }, more)
  }
  Object.assign(streams.stdin, { isTTY: true }, more)
  return { terminal: new Terminal({ ...streams, env }), streams, written }
}

test('on a terminal one line tells how far it is, and is gone at the end', (t) => {
  const { terminal, written } = screen()
  const progress = terminal.progress()
  for (const done of [0, 500, 1000]) progress({ stage: 'reading pages', done, total: 1000 })
  t.regex(written.stderr, /50 %/)
  t.false(written.stderr.includes('\n'))
  for (const line of written.stderr.split('\r')) {
    t.true([...stripVTControlCharacters(line)].length < 60, line)
  }
  terminal.line('done')
  t.true(written.stderr.startsWith('\x1b[?25l'))
  t.true(written.stderr.endsWith('\r\x1b[2K\x1b[?25h'))
  t.is(written.stdout, 'done\n')
})

test('colours only where they are wanted', (t) => {
  const red = (...how: Parameters<typeof screen>) => {
    const { terminal, written } = screen(...how)
    terminal.line(terminal.style('red', 'x'))
    return written.stdout
  }
  t.is(red(), '\x1b[31mx\x1b[39m\n')
  t.is(red({ NO_COLOR: '1' }), 'x\n')
  t.is(red({ TERM: 'dumb' }), 'x\n')
  t.is(red({}, { isTTY: false }), 'x\n')
})

test('anything but a yes is a no', async (t) => {
  for (const [answer, meant] of [
    ['y', true],
    ['YES', true],
    ['', false],
    ['n', false],
    ['yesterday', false],
  ] as const) {
    const { terminal, streams } = screen({}, { isTTY: false })
    const asked = terminal.ask('Repair it now?', undefined)
    streams.stdin.write(`${answer}\n`)
    t.is(await asked, meant, answer)
  }
})

/** Names that act on a terminal, drawn from what terminals act on, with letters in between. */
function* hostileNames(count: number): Generator<string> {
  const parts = [
    '\x1b]52;c;cm0gLXJmIH4=\x07',
    '\x1b[2J\x1b[1;1H',
    '\x1b[31m',
    '\x1b]0;title\x1b\\',
    '\x9b31m',
    '\x07',
    '\b\b\b',
    '\r',
    '\n',
    '\n\nIn all: 5 rows recovered; no row is known to be lost.',
    '\t',
    '\x7f',
    '\x85',
    '\u061c',
    '\u200f',
    '\u2028',
    '\u202e',
    '\u2066',
    '☃',
    '👩‍👩‍👧',
    'plain ',
    '\\',
  ]
  let state = 12345
  for (let made = 0; made < count; made++) {
    let name = 'n'
    for (let part = 0; part < 6; part++) {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      name += parts[(state >> 8) % parts.length] + String.fromCodePoint(97 + (state % 26))
    }
    yield name
  }
}

/** Whether a terminal acts on a letter: by Unicode's own properties, and not by the table of the package. */
function actsOnTerminal(letter: string): boolean {
  return /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u.test(letter)
}

/** Fails where a line has a letter that a terminal acts on. */
function assertHarmless(t: ExecutionContext, text: string): void {
  const found = text.split('\n').flatMap((line) => [...line].filter(actsOnTerminal))
  t.deepEqual(found, [], JSON.stringify(text))
}

test('every letter is shown as it is, or escaped', (t) => {
  for (let code = 0; code <= 0x10ffff; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue
    const letter = String.fromCodePoint(code)
    const seen = shown(letter)
    if (actsOnTerminal(letter) ? !/^\\(u\{[0-9a-f]+\}|[nrt])$/.test(seen) : seen !== letter) {
      return t.fail(`${code.toString(16)} is shown as ${JSON.stringify(seen)}`)
    }
  }
  for (const name of hostileNames(50)) t.is(shown(shown(name)), shown(name))
  t.pass()
})

test('whatever goes to a terminal, no code is left but those of its styles', async (t) => {
  for (const name of hostileNames(40)) {
    const { terminal, streams, written } = screen()
    terminal.line(`${name} ${terminal.style('bold', name)}`)
    terminal.paragraph(`${terminal.style('red', `1. ${name}`)} ${name} ${name}`, 2, 4)
    terminal.fact(name, name)
    terminal.complain(name)
    terminal.progress()({ stage: name, done: 1, total: 2 })
    terminal.progress()({ stage: name, done: 1, total: 0 })
    terminal.clear()
    const asked = terminal.ask(name, AbortSignal.abort())
    await t.throwsAsync(asked)
    streams.stdout.end()
    // eslint-disable-next-line no-control-regex -- the codes of styles, of the bar, and of readline's prompt
    const known = /\x1b\[(?:[0-9;]*m|\?25[lh]|2K|1G|0J|\d+G)|\r/g
    assertHarmless(t, written.stdout.replace(known, ''))
    assertHarmless(t, written.stderr.replace(known, ''))
    // A style that a name brings along is no style.
    t.is(written.stdout.split('\x1b[31m').length, 2, JSON.stringify(written.stdout))
  }
})

test('names that act on a terminal do not reach it, and JSON has them as they are', async (t) => {
  const [first, second] = [...hostileNames(2)] as [string, string]
  const file = path.join(folder(t), process.platform === 'win32' ? 'fusion.db' : `fusion\x1b[2J\u202e.db`)
  const db = new DatabaseSync(file)
  const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`
  db.exec(`
    CREATE TABLE ${quoted(first)} (id INTEGER PRIMARY KEY, text TEXT);
    CREATE INDEX ${quoted(second)} ON ${quoted(first)} (text);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    INSERT INTO ${quoted(first)} SELECT i, 'entry number ' || i || hex(zeroblob(60)) FROM n;
  `)
  db.close()
  destroy(file, [...(await leaves(file, first)).slice(2, 5), ...(await leaves(file, second)).slice(3, 5)])
  const target = path.join(path.dirname(file), 'map.svg')
  for (const args of [
    ['doctor', file, '--map', target],
    ['info', file],
    ['recover', file, `${file}.new`],
    ['doctor', file, '--repair'],
    ['recover', file, `${file}.new`],
    ['doctor', `${file}.nowhere`],
    ['doctor', file, '--map', path.join(file, 'x')],
    ['checkpoint', `${file}.new`],
  ]) {
    const { out, err } = await cli(...args)
    t.true((out + err).length > 0)
    assertHarmless(t, out)
    assertHarmless(t, err)
  }
  const svg = readFileSync(target, 'utf8')
  assertWellFormed(t, svg)
  assertHarmless(t, svg)
  const again = await cli('doctor', file, '--json')
  assertHarmless(t, again.out)
  destroy(file, (await leaves(file, first)).slice(2, 5))
  const health = (await json('doctor', file)).health as Health
  const damage = health.findings.find((finding) => finding.type === 'tableDamage')
  t.is(damage?.type === 'tableDamage' && damage.table, first)
  t.is(path.basename(health.path), path.basename(file))
  assertHarmless(t, health.text)
})

test('damage of one kind is one paragraph, and what it is in all comes last', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  const db = new DatabaseSync(file)
  const tables = Array.from({ length: 12 }, (_, at) => `table_${at}`)
  for (const table of tables) {
    db.exec(`
      CREATE TABLE ${table} (id INTEGER PRIMARY KEY, text TEXT);
      CREATE INDEX ${table}_text ON ${table} (text);
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
      INSERT INTO ${table} SELECT i, 'entry number ' || i || hex(zeroblob(60)) FROM n;
    `)
  }
  db.close()
  const pages: number[] = []
  for (const table of tables) pages.push((await leaves(file, table))[1]!)
  for (const table of tables.slice(0, 8)) pages.push((await leaves(file, `${table}_text`))[1]!)
  destroy(file, pages)
  const { code, out } = await cli('doctor', file)
  t.is(code, 2)
  t.is(out.split('What it means:').length - 1, 2, out)
  t.regex(out, /1\. \d+ (tables|indexes) are damaged: /)
  const all = out.indexOf('In all: ')
  t.true(all > out.lastIndexOf('SQLite says:'), out)
  t.regex(out.slice(all).replaceAll('\n', ' '), /12 .* damaged, on 20 pages\. Rows may be lost\./)
})

test('page numbers have no separators', (t) => {
  t.is(pageList([1080, 1081, 1082, 2000, 12_345]), 'pages 1080 to 1082, 2000, 12345')
  t.is(pageList([2401]), 'page 2401')
  const map = { owners: [{ type: 'table', name: 'logs' }] }
  const run = { first: 1004, owner: 0, role: 'leaf', damaged: false }
  t.is(tooltip(map, { ...run, pages: 1 }), 'page 1004: table logs, leaf')
  t.is(tooltip(map, { ...run, pages: 2 }), 'pages 1004, 1005: table logs, leaf')
  t.is(tooltip(map, { ...run, pages: 6 }), 'pages 1004 to 1009: table logs, leaf')
})

test('a repair is whole only where nothing is missing or may be', (t) => {
  const whole = {
    after: { ok: true, findings: [] },
    totals: { recovered: 5, lostAndFound: 0, fromBackup: 2, knownLost: 0 },
    salvage: { schemaErrors: [] },
    comparison: null,
  }
  t.true(isWhole(whole))
  t.true(isWhole({ ...whole, salvage: null }))
  for (const totals of [{ knownLost: 1 }, { knownLost: null }, { lostAndFound: 1 }]) {
    t.false(isWhole({ ...whole, totals: { ...whole.totals, ...totals } }), JSON.stringify(totals))
  }
  t.false(isWhole({ ...whole, salvage: { schemaErrors: ['CREATE INDEX …: no such function'] } }))
  t.false(isWhole({ ...whole, comparison: { holds: false } }))
  t.false(isWhole({ ...whole, after: { ok: false, findings: [] } }))
})

/** What a repair is refused with that would lose rows. */
function loss(): Error {
  const comparison = { holds: false, text: 'logs: 3 of 100 rows that SQLite reads are missing.\n' }
  return Object.assign(new Error('it would lose rows'), { code: 'ERR_FUSION_LOSS', comparison })
}

test('a repair that would lose rows is made only if the person at the terminal says so', async (t) => {
  for (const [answer, isMade] of [
    ['y', true],
    ['n', false],
    ['', false],
  ] as const) {
    const { terminal, streams, written } = screen()
    Object.assign(streams.stdin, { setRawMode: () => streams.stdin })
    const attempts: boolean[] = []
    const attempt = async (allowLoss: boolean) => {
      attempts.push(allowLoss)
      if (!allowLoss) throw loss()
      return 'the report'
    }
    const made = withConsent(attempt, false, terminal, undefined)
    streams.stdin.write(`${answer}\n`)
    if (isMade) t.is(await made, 'the report')
    else await t.throwsAsync(made, { code: 'ERR_FUSION_LOSS' })
    t.deepEqual(attempts, isMade ? [false, true] : [false], answer)
    const question = written.stdout.indexOf('Repair it all the same?')
    t.true(question > written.stdout.indexOf('3 of 100 rows'), written.stdout)
  }
})

test('without a terminal a repair that would lose rows is made only with --allow-loss', async (t) => {
  const { terminal, written } = screen({}, { isTTY: false })
  const attempts: boolean[] = []
  const attempt = async (allowLoss: boolean) => {
    attempts.push(allowLoss)
    if (!allowLoss) throw loss()
    return 'the report'
  }
  await t.throwsAsync(withConsent(attempt, false, terminal, undefined), { code: 'ERR_FUSION_LOSS' })
  t.regex(written.stdout, /3 of 100 rows/)
  t.is(await withConsent(attempt, true, terminal, undefined), 'the report')
  t.deepEqual(attempts, [false, true])
  const other = new Error('another failure')
  await t.throwsAsync(
    withConsent(() => Promise.reject(other), false, terminal, undefined),
    { is: other },
  )
})
