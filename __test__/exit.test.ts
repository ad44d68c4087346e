// The process may end at any time: what was accepted is found in the file by another process.

import test from 'ava'
import { Other, database, foreignLock, open, run, seenByAnotherProcess } from './support.ts'

const expected = Array.from({ length: 2000 }, (_, i) => `row ${i}`)

const ways: [name: string, way: string, code: number][] = [
  ['a natural end', 'natural', 0],
  ['process.exit() right after an append', 'exit', 7],
  ['an uncaught exception', 'uncaught', 1],
  ['an unhandled rejection', 'rejection', 1],
  ['SIGTERM with a handler that calls process.exit()', 'sigterm', 7],
  ["an 'exit' listener that appends", 'listener', 0],
  ['process.exit() after appendAgentLogs by path', 'path', 7],
  ['the end of a worker', 'worker-natural', 0],
  ['process.exit() in a worker', 'worker-exit', 0],
  ['worker.terminate()', 'worker-terminate', 0],
  ['process.exit() while a worker runs', 'worker-main', 7],
  ['entries that nobody waits for, and a database left open', 'forgotten', 0],
]
for (const [name, way, code] of ways) {
  test(`${name} loses no accepted entry`, async (t) => {
    const file = database(t)
    const ended = await run(t, 'ends.mjs', [file, way])
    t.is(ended.code, code, ended.output)
    t.regex(ended.output, /^accepted 2000$/m)
    const { texts, integrity } = await seenByAnotherProcess(t, file)
    t.is(integrity, 'ok')
    t.deepEqual(texts, expected)
  })
}

for (const end of ['natural', 'terminate', 'exit']) {
  test(`a worker's entries are kept where the main thread never loaded the package (${end})`, async (t) => {
    const file = database(t)
    const ended = await run(t, 'bare-worker.cjs', [file, end])
    t.is(ended.code, 0, ended.output)
    t.deepEqual((await seenByAnotherProcess(t, file)).texts, expected)
  })
}

test('a promise that is awaited keeps the process alive until it settles', async (t) => {
  const file = database(t)
  const lock = await foreignLock(t, file)
  const other = new Other(t, 'ends.mjs', [file, 'awaited'])
  await other.says('waiting')
  await lock.release()
  const { code, output } = await other.ended
  t.is(code, 7, output)
  t.regex(output, /settled/)
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, expected)
})

test('an open database keeps no process alive', async (t) => {
  const { code, signal } = await run(t, 'ends.mjs', [database(t), 'open'])
  t.is(code, 0)
  t.is(signal, null)
})

for (const end of ['natural', 'exit']) {
  test(`a lock that never goes does not keep a process from ending, and the loss is said (${end})`, async (t) => {
    const file = database(t)
    const lock = await foreignLock(t, file)
    const { code, signal, output } = await run(t, 'ends-locked.mjs', [file, end])
    t.is(signal, null, 'ended by itself')
    t.is(code, 0)
    t.regex(output, /1 log entries for .*fusion\.db were not written before the process ended: database is locked/)
    await lock.release()
    t.deepEqual((await seenByAnotherProcess(t, file)).texts, [])
  })
}

const held = Array.from({ length: 200 }, (_, i) => `row ${i}`)

const inTransaction: [holder: string, end: string, code: number][] = [
  ...['own', 'sibling', 'plain', 'attached', 'iteration', 'lent', 'authorizer', 'listener'].flatMap(
    (holder): [string, string, number][] => [
      [holder, 'exit', 3],
      [holder, 'uncaught', 1],
    ],
  ),
  ['inside', 'exit', 3],
  ['own', 'rejection', 1],
  ['own', 'natural', 0],
  ['lent', 'natural', 0],
  ['own', 'worker-natural', 0],
  ['own', 'worker-terminate', 0],
  ['lent', 'worker-terminate', 0],
  ['own', 'worker-main', 3],
  ['lent', 'worker-main', 3],
  ['plain', 'worker-main', 3],
]
for (const [holder, end, code] of inTransaction) {
  test(`an end inside a transaction writes the log and nothing else (${holder}, ${end})`, async (t) => {
    const file = database(t)
    const ended = await run(t, 'ends-in-transaction.mjs', [holder, end, file])
    t.is(ended.code, code, ended.output)
    t.notRegex(ended.output, /were not written/)
    const { texts, integrity } = await seenByAnotherProcess(t, file)
    t.is(integrity, 'ok')
    t.deepEqual(texts, held)
    const db = open(t, undefined, file)
    const kept = db.prepare(`SELECT key FROM __meta WHERE key LIKE '%committed'`).all()
    t.deepEqual(kept, holder === 'listener' ? [{ __proto__: null, key: 'committed' }] : [])
  })
}
