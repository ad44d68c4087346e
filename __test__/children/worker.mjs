// One of several threads that append to the same file: hands over, then waits to be asked.
import { parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase } from '../../index.js'

const { file, name, rows } = workerData
const db = new HardenedDatabase(file)
parentPort.postMessage('open')
parentPort.on('message', async (order) => {
  if (order === 'append') {
    const receipts = []
    for (let i = 0; i < rows; i += 10) {
      const batch = Array.from({ length: 10 }, (_, j) => ({ taskId: 'T', text: `${name} ${i + j}`, type: 'text' }))
      receipts.push(await db.appendAgentLogs(batch))
    }
    parentPort.postMessage({ receipts, rows: db.stats().rows })
  } else {
    db.close()
    parentPort.close()
  }
})
