// Accepts entries and ends in the way that it is told. Prints how many were accepted.
import { writeSync } from 'node:fs'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase, appendAgentLogs } from '../../index.js'

const [, , file, way] = process.argv
const rows = 2000

const batch = (from, count) =>
  Array.from({ length: count }, (_, i) => ({ taskId: 'T', text: `row ${from + i}`, type: 'text' }))

function append(db) {
  for (const entry of batch(0, rows - 50)) if (!db.appendAgentLog(entry)) throw new Error('refused')
  db.appendAgentLogs(batch(rows - 50, 50))
  // Synchronous: the process may end at any moment after this.
  if (isMainThread) writeSync(1, `accepted ${rows}\n`)
}

const ways = {
  natural(db) {
    append(db)
  },
  exit(db) {
    append(db)
    process.exit(7)
  },
  uncaught(db) {
    append(db)
    throw new Error('on purpose')
  },
  rejection(db) {
    append(db)
    Promise.reject(new Error('on purpose'))
  },
  sigterm(db) {
    process.on('SIGTERM', () => process.exit(7))
    append(db)
    setInterval(() => {}, 1000)
    process.kill(process.pid, 'SIGTERM')
  },
  // A listener of the user's that runs after this package's own.
  listener(db) {
    process.on('exit', () => append(db))
  },
  path() {
    appendAgentLogs(file, batch(0, rows))
    writeSync(1, `accepted ${rows}\n`)
    process.exit(7)
  },
  // Nothing is awaited, nothing is closed: the process must end by itself.
  forgotten(db) {
    db.on('error', () => {})
    for (const entry of batch(0, rows)) db.appendAgentLog(entry)
    writeSync(1, `accepted ${rows}\n`)
  },
  // Only the promise keeps the process alive.
  async awaited(db) {
    const receipt = db.appendAgentLogs(batch(0, rows))
    writeSync(1, 'waiting\n')
    const { committed } = await receipt
    writeSync(1, `accepted ${committed}\nsettled\n`)
    process.exitCode = 7
  },
  open() {
    writeSync(1, 'accepted 0\n')
  },
}

if (!isMainThread) {
  const db = new HardenedDatabase(workerData.file)
  append(db)
  parentPort.postMessage('accepted')
  if (workerData.way === 'exit') process.exit()
  if (workerData.way === 'stay') setInterval(() => {}, 1000)
} else if (way.startsWith('worker-')) {
  // The main thread has no database of its own.
  const end = way.slice('worker-'.length)
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { file, way: { natural: 'natural', exit: 'exit', terminate: 'stay', main: 'stay' }[end] },
  })
  worker.once('message', async () => {
    writeSync(1, `accepted ${rows}\n`)
    if (end === 'terminate') await worker.terminate()
    if (end === 'main') process.exit(7)
  })
} else {
  ways[way](new HardenedDatabase(file))
}
