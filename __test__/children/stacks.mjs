// Where the errors come from that the native side makes while no JavaScript runs.
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { Worker, isMainThread, workerData } from 'node:worker_threads'
import { DatabaseSync, HardenedDatabase, appendAgentLogs, backupFile, check, recover } from '../../index.js'

const [folder, way] = isMainThread ? process.argv.slice(2) : workerData
const file = path.join(folder, 'fusion.db')
const missing = path.join(folder, 'missing.db')
const schema = new URL('../../examples/fusion-schema.sql', import.meta.url)
const entries = [{ taskId: 'T', text: 'x', type: 'text' }]

function open(options) {
  const db = new HardenedDatabase(file, { closeTimeout: 0, ...options })
  db.on('error', () => {})
  return db
}

/** A log that gives up at once, and another connection that holds the lock. */
function locked() {
  const db = open({ retryDeadline: 1 })
  db.exec(readFileSync(schema, 'utf8'))
  db.exec(`INSERT INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
  lock = new DatabaseSync(file)
  lock.exec('BEGIN IMMEDIATE')
  return db
}
let lock

const ways = {
  check: () => check(missing),
  backupFile: () => backupFile(missing, `${missing}.backup`),
  recover: () => recover(missing),
  restore: () => open().restore(missing),
  append: () => locked().appendAgentLogs(entries),
  flush() {
    const db = locked()
    db.appendAgentLogs(entries).catch(() => {})
    return db.flushAgentLogs()
  },
  checkpoint() {
    const db = open()
    db.exec('CREATE TABLE t(v)')
    for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true })
    return db.checkpoint('truncate')
  },
  // No database can be made where a folder is.
  appendByPath: () => appendAgentLogs(folder, entries),
}

async function theApplication() {
  await ways[way]()
}

if (way === 'worker' && isMainThread) {
  const worker = new Worker(new URL(import.meta.url), { workerData: [folder, 'unhandled'] })
  const [error] = await once(worker, 'error')
  console.log(`in the worker: ${error.stack.replaceAll('\n', ' ')}`)
} else if (way === 'unhandled') {
  const theApplication = () => {
    backupFile(missing)
  }
  theApplication()
} else {
  try {
    await theApplication()
    console.log('no error')
  } catch (error) {
    console.log(error.stack)
  }
  lock?.close()
  process.exit()
}
