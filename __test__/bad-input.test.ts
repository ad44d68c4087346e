// Bad input is a typed error that says what to do; the process lives on and no other entry is lost.

import { chmodSync, existsSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { HardenedDatabase, appendAgentLogs } from '../index.js'
import {
  count,
  createSchema,
  database,
  entries,
  entry,
  folder,
  nextEvent,
  open,
  openInMemory,
  texts,
} from './support.ts'

interface FusionError extends Error {
  code: string
  errcode?: number
  errstr?: string
  path?: string
}

interface Expected {
  code: string
  errcode?: number
  errstr?: string
  path?: string
  message: RegExp
}

function matches(t: ExecutionContext, error: Error | undefined, expected: Expected): void {
  const { code, errcode, errstr, path: file, message } = error as FusionError
  const { message: pattern, ...rest } = expected
  t.deepEqual(
    { code, errcode, errstr, path: file },
    { errcode: undefined, errstr: undefined, path: undefined, ...rest },
    message,
  )
  t.regex(message, pattern)
}

/** `text` as a pattern that matches itself. */
const escaped = (text: string) => text.replaceAll(/[.[\]]/g, '\\$&')

// Entries

const badEntries: [name: string, entry: unknown, message: string][] = [
  ['no taskId', { text: 'x', type: 'text' }, '.taskId must be a string'],
  ['no text', { taskId: 'T', type: 'text' }, '.text must be a string'],
  ['no type', { taskId: 'T', text: 'x' }, '.type must be a string'],
  ['an empty taskId', entry('x', { taskId: '' }), '.taskId must not be empty'],
  ['an empty type', entry('x', { type: '' }), '.type must not be empty'],
  ['an empty timestamp', entry('x', { timestamp: '' }), '.timestamp must not be empty'],
  ['a taskId that is a number', entry('x', { taskId: 1 }), '.taskId must be a string'],
  ['a text that is null', entry(null as never), '.text must be a string'],
  ['a text that is a String object', entry(new String('x') as never), '.text must be a string'],
  ['a text that is a Buffer', entry(Buffer.from('x') as never), '.text must be a string'],
  ['a type that is a symbol', entry('x', { type: Symbol('text') }), '.type must be a string'],
  ['a timestamp that is a Date', entry('x', { timestamp: new Date() }), '.timestamp must be a string'],
  ['a timestamp that is a number', entry('x', { timestamp: 0 }), '.timestamp must be a string'],
  ['a detail that is an object', entry('x', { detail: {} }), '.detail must be a string or null'],
  ['an agent that is a bigint', entry('x', { agent: 1n }), '.agent must be a string or null'],
  ['null', null, ' must be an object with taskId, text and type.'],
  ['undefined', undefined, ' must be an object with taskId, text and type.'],
  ['a string', 'x', ' must be an object with taskId, text and type.'],
  ['a number', 7, ' must be an object with taskId, text and type.'],
  ['an array', ['T', 'x', 'text'], '.taskId must be a string'],
  ['an object without a prototype and without properties', Object.create(null), '.taskId must be a string'],
]

for (const [name, bad, complaint] of badEntries) {
  test(`an entry with ${name} is refused by position and property; its neighbours' calls are not`, async (t) => {
    const db = open(t)
    const before = db.appendAgentLogs([entry('before')])
    const error = await t.throwsAsync(db.appendAgentLogs([entry('not taken'), bad as never]))
    matches(t, error, {
      code: 'ERR_INVALID_ARG_TYPE',
      message: new RegExp(`^entries\\[1\\]${escaped(complaint)}$`),
    })
    t.true(error instanceof TypeError)
    const single = t.throws(() => db.appendAgentLog(bad as never))
    matches(t, single, { code: 'ERR_INVALID_ARG_TYPE', message: new RegExp(`^entry${escaped(complaint)}$`) })
    const after = db.appendAgentLogs([entry('after')])
    await Promise.all([before, after])
    t.deepEqual(texts(db), ['before', 'after'])
  })
}

test('a hole in the array is refused like an absent entry', async (t) => {
  const db = open(t)
  const sparse = entries(3)
  delete sparse[1]
  const error = await t.throwsAsync(db.appendAgentLogs(sparse))
  matches(t, error, { code: 'ERR_INVALID_ARG_TYPE', message: /^entries\[1\] must be an object/ })
  t.is(db.stats().queue.rows, 0)
})

for (const bad of [undefined, null, {}, 'x', 7, new Set(), { length: 1, 0: entry('x') }]) {
  test(`entries that are no array (${String(bad)}) are refused: ${JSON.stringify(bad)}`, async (t) => {
    const error = await t.throwsAsync(open(t).appendAgentLogs(bad as never))
    matches(t, error, { code: 'ERR_INVALID_ARG_TYPE', message: /^The "entries" argument must be an array\.$/ })
  })
}

test('a frozen array, a subclass of Array and entries with a prototype are fine', async (t) => {
  class List extends Array {}
  class Line {
    taskId = 'T'
    type = 'text'
    get text() {
      return 'from a getter'
    }
  }
  const db = open(t)
  await db.appendAgentLogs(Object.freeze(entries(1)))
  await db.appendAgentLogs(List.from([new Line()]) as never)
  t.deepEqual(texts(db), ['row 0', 'from a getter'])
})

test('an empty batch resolves with zeros at once, and moves nothing', async (t) => {
  for (const db of [open(t), openInMemory(t)]) {
    const nothing = { committed: 0, rejected: [], firstId: null, lastId: null }
    t.deepEqual(await db.appendAgentLogs([]), nothing)
    t.is(db.stats().batches, 0)
    t.is((await db.appendAgentLogs(entries(1))).firstId, 1)
    t.deepEqual(await db.appendAgentLogs([]), nothing)
  }
})

// Text

const strings: [name: string, text: string, stored?: string][] = [
  ['Latin-1', 'naïve café ÿ'],
  ['Chinese, Arabic and Devanagari', '日志 سجل लॉग'],
  ['emoji beyond the BMP', '🚀👩‍💻🏴󠁧󠁢󠁥󠁮󠁧󠁿'],
  ['a lone high surrogate', 'a\uD83Db', 'a\uFFFDb'],
  ['a lone low surrogate at the end', 'ab\uDE00', 'ab\uFFFD'],
  ['surrogates in the wrong order', '\uDE00\uD83D', '\uFFFD\uFFFD'],
  ['NUL bytes', '\0a\0\0b\0'],
  ['nothing but a NUL byte', '\0'],
  ['every control character', String.fromCharCode(...Array.from({ length: 32 }, (_, i) => i), 127)],
  ['a byte order mark', '\uFEFFx'],
  ['a line of 100,000 characters of each width', 'aé日🚀'.repeat(25_000)],
]
for (const [name, text, stored = text] of strings) {
  test(`${name}: stored as node:sqlite stores it, by single, by batch and in memory`, async (t) => {
    for (const db of [open(t), openInMemory(t)]) {
      await db.appendAgentLogs([entry(text, { detail: text, agent: text })])
      db.appendAgentLog(entry(text, { detail: text, agent: text }))
      db.flushAgentLogsSync()
      const rows = db
        .prepare('SELECT text, detail, agent, octet_length(text) AS bytes, hex(text) AS hex FROM agentLogEntries')
        .all()
      t.is(rows.length, 2)
      const utf8 = Buffer.from(stored, 'utf8')
      for (const row of rows) {
        t.deepEqual([row.text, row.detail, row.agent], [stored, stored, stored])
        t.is(row.bytes, utf8.length)
        t.is(row.hex, utf8.toString('hex').toUpperCase())
      }
    }
  })
}

test('length() counts up to the first NUL as SQL says, the bytes behind it are kept', async (t) => {
  const db = open(t)
  await db.appendAgentLogs([entry('ab\0cd')])
  const row = db.prepare('SELECT length(text) AS sql, octet_length(text) AS bytes, text FROM agentLogEntries').get()
  t.deepEqual({ ...row }, { sql: 2, bytes: 5, text: 'ab\0cd' })
})

test('NUL bytes and lone surrogates come back from takePending and rejected events too', async (t) => {
  const db = open(t, { linger: 60_000 })
  db.appendAgentLog(entry('a\0b\uD83D', { timestamp: 't' }))
  t.is(db.takePending()[0]?.text, 'a\0b\uFFFD')
  const told = nextEvent(db, 'rejected')
  db.appendAgentLog(entry('c\0d', { taskId: 'gone' }))
  db.flushAgentLogsSync()
  t.is(((await told)[1] as { text: string }).text, 'c\0d')
})

test('a 100 MB detail is refused by size, names the option, and leaves the log usable', async (t) => {
  const db = open(t)
  const huge = entry('huge', { detail: 'x'.repeat(100_000_000) })
  const expected = {
    code: 'ERR_FUSION_TOO_LARGE',
    message: /10000\d{4} bytes.*67108864.*Nothing was taken.*queueBytes/,
  }
  matches(t, await t.throwsAsync(db.appendAgentLogs([entry('with it'), huge])), expected)
  matches(
    t,
    t.throws(() => db.appendAgentLog(huge)),
    expected,
  )
  t.is(db.stats().queue.rows, 0)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
})

test('a 100 MB detail is stored where queueBytes allows it', async (t) => {
  const db = open(t, { queueBytes: 256 * 1024 * 1024 })
  const detail = 'é'.repeat(50_000_000)
  const receipt = await db.appendAgentLogs([entry('before'), entry('huge', { detail }), entry('after')])
  t.is(receipt.committed, 3)
  const row = db.prepare(`SELECT octet_length(detail) AS bytes FROM agentLogEntries WHERE text = 'huge'`).get()
  t.is(row?.bytes, 100_000_000)
  t.deepEqual(texts(db), ['before', 'huge', 'after'])
})

// Paths

test('a path may be a string, a file: URL or bytes', async (t) => {
  const file = database(t)
  for (const spelt of [file, pathToFileURL(file), Buffer.from(file), new Uint8Array(Buffer.from(file))]) {
    const db = open(t, undefined, spelt as never)
    t.is((await db.appendAgentLogs(entries(1))).committed, 1)
  }
  t.is(count(open(t, undefined, file)), 4)
})

test('a path with non-Latin-1 characters and blanks is used as it is', async (t) => {
  const file = path.join(folder(t), 'Ablage 日志 🚀 %20.db')
  const db = open(t, undefined, file)
  createSchema(db)
  t.is((await appendAgentLogs(file, entries(2))).committed, 2)
  t.true(existsSync(file))
  t.is(count(db), 2)
})

for (const bad of [undefined, null, 7, {}, [], '\0', 'a\0b', new URL('https://example.com/x')]) {
  test(`a path that is none is refused: ${JSON.stringify(bad)}`, async (t) => {
    const error = t.throws(() => new HardenedDatabase(bad as never)) as FusionError
    t.true(['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_URL_SCHEME'].includes(error.code), error.message)
    t.regex(error.message, /"path" argument must be|URL must be of scheme file/)
    const other = await t.throwsAsync(appendAgentLogs(bad as never, entries(1)))
    t.is((other as FusionError).code, error.code)
    t.is(other?.message, error.message)
  })
}

/** Opens `file` by both entries of the package; both must fail alike. */
async function refuses(
  t: ExecutionContext,
  file: string,
  expected: Omit<Expected, 'path'>,
  handle = {},
): Promise<void> {
  matches(
    t,
    t.throws(() => new HardenedDatabase(file)),
    { ...expected, path: file, ...handle },
  )
  matches(t, await t.throwsAsync(appendAgentLogs(file, entries(1))), { ...expected, path: file })
}

const cantOpen = { code: 'ERR_SQLITE_ERROR', errcode: 14, errstr: 'unable to open database file' }

test('a directory is refused, and the message says to name a file', async (t) => {
  await refuses(t, folder(t), { ...cantOpen, message: /directory.*file inside it/ })
})

test('a symbolic link to a directory is refused likewise', async (t) => {
  const link = path.join(folder(t), 'link')
  symlinkSync(folder(t), link)
  await refuses(t, link, { ...cantOpen, message: /directory.*file inside it/ })
})

test('a folder that does not exist is named as the reason, where it is not to be made', async (t) => {
  const file = path.join(folder(t), 'no', 'such', 'fusion.db')
  const error = t.throws(() => new HardenedDatabase(file, { readOnly: true }))
  matches(t, error, { ...cantOpen, path: file, message: /folder|directory/ })
  t.false(existsSync(path.dirname(file)))
})

test('appendAgentLogs to a file that was there and is gone says so, and does not create it', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  new HardenedDatabase(file).close()
  rmSync(file)
  const error = await t.throwsAsync(appendAgentLogs(file, entries(1)))
  matches(t, error, { ...cantOpen, path: file, message: /no such file, and it was not to be made/ })
  t.false(existsSync(file))
})

