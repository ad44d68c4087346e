// A thread with a handle of its own, which it does not use until it is asked to.
import { parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase } from '../../index.js'

const db = new HardenedDatabase(workerData, { checkpointIdle: 600_000, checkpointFrames: 1_000_000 })
const count = db.prepare('SELECT count(*) AS rows FROM agentLogEntries WHERE length(text) > 0')
parentPort.postMessage(count.get().rows)
parentPort.on('message', (order) => {
  if (order === 'count') return parentPort.postMessage(count.get().rows)
  db.close()
  parentPort.close()
})
