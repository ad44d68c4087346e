// What a receipt's continuation, a progress function and a listener may do.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { DatabaseSync, HardenedDatabase, check } from '../../index.js'

const [folder, way] = isMainThread ? process.argv.slice(2) : workerData
const file = path.join(folder, 'fusion.db')
const schema = new URL('../../examples/fusion-schema.sql', import.meta.url)
const entry = (text) => ({ taskId: 'T', text, type: 'text' })

function open() {
  const db = new HardenedDatabase(file)
  db.exec(readFileSync(schema, 'utf8'))
  db.exec(`INSERT OR IGNORE INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
  return db
}

const stored = () => {
  const db = new DatabaseSync(file)
  console.log(`stored ${db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n}`)
  db.close()
}

/** Three receipts that come in one delivery, as a rule; `then` follows the first. */
function append(db, then) {
  const first = db.appendAgentLogs([entry('1')]).then(then)
  return Promise.allSettled([first, db.appendAgentLogs([entry('2')]), db.appendAgentLogs([entry('3')])])
}

const ways = {
  async closes() {
    const db = open()
    await append(db, () => db.close())
    stored()
  },
  async throws() {
    const db = open()
    const caught = []
    process.on('uncaughtException', (error) => caught.push(error.message))
    await append(db, () => {
      queueMicrotask(() => {
        throw new Error('thrown in a continuation')
      })
    })
    await db.flushAgentLogs()
    if (caught.length !== 1) throw new Error('not caught once')
    db.close()
    stored()
  },
  async exits() {
    const db = open()
    process.on('exit', () => stored())
    await append(db, () => process.exit(7))
  },
  async 'progress-closes'() {
    const db = open()
    await append(db, () => {})
    const checking = check(file, {
      progress() {
        if (db.isOpen) db.close()
      },
    })
    await checking
    stored()
  },
  async 'event-closes'() {
    const db = open()
    await append(db, () => {})
    const closed = new Promise((resolve) => {
      db.once('checkpoint', () => resolve(db.close()))
    })
    await db.checkpoint('truncate').catch(() => {})
    await closed
    stored()
  },
  async terminates() {
    if (isMainThread) {
      const worker = new Worker(new URL(import.meta.url), { workerData: [folder, way] })
      await once(worker, 'message')
      await worker.terminate()
      stored()
    } else {
      const db = open()
      db.on('checkpoint', () => process.exit())
      await append(db, () => {})
      check(file, { progress: () => process.exit() }).catch(() => {})
      db.checkpoint('truncate').catch(() => {})
      parentPort.postMessage('now')
    }
  },
}

await ways[way]()
