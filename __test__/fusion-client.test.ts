// A store written the way Fusion's is sees the same on node:sqlite and on this package, alone and
// with other processes on its file.

import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { type Kind, openWith } from './helpers/fusion-open.ts'
import { drive } from './helpers/fusion-store.ts'
import { Other, child, folder } from './support.ts'

const OURS: Kind[] = ['DatabaseSync', 'HardenedDatabase']

/** What a process of its own says of `file`: two SQLites are never in one process here. */
async function inProcess(args: string[], flags: string[] = []): Promise<unknown> {
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, child('fusion-client.ts'), ...args], {
    maxBuffer: 2 ** 26,
    timeout: 60_000,
  })
  const last = stdout.trim().split('\n').at(-1) ?? ''
  return JSON.parse(last) as unknown
}

const temporary = (t: ExecutionContext) => path.join(folder(t), 'fusion.db')

for (const kind of OURS) {
  test(`${kind}: everything the store does looks as on node:sqlite`, async (t) => {
    const expected = (await inProcess(['drive', 'node:sqlite', temporary(t)])) as unknown[]
    const actual = (await inProcess(['drive', kind, temporary(t)])) as unknown[]
    t.true(expected.length > 100)
    t.deepEqual(actual, expected)
  })

  test(`${kind}: the same in memory, values and prototypes included`, async (t) => {
    // In memory two SQLites in one process share nothing. The second opening is of another database.
    const expected = drive(await openWith('node:sqlite'), ':memory:')
    t.deepEqual(drive(await openWith(kind), ':memory:'), expected)
  })
}

test('a file written by one is the same file to the other', async (t) => {
  const file = temporary(t)
  const firstly = (await inProcess(['drive', 'DatabaseSync', file])) as unknown[]
  // Its tasks are there already, so that the second run meets other errors; on both the same ones.
  const other = temporary(t)
  t.deepEqual(await inProcess(['drive', 'node:sqlite', other]), firstly)
  t.deepEqual(await inProcess(['drive', 'node:sqlite', file]), await inProcess(['drive', 'DatabaseSync', other]))
})

interface Polled {
  ascending: boolean
  seen: number
  counts: unknown
  search: unknown[]
  integrity: unknown
}

const PAIRS: [writer: Kind, reader: Kind][] = [
  ['node:sqlite', 'node:sqlite'],
  ['DatabaseSync', 'DatabaseSync'],
  ['HardenedDatabase', 'HardenedDatabase'],
  ['node:sqlite', 'DatabaseSync'],
  ['HardenedDatabase', 'node:sqlite'],
]

for (const [writer, reader] of PAIRS) {
  test(`${reader} polls while ${writer} writes`, async (t) => {
    const file = temporary(t)
    await inProcess(['setup', writer, file])
    const polling = new Other(t, 'fusion-client.ts', ['poll', reader, file, '202'])
    await polling.says('polling')
    await inProcess(['write', writer, file, 'A,200'])
    const { code, output } = await polling.ended
    t.is(code, 0, output)
    const polled = JSON.parse(output.trim().split('\n').at(-1) ?? '') as Polled
    t.true(polled.ascending)
    t.true(polled.seen > 1, `saw ${polled.seen} changes`)
    t.deepEqual(polled.counts, [{ taskId: 'A', type: 'text', n: 200 }])
    t.is(polled.search.length, 2)
    t.deepEqual(polled.integrity, [{ integrity_check: 'ok' }])
  })
}

for (const other of ['node:sqlite', ...OURS] as Kind[]) {
  test(`${other} and DatabaseSync write to one file at once`, async (t) => {
    const file = temporary(t)
    await inProcess(['setup', other, file])
    await Promise.all([inProcess(['write', other, file, 'A,300']), inProcess(['write', 'DatabaseSync', file, 'B,300'])])
    const found = {
      ascending: true,
      seen: 0,
      search: 2,
      counts: ['A', 'B'].map((taskId) => ({ taskId, type: 'text', n: 300 })),
    }
    for (const kind of [other, 'DatabaseSync']) {
      const polled = (await inProcess(['poll', kind, file, '602'])) as Polled
      t.deepEqual({ ...polled, search: polled.search.length }, {
        ...found,
        integrity: [{ integrity_check: 'ok' }],
      } as object)
    }
  })
}

test('60 connections left to the garbage collector', async (t) => {
  const expected = await inProcess(['forget', 'node:sqlite', temporary(t)], ['--expose-gc'])
  t.like(expected, { released: true, tasks: 60, search: 60, integrity: [{ integrity_check: 'ok' }] })
  for (const kind of OURS) {
    t.deepEqual(await inProcess(['forget', kind, temporary(t)], ['--expose-gc']), expected, kind)
  }
})
