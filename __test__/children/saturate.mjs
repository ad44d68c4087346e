// A thread that keeps the log of a file full until it is told to stop, one way or another.
import { setImmediate } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase } from '../../index.js'

const db = new HardenedDatabase(workerData.file, workerData.options)
const entry = { taskId: 'T', text: 'x'.repeat(100), type: 'text' }
let accepted = 0
const stop = new AbortController()
parentPort.once('message', () => stop.abort())
while (!stop.signal.aborted) {
  for (let i = 0; i < 500; i++) if (db.appendAgentLog(entry)) accepted++
  if (accepted === 500) parentPort.postMessage('saturated')
  await setImmediate()
}
await db.flushAgentLogs()
db.close()
parentPort.postMessage({ accepted })
