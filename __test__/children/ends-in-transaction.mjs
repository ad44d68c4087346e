// Accepts entries and ends, in the way that its arguments name, while a connection of it holds the write lock.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { DatabaseSync, HardenedDatabase } from '../../index.js'

const [holder, end, file] = isMainThread ? process.argv.slice(2) : workerData

const uncommitted = `INSERT INTO __meta (key, value) VALUES ('uncommitted', '1')`

/** Each leaves the write lock of the file with a connection of this thread. */
const holders = {
  own(db) {
    db.exec('BEGIN IMMEDIATE')
    db.exec(uncommitted)
  },
  sibling() {
    return holders.own(new HardenedDatabase(file, { linger: 60_000 }))
  },
  plain() {
    return holders.own(new DatabaseSync(file))
  },
  attached() {
    const db = new DatabaseSync(':memory:')
    db.exec(`ATTACH '${file}' AS log; BEGIN; INSERT INTO log.__meta (key, value) VALUES ('uncommitted', '1')`)
    kept.push(db)
  },
  // Not in an explicit transaction: the statement itself holds the lock.
  iteration(db) {
    const rows = db.prepare(`${uncommitted}, ('another', '1') RETURNING key`).iterate()
    rows.next()
    kept.push(rows)
  },
  // What was flushed inside the transaction is lent to it.
  lent(db) {
    holders.own(db)
    db.flushAgentLogsSync()
  },
  // The end comes from inside of a statement.
  inside(db) {
    db.function('leave', () => leave())
    db.exec('BEGIN IMMEDIATE')
    db.exec(`INSERT INTO __meta (key, value) VALUES ('uncommitted', leave())`)
  },
  authorizer(db) {
    db.setAuthorizer(() => 0)
    holders.own(db)
  },
  // A listener that runs later still commits.
  listener(db) {
    db.exec('BEGIN IMMEDIATE')
    db.exec(`INSERT INTO __meta (key, value) VALUES ('committed', '1')`)
    process.on('exit', () => db.exec('COMMIT'))
  },
}
const kept = []

function leave() {
  if (end === 'exit') process.exit(3)
  if (end === 'uncaught') throw new Error('on purpose')
  if (end === 'rejection') Promise.reject(new Error('on purpose'))
}

if (end.startsWith('worker-') && isMainThread) {
  // The main thread has the package loaded, and a log on the same file.
  const db = new HardenedDatabase(file, { linger: 60_000 })
  const worker = new Worker(new URL(import.meta.url), { workerData: [holder, end, file] })
  worker.once('message', async () => {
    if (end === 'worker-terminate') await worker.terminate()
    if (end === 'worker-main') process.exit(3)
    db.on('error', () => {})
  })
} else {
  const db = new HardenedDatabase(file, { linger: 60_000 })
  for (let i = 0; i < 200; i++) db.appendAgentLog({ taskId: 'T', text: `row ${i}`, type: 'text' })
  holders[holder](db)
  kept.push(db)
  if (isMainThread) leave()
  else {
    parentPort.postMessage('ready')
    if (end !== 'worker-natural') setInterval(() => kept.length, 1000)
  }
}
