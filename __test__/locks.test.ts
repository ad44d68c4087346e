// A process that copies, reads or hashes its own live database files loses no lock by that: rows
// that were acknowledged, to it or to any other process, stay, and the file stays whole. With
// POSIX locks (FUSION_SQLITE_LOCKS=posix) the same run destroys them, which shows that it could.

import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Child, findings, linesOf, type Message } from './children/start.ts'
import { createDatabase, temporaryFolder } from './children/database.ts'

/** Visits of each process after the copy. */
const VISITS = 12

/** How long one run may take before it counts as hung. */
const PATIENCE = 30_000

interface Run {
  engines: Message[]
  acknowledged: number
  /** What was lost, damaged or died; none: all is well. */
  damage: string[]
  /** Calls that failed without damage: locks that could not be had. */
  refused: string[]
}

/** What happens in a run. It rejects when a process dies. */
type Course = (daemon: Child, first: Child, second: Child) => Promise<unknown>

async function visits(visitor: Child) {
  for (let visit = 0; visit < VISITS; visit++) await visitor.hear('visited')
  // Closes while the other is still at work.
  visitor.say('stop')
  await visitor.ended
}

/** The daemon appends and two processes come and go, all the time. In the midst of it, one copy. */
const together: Course = async (daemon, first, second) => {
  for (const child of [daemon, first, second]) child.say('go')
  await Promise.all([first.hear('visited'), second.hear('visited')])
  daemon.say('copy')
  await daemon.hear('copied')
  await Promise.all([visits(first), visits(second)])
}

/**
 * The daemon appends, copies its files, and then the three write in turns. The visitors use
 * node:sqlite: the last one to close a database deletes its WAL, unless the daemon's lock forbids.
 */
const inTurns: Course = async (daemon, first, second) => {
  daemon.say('append')
  await daemon.hear('appended')
  daemon.say('copy')
  await daemon.hear('copied')
  for (const visitor of [first, second]) {
    visitor.say('visit')
    await visitor.hear('visited')
    daemon.say('append')
    await daemon.hear('appended')
  }
}

/** A daemon and two visitors with one database, and what is left of it. */
async function run(t: ExecutionContext, course: Course, env: NodeJS.ProcessEnv, how = 'log'): Promise<Run> {
  const ways = course === inTurns ? (['foreign', 'foreign'] as const) : (['rows', 'batches'] as const)
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const notes = ['daemon', 'first', 'second'].map((name) => path.join(folder, name)) as [string, string, string]
  const daemon = new Child('daemon.mjs', [file, notes[0], path.join(folder, 'copy.db'), how], env)
  const first = new Child('visitor.mjs', [file, notes[1], 'first', ways[0]], env)
  const second = new Child('visitor.mjs', [file, notes[2], 'second', ways[1]], env)
  const all = [daemon, first, second]
  const damage: string[] = []
  const watchdog = setTimeout(() => {
    damage.push('hung')
    for (const child of all) child.kill()
  }, PATIENCE)

  const engines = await Promise.all(all.map((child) => child.hear('ready')))
  // A process that dies is found below; the others go on to the end.
  await course(daemon, first, second).catch(() => {})
  for (const child of all) child.say('stop')
  const ends = await Promise.all(all.map((child) => child.ended))
  clearTimeout(watchdog)

  const found = await findings(file)
  const stored = new Map<string, number>()
  for (const text of found.texts) stored.set(text, (stored.get(text) ?? 0) + 1)
  const acknowledged = (await Promise.all(notes.map(linesOf))).flat()
  const missing = acknowledged.filter((text) => !stored.has(text)).length
  const doubled = acknowledged.filter((text) => (stored.get(text) ?? 0) > 1).length

  const refused: string[] = []
  for (const { errcode, code, message } of all.flatMap((child) => child.failures)) {
    const told = `${code} ${errcode}: ${message}`
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL: a lock that could not be had.
    const list = [5, 6, 15].includes(errcode & 0xff) ? refused : damage
    if (!list.includes(told)) list.push(told)
  }
  for (const { code, signal, stderr } of ends) {
    if (code !== 0) damage.push(`a process ended with ${signal ?? code}: ${stderr}`)
  }
  if (found.error !== null) damage.push(`cannot be read: ${found.error.errcode} ${found.error.message}`)
  else if (found.integrity.join() !== 'ok') damage.push(`integrity_check: ${found.integrity.slice(0, 3).join('; ')}`)
  if (missing > 0) damage.push(`${missing} of ${acknowledged.length} acknowledged rows lost`)
  if (doubled > 0) damage.push(`${doubled} rows stored twice`)
  return { engines, acknowledged: acknowledged.length, damage, refused }
}

async function holds(t: ExecutionContext, course: Course, runs: number, how?: string) {
  for (let done = 0; done < runs; done++) {
    const { engines, acknowledged, damage, refused } = await run(t, course, { FUSION_SQLITE_LOCKS: '' }, how)
    for (const { lockKind, lockFallbackReason } of engines) {
      t.is(lockKind, 'ofd')
      t.falsy(lockFallbackReason)
    }
    t.deepEqual(damage, [])
    t.deepEqual(refused, [])
    t.true(acknowledged >= 400)
    t.log(`${acknowledged} acknowledged rows, all there`)
  }
}

async function withPosixLocks(t: ExecutionContext, how: string) {
  const { engines, damage } = await run(t, inTurns, { FUSION_SQLITE_LOCKS: 'posix' }, how)
  for (const { lockKind, lockFallbackReason } of engines) {
    t.is(lockKind, 'posix')
    t.regex(String(lockFallbackReason), /FUSION_SQLITE_LOCKS=posix/)
  }
  return damage
}

// One at a time: a run is three busy processes.
test.serial('locks hold through a copy of the live files, under load', (t) => holds(t, together, 4))
test.serial('locks hold through a copy of the live files, in turns', (t) => holds(t, inTurns, 2))
test.serial('locks hold through a copy of the live files, of a plain connection', (t) => holds(t, inTurns, 1, 'rows'))

// The run can fail: without the locks of this package it does, each time, where nothing but locks
// looks after the files. The copy drops them, so that the visitor takes itself for the last one and
// deletes the -wal, to which the daemon goes on to write.
test.serial('with POSIX locks a copy destroys rows of a plain connection', async (t) => {
  const damage = await withPosixLocks(t, 'rows')
  t.log(damage.map((it) => it.slice(0, 200)).join(' | '))
  t.true(damage.some((it) => /acknowledged rows lost|cannot be read|integrity_check/.test(it)))
})
// The log finds its -wal and -shm gone before its next batch, and goes on with the new ones.
test.serial('with POSIX locks a copy makes the turns that follow lose files, which the log notices', async (t) => {
  for (let done = 0; done < 3; done++) t.deepEqual(await withPosixLocks(t, 'log'), [])
})