test('a folder that cannot be made is named as the reason', (t) => {
  const file = path.join(folder(t), 'file', 'fusion.db')
  writeFileSync(path.dirname(file), '')
  const error = t.throws(() => new HardenedDatabase(file))
  matches(t, error, { ...cantOpen, path: file, message: /directory/ })
})

test('a folder that cannot be written is refused when the database is opened', (t) => {
  if (process.getuid?.() === 0) {
    // Root passes every permission; /proc refuses new files to root as well.
    const file = '/proc/fusion.db'
    if (!existsSync('/proc/self')) return t.pass('skipped: root may write everywhere here')
    const error = t.throws(() => new HardenedDatabase(file))
    return matches(t, error, { ...cantOpen, path: file, message: /.{30}/ })
  }
  const locked = path.join(folder(t), 'locked')
  mkdirSync(locked)
  chmodSync(locked, 0o555)
  t.teardown(() => chmodSync(locked, 0o755))
  const file = path.join(locked, 'fusion.db')
  const error = t.throws(() => new HardenedDatabase(file))
  matches(t, error, { ...cantOpen, path: file, message: /.{30}/ })
})

for (const [name, content] of [
  ['text', 'this is no database\n'.repeat(500)],
  ['another format', `PK\u0003\u0004${'x'.repeat(8192)}`],
] as const) {
  test(`a file of ${name} is refused as no database and left as it is`, async (t) => {
    const file = path.join(folder(t), 'fusion.db')
    writeFileSync(file, content)
    const { mtimeMs, size } = statSync(file)
    const expected = { errcode: 26, errstr: 'file is not a database', message: /not a SQLite database.*Check the path/ }
    await refuses(t, file, { code: 'ERR_SQLITE_ERROR', ...expected }, { code: 'ERR_FUSION_DAMAGED' })
    t.deepEqual([statSync(file).mtimeMs, statSync(file).size], [mtimeMs, size])
    t.false(existsSync(`${file}-wal`))
  })
}

