import { parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase } from '../../index.mjs'

const db = new HardenedDatabase(workerData.file)
if (workerData.stay) {
  for (let i = 0; i < 100; i++) db.appendAgentLog({ taskId: 'T', text: `stay ${i}`, type: 'text' })
  parentPort.postMessage('appended')
  setInterval(() => {}, 1000)
} else {
  parentPort.postMessage(await db.appendAgentLogs([{ taskId: 'T', text: 'from a worker', type: 'text' }]))
  db.close()
}
