// A thread that holds the write lock of a file itself, through another connection, never stands still
// for it: a call that would is refused at once, and what is awaited is reported within busyTimeout.
// The entries are kept and written once the lock is free.

import test, { type ExecutionContext } from 'ava'
import { DatabaseSync, HardenedDatabase } from '../index.js'
import { database, entry, foreignLock, nextEvent, open, seenByAnotherProcess } from './support.ts'

const OWN = 'ERR_FUSION_OWN_TRANSACTION'

/** The shortest wait that is one; what takes as long as the others' defaults fails by AVA's limit. */
const options = { busyTimeout: 300, closeTimeout: 3_600_000, retryDeadline: 3_600_000 }

/** What holds the write lock of `file`, and lets it go. */
const holders: Record<string, (t: ExecutionContext, file: string) => () => void> = {
  'a HardenedDatabase'(t, file) {
    const sibling = open(t, options, file)
    sibling.exec('BEGIN IMMEDIATE')
    return () => sibling.exec('COMMIT')
  },
  'a DatabaseSync'(t, file) {
    const sibling = new DatabaseSync(file)
    t.teardown(() => sibling[Symbol.dispose]())
    sibling.exec(`BEGIN; INSERT INTO __meta (key, value) VALUES ('k', 'v')`)
    return () => sibling.exec('COMMIT')
  },
  'a DatabaseSync that has it attached'(t, file) {
    const sibling = new DatabaseSync(':memory:')
    t.teardown(() => sibling[Symbol.dispose]())
    sibling.exec(`ATTACH '${file}' AS log; BEGIN; INSERT INTO log.__meta (key, value) VALUES ('k', 'v')`)
    return () => sibling.exec('COMMIT')
  },
  'an iteration that writes'(t, file) {
    const sibling = open(t, options, file)
    const rows = sibling
      .prepare(`INSERT INTO __meta (key, value) VALUES ('k', 'v'), ('l', 'v') RETURNING key`)
      .iterate()
    rows.next()
    return () => rows.return?.()
  },
}

for (const [name, hold] of Object.entries(holders)) {
  test(`${name} of the same thread: what would stand still is refused at once`, async (t) => {
    const file = database(t)
    const db = open(t, options, file)
    const letGo = hold(t, file)
    db.appendAgentLog(entry('one'))
    const error = t.throws(() => db.flushAgentLogsSync(), { code: OWN }) as Error & { errcode: number; path: string }
    t.is(error.errcode, 5)
    t.is(error.path, file)
    t.regex(error.message, /^(a transaction that this thread has open since 2|an iteration of a statement that writes)/)
    t.throws(() => db.flushAgentLogsSync(0), { code: OWN })
    t.throws(() => db.close(), { code: OWN })
    t.true(db.isOpen)
    await t.throwsAsync(db.restore(`${file}.backup`), { code: OWN })
    await t.throwsAsync(db.recover(), { code: OWN })
    t.true((await db.checkpoint('full')).busy)
    letGo()
    db.close()
    t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['one'])
  })

  test(`${name} of the same thread: what is awaited is reported within busyTimeout`, async (t) => {
    const file = database(t)
    const db = open(t, options, file)
    const letGo = hold(t, file)
    const waiting = [db.appendAgentLogs([entry('one')]), db.flushAgentLogs(), db.closeAsync()]
    for (const promise of waiting) await t.throwsAsync(promise, { code: OWN })
    t.true(db.isOpen)
    // A later one, too.
    await t.throwsAsync(db.appendAgentLogs([entry('two')]), { code: OWN })
    letGo()
    await db.closeAsync()
    t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['one', 'two'])
  })
}

test('entries without a promise are reported by an error event, once a transaction', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const sibling = open(t, options, file)
  const told: string[] = []
  sibling.exec('BEGIN IMMEDIATE')
  const event = nextEvent(db, 'error')
  db.on('error', (error) => told.push(error.code))
  db.appendAgentLog(entry('one'))
  const [error] = (await event) as [Error & { code: string }]
  t.is(error.code, OWN)
  t.regex(error.message, /a transaction that this thread has open since 2/)
  await t.throwsAsync(db.appendAgentLogs([entry('two')]), { code: OWN })
  t.deepEqual(told, [OWN])
  sibling.exec('ROLLBACK')
  await db.flushAgentLogs()
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['one', 'two'])
})

test('a transaction that ends in time is waited for', async (t) => {
  const file = database(t)
  const db = open(t, { ...options, busyTimeout: 60_000 }, file)
  const sibling = open(t, { ...options, busyTimeout: 60_000 }, file)
  sibling.exec('BEGIN IMMEDIATE')
  const appended = db.appendAgentLogs([entry('one')])
  setTimeout(() => sibling.exec('COMMIT'), 50)
  t.is((await appended).committed, 1)
})

test('entries that are lent to a transaction of another handle are not waited for', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  const sibling = open(t, options, file)
  sibling.exec('BEGIN IMMEDIATE')
  db.appendAgentLog(entry('one'))
  sibling.flushAgentLogsSync()
  t.throws(() => db.flushAgentLogsSync(), { code: OWN })
  sibling.exec('ROLLBACK')
  db.flushAgentLogsSync()
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['one'])
})

test("another process's lock is waited for by restore() as long as busyTimeout says, whatever is pending", async (t) => {
  const file = database(t)
  const db = open(t, { ...options, closeTimeout: 100 }, file)
  await db.backup()
  const lock = await foreignLock(t, file)
  db.appendAgentLog(entry('one'))
  const error = await t.throwsAsync(db.restore(`${file}.backup`), { code: 'ERR_FUSION_FLUSH_TIMEOUT' })
  t.is((error as Error & { errcode: number }).errcode, 5)
  await lock.release()
  await db.restore(`${file}.backup`)
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, [])
})

test('a handle without entries closes next to a transaction of the same thread', (t) => {
  const file = database(t)
  const db = new HardenedDatabase(file, options)
  const sibling = new DatabaseSync(file)
  sibling.exec('BEGIN IMMEDIATE')
  db.close()
  t.false(db.isOpen)
  sibling.exec('COMMIT')
  sibling.close()
})

test('an iteration that writes on the handle itself is in the way like any other', async (t) => {
  const file = database(t)
  const db = open(t, options, file)
  db.appendAgentLog(entry('one'))
  const rows = db.prepare(`INSERT INTO __meta (key, value) VALUES ('k', 'v'), ('l', 'v') RETURNING key`).iterate()
  rows.next()
  t.throws(() => db.flushAgentLogsSync(), { code: OWN })
  await t.throwsAsync(db.flushAgentLogs(), { code: OWN })
  t.is([...rows].length, 1, 'it goes on')
  db.flushAgentLogsSync()
  db.close()
  t.deepEqual((await seenByAnotherProcess(t, file)).texts, ['one'])
})
