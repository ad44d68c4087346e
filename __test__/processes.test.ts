// Writers of several processes share the write lock. Counted in batches, never in time.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import { child, count, database, entry, open } from './support.ts'

/** A process of the test's own, once it has said that it is ready. */
async function start(t: ExecutionContext, script: string, ...args: string[]): Promise<ChildProcess> {
  const started = fork(child(script), args, { execArgv: ['--disable-warning=ExperimentalWarning'] })
  t.teardown(() => started.kill('SIGKILL'))
  await once(started, 'message')
  return started
}

test('processes that await batches of 20 entries get on alike', async (t) => {
  const file = database(t)
  const batches = 400
  const processes = await Promise.all(Array.from({ length: 4 }, () => start(t, 'awaiting.mjs', file, `${batches}`)))
  const progress = processes.map(() => 0)
  const atFirstEnd = new Promise<number[]>((resolve) => {
    for (const [index, process] of processes.entries()) {
      process.on('message', (done: number) => {
        progress[index] = done
        if (done === batches) resolve([...progress])
      })
    }
  })
  const ended = processes.map((process) => once(process, 'exit'))
  for (const process of processes) process.send('go')
  const least = Math.min(...(await atFirstEnd))
  // How alike is measured by `npm run bench -- await`, on a machine with room for all of them.
  t.true(least >= batches / 8, `when the first had written ${batches} batches, the last had written ${least}`)
  t.deepEqual(
    await Promise.all(ended),
    processes.map(() => [0, null]),
  )
  t.is(count(open(t, {}, file)), 4 * batches * 20)
})

test('a process that is stopped in the middle holds nobody up', async (t) => {
  const file = database(t)
  const [stopped, going] = await Promise.all([
    start(t, 'awaiting.mjs', file, '1000000'),
    start(t, 'awaiting.mjs', file, '300'),
  ])
  stopped.send('go')
  await once(stopped, 'message')
  going.send('go')
  const ended = once(going, 'exit')
  // A process that is stopped inside a transaction has SQLite's lock: it goes on until it has not.
  for (let done = 0; done < 300;) {
    stopped.kill('SIGSTOP')
    const moved = await Promise.race([
      once(going, 'message').then(([value]) => value as number),
      new Promise<undefined>((resolve) => setTimeout(resolve, 1000, undefined)),
    ])
    if (moved === undefined) stopped.kill('SIGCONT')
    else done = moved
  }
  t.deepEqual(await ended, [0, null])
})

test('a program with node:sqlite gets its turn beside a log that is always full', async (t) => {
  const file = database(t)
  const db = open(t, {}, file)
  const foreign = await start(t, 'foreign-writer.mjs', file, '30')
  const ended = once(foreign, 'exit')
  foreign.send('go')
  let accepted = 0
  while (foreign.exitCode === null && foreign.signalCode === null) {
    for (let i = 0; i < 500; i++) if (db.appendAgentLog(entry('x'.repeat(100)))) accepted++
    await new Promise(setImmediate)
  }
  // SQLITE_BUSY after its timeout ends it with 1.
  t.deepEqual(await ended, [0, null])
  await db.flushAgentLogs()
  t.is(count(db), accepted)
  t.is((db.prepare('SELECT count(*) AS n FROM foreignRows').get() as { n: number }).n, 30)
})
