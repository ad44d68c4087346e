// A process whose main thread never loads the package; its worker does.
const { Worker } = require('node:worker_threads')

const worker = new Worker(
  `const { parentPort, workerData } = require('node:worker_threads')
  const { HardenedDatabase } = require(workerData.index)
  const db = new HardenedDatabase(workerData.file)
  for (let i = 0; i < 2000; i++) db.appendAgentLog({ taskId: 'T', text: 'row ' + i, type: 'text' })
  parentPort.postMessage('accepted')
  if (workerData.end !== 'natural') setInterval(() => {}, 1000)`,
  {
    eval: true,
    workerData: { index: require.resolve('../../index.js'), file: process.argv[2], end: process.argv[3] },
  },
)
worker.once('message', () => {
  if (process.argv[3] === 'terminate') worker.terminate()
  if (process.argv[3] === 'exit') process.exit()
})
