// Another process of Fusion's: `drive`s a store, polls one, writes to one, or forgets 60 of them.
import { readdirSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { openWith } from '../helpers/fusion-open.ts'
import { FusionStore, drive } from '../helpers/fusion-store.ts'

const [, , role = '', kind = '', file = '', argument = ''] = process.argv
const DatabaseSync = await openWith(kind)
const say = (value: unknown) => console.log(JSON.stringify(value))

if (role === 'drive') {
  say(drive(DatabaseSync, file))
} else if (role === 'setup') {
  const store = new FusionStore(DatabaseSync, file)
  for (const id of ['A', 'B']) store.createTask(id, `Task ${id}`, 'Fix the parser')
  store.close()
  say('set up')
} else if (role === 'poll') {
  // Until it has seen the counter at `argument`: every value it saw, and what it then read.
  const store = new FusionStore(DatabaseSync, file)
  const values: number[] = []
  say('polling')
  while (store.lastModified() < Number(argument)) {
    if (store.poll()) values.push(store.lastModified())
    await pause(2)
  }
  say({
    seen: values.length,
    ascending: values.every((value, i) => i === 0 || value >= (values[i - 1] ?? 0)),
    counts: store.countLogs(),
    search: store.search('parser'),
    integrity: store.integrity(),
  })
  store.close()
} else if (role === 'write') {
  const store = new FusionStore(DatabaseSync, file)
  const [task = '', rows = '0'] = argument.split(',')
  for (let i = 0; i < Number(rows); i++) {
    // IMMEDIATE, because two processes that read, then write would meet SQLITE_BUSY_SNAPSHOT.
    store.db.exec('BEGIN IMMEDIATE')
    store.appendLog(task, 'text', `${task} ${i}`)
    store.db.exec('COMMIT')
    if (i % 10 === 0) await pause(1)
  }
  store.close()
  say('written')
} else if (role === 'forget') {
  const results: unknown[] = []
  for (let i = 0; i < 60; i++) {
    const store = new FusionStore(DatabaseSync, file)
    store.createTask(`T-${i}`, `forgotten ${i}`, '')
    results.push(store.appendLog(`T-${i}`, 'text', `by ${i}`))
  }
  // SQLite keeps a closed connection's descriptor on the database while another connection of the
  // process holds a lock, but not the one on the WAL: a connection that has gone is one less at least.
  const descriptors = () => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0)
  const before = descriptors()
  const released = () => process.platform !== 'linux' || descriptors() <= before - 50
  for (let i = 0; i < 100 && (i === 0 || !released()); i++) {
    globalThis.gc?.()
    await pause(20)
  }
  const store = new FusionStore(DatabaseSync, file)
  say({
    released: released(),
    results,
    tasks: store.tasks().length,
    search: store.search('forgotten').length,
    integrity: store.integrity(),
  })
  store.close()
}
