// Terminates many workers while each checks a database; then no thread of theirs is left.
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { HardenedDatabase, check } from '../../index.js'

const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0)

if (isMainThread) {
  const file = path.join(process.argv[2], 'a.db')
  const db = new HardenedDatabase(file)
  db.exec('CREATE TABLE t(v)')
  db.exec(
    `INSERT INTO t SELECT randomblob(2000) FROM (WITH c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000) SELECT x FROM c)`,
  )
  db.close()
  const before = threads()
  let ended = 0
  const one = async () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: file })
    await once(worker, 'message')
    await worker.terminate()
    ended++
  }
  const workers = Number(process.argv[3])
  for (let begun = 0; begun < workers; begun += 2) await Promise.all([one(), one()])
  // Threads of the pool stay; one for each task would be three a worker.
  while (threads() > before + 8) await sleep(20)
  console.log(`${ended} terminated`)
} else {
  const db = new HardenedDatabase(workerData, { startupCheck: 'off' })
  for (let i = 0; i < 3; i++) {
    check(workerData, { progress() {} }).catch(() => {})
  }
  db.flushAgentLogs().then(() => db.flushAgentLogs())
  parentPort.postMessage('checking')
}