test('an empty file is a new database', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  writeFileSync(file, '')
  const db = open(t, undefined, file)
  createSchema(db)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
})

test('a failed open leaves nothing behind: the same path works once it is put right', async (t) => {
  const file = path.join(folder(t), 'fusion.db')
  writeFileSync(file, 'x'.repeat(8192))
  await t.throwsAsync(appendAgentLogs(file, entries(1)))
  t.throws(() => new HardenedDatabase(file))
  writeFileSync(file, '')
  const db = open(t, undefined, file)
  createSchema(db)
  t.is((await db.appendAgentLogs(entries(1))).committed, 1)
})

// Options

const ranges: [name: string, smallest: number, largest: number][] = [
  ['busyTimeout', 0, 2 ** 31 - 1],
  ['journalSizeLimit', 0, 2 ** 40],
  ['batchRows', 1, 1_000_000],
  ['batchBytes', 1, 256 * 1024 * 1024],
  ['linger', 0, 60_000],
  ['awaitedLinger', 0, 60_000],
  ['queueBytes', 1024, 4096 * 1024 * 1024],
  ['retryDeadline', 0, 2 ** 31 - 1],
  ['checkpointFrames', 1, 2 ** 31 - 1],
  ['checkpointIdle', 10, 2 ** 31 - 1],
  ['checkpointInterval', 10, 2 ** 31 - 1],
  ['closeTimeout', 0, 2 ** 31 - 1],
]
for (const [name, smallest, largest] of ranges) {
  test(`option ${name}: the ends of its range are fine, beyond is refused by name and range`, async (t) => {
    const file = database(t)
    for (const value of [smallest, largest]) {
      const db = new HardenedDatabase(file, { [name]: value })
      await db.closeAsync()
    }
    const range = new RegExp(`"options\\.${name}" is out of range.*integer from ${smallest} to ${largest}\\. Received `)
    for (const value of [smallest - 1, largest + 1, smallest + 0.5, NaN, Infinity, -Infinity]) {
      const error = t.throws(() => new HardenedDatabase(file, { [name]: value }))
      matches(t, error, { code: 'ERR_OUT_OF_RANGE', message: range })
      t.true(error instanceof RangeError)
      // Without a handle there is nothing to be closed.
      if (name === 'closeTimeout') continue
      matches(t, await t.throwsAsync(appendAgentLogs(file, entries(1), { [name]: value })), {
        code: 'ERR_OUT_OF_RANGE',
        message: range,
      })
    }
    for (const value of ['5', true, {}, 5n]) {
      const error = t.throws(() => new HardenedDatabase(file, { [name]: value as never }))
      matches(t, error, {
        code: 'ERR_INVALID_ARG_TYPE',
        message: new RegExp(`"options\\.${name}" argument must be a number`),
      })
    }
    t.notThrows(() => open(t, { [name]: undefined }, file))
  })
}

for (const name of ['readOnly', 'foreignKeys', 'allowHardLinks', 'allowNetworkFileSystem', 'open', 'readBigInts']) {
  test(`option ${name} must be a boolean`, (t) => {
    for (const value of ['true', 1, {}]) {
      const error = t.throws(() => new HardenedDatabase(':memory:', { [name]: value as never }))
      matches(t, error, {
        code: 'ERR_INVALID_ARG_TYPE',
        message: new RegExp(`"options\\.${name}" argument must be a boolean`),
      })
    }
  })
}

test('an option that is undefined has its default', (t) => {
  const db = open(t, { open: undefined, synchronous: undefined, changeCounter: undefined }, ':memory:')
  t.true(db.isOpen)
})

test('what a getter of an entry throws arrives as it was thrown', async (t) => {
  const db = open(t)
  const mine = Object.freeze(Object.assign(new TypeError('mine'), { code: 'ERR_INVALID_ARG_TYPE' }))
  const bad = {
    ...entry('x'),
    get text(): string {
      throw mine
    },
  }
  t.is(await t.throwsAsync(db.appendAgentLogs([bad])), mine)
  t.is(
    t.throws(() => db.appendAgentLog(bad)),
    mine,
  )
})

test('options synchronous and changeCounter say what they accept', (t) => {
  for (const synchronous of ['OFF', 'normal', 1]) {
    const error = t.throws(() => new HardenedDatabase(':memory:', { synchronous: synchronous as never }))
    matches(t, error, {
      code: 'ERR_OUT_OF_RANGE',
      message: /"options\.synchronous" must be one of NORMAL, FULL, EXTRA/,
    })
  }
  for (const changeCounter of [7, false, {}]) {
    const error = t.throws(() => new HardenedDatabase(':memory:', { changeCounter: changeCounter as never }))
    matches(t, error, {
      code: 'ERR_INVALID_ARG_TYPE',
      message: /"options\.changeCounter" argument must be a string or null/,
    })
  }
})

test('a misspelt option is refused, and the message lists those there are', (t) => {
  const error = t.throws(() => new HardenedDatabase(':memory:', { busytimeout: 1 } as never))
  matches(t, error, {
    code: 'ERR_INVALID_ARG_TYPE',
    message: /"options\.busytimeout" is no option.*busyTimeout, .*queueBytes/,
  })
})

for (const bad of [null, 7, 'x', true]) {
  test(`options that are no object are refused: ${bad}`, async (t) => {
    const expected = { code: 'ERR_INVALID_ARG_TYPE', message: /"options" argument must be an object/ }
    matches(
      t,
      t.throws(() => new HardenedDatabase(':memory:', bad as never)),
      expected,
    )
    matches(t, await t.throwsAsync(appendAgentLogs(database(t), [], bad as never)), expected)
  })
}

test('an option whose getter throws is the caller’s error, and nothing is left open', async (t) => {
  const file = database(t)
  const options = {
    get linger(): number {
      throw new RangeError('mine')
    },
  }
  t.throws(() => new HardenedDatabase(file, options), { message: 'mine' })
  t.is((await appendAgentLogs(file, entries(1))).committed, 1)
})

test('the constructor needs new', (t) => {
  t.throws(() => (HardenedDatabase as unknown as (file: string) => void)(':memory:'), { instanceOf: TypeError })
})

test('values that only the schema refuses cost their own row', async (t) => {
  const db = open(t)
  db.exec(`
    CREATE TRIGGER strict BEFORE INSERT ON agentLogEntries WHEN new.type NOT IN ('text', 'tool')
    BEGIN SELECT RAISE(ABORT, 'unknown type'); END`)
  const receipt = await db.appendAgentLogs([entry('a'), entry('b', { type: 'nonsense' }), entry('c')])
  t.deepEqual(
    receipt.rejected.map(({ index, message }) => [index, message]),
    [[1, 'unknown type']],
  )
  t.deepEqual(texts(db), ['a', 'c'])
})
