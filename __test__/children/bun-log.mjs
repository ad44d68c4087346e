// HardenedDatabase and its log: prints what was seen, one JSON text, the same on every runtime.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { HardenedDatabase, appendAgentLogs } from '../../index.mjs'

const file = process.argv[2]
const seen = []
const entry = (text, more) => ({ taskId: 'T', text, type: 'text', timestamp: '2026-07-01', ...more })

async function see(label, look) {
  try {
    seen.push([label, (await look()) ?? null])
  } catch (error) {
    const { name, message, code, errcode } = error
    seen.push([label, { name, message: message.replaceAll(file, 'FILE'), code, errcode }])
  }
}

let db = new HardenedDatabase(file)
db.exec(readFileSync(new URL('../../examples/fusion-schema.sql', import.meta.url), 'utf8'))
db.exec(`INSERT INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
const texts = () => db.prepare('SELECT id, text FROM agentLogEntries ORDER BY id').all()

await see('profile', () =>
  ['journal_mode', 'synchronous', 'foreign_keys', 'busy_timeout'].map((name) => db.prepare(`PRAGMA ${name}`).get()),
)
await see('receipt', () => db.appendAgentLogs([entry('a'), entry('b', { detail: 'd', agent: 'executor' })]))
await see('rejection', () => db.appendAgentLogs([entry('c'), entry('lost', { taskId: 'nobody' }), entry('d')]))
await see('none', () => db.appendAgentLogs([]))
await see('not an array', () => db.appendAgentLogs(entry('x')))
await see('not an entry', () => db.appendAgentLogs([entry('x'), { taskId: 'T' }]))
await see('one', () => db.appendAgentLog(entry('e 日本語 🦊')))
await see('flush', () => db.flushAgentLogs())
await see('flushed', () => texts())
await see('flushed while standing still', () => {
  db.appendAgentLog(entry('f'))
  db.flushAgentLogsSync()
  return texts().length
})
await see('order', async () => {
  const calls = Array.from({ length: 50 }, (_, i) => db.appendAgentLogs([entry(`o${i}`)]))
  const ids = (await Promise.all(calls)).map((receipt) => receipt.firstId)
  return ids.every((id, i) => i === 0 || id === ids[i - 1] + 1)
})
await see('getter that closes', () =>
  db.appendAgentLogs([
    {
      taskId: 'T',
      type: 'text',
      get text() {
        db.close()
        return 'closed'
      },
    },
  ]),
)
db = new HardenedDatabase(file)
// What is only listened for keeps no process alive.
const alive = setInterval(() => {}, 1000)
await see('event', async () => {
  const heard = Promise.withResolvers()
  db.once('rejected', (error, lost) => heard.resolve([error.errcode, lost.text]))
  db.appendAgentLog(entry('unheard', { taskId: 'nobody' }))
  return heard.promise
})
await see('warning', async () => {
  const heard = Promise.withResolvers()
  process.once('warning', (warning) => heard.resolve([warning.name, warning.code]))
  db.appendAgentLog(entry('unheard', { taskId: 'nobody' }))
  return heard.promise
})
await see('checkpoint', () => db.checkpoint('truncate'))
await see('stats', () => {
  const { state, queue, rows, rejected } = db.stats()
  return { state, queued: queue.rows, rows, rejected }
})
await see('taken back', () => {
  db.exec('BEGIN IMMEDIATE')
  db.appendAgentLog(entry('g'))
  const back = db.takePending()
  db.exec('ROLLBACK')
  return back
})
await see('conflict', () => new HardenedDatabase(file, { batchRows: 7 }))
await see('module function', async () => (await appendAgentLogs(file, [entry('h')])).committed)

// A worker that ends, and one that is terminated with entries under way.
const script = new URL('bun-worker.mjs', import.meta.url)
await see('worker', async () => {
  const worker = new Worker(script, { workerData: { file, stay: false } })
  const receipt = Promise.withResolvers()
  const ended = Promise.withResolvers()
  worker.once('message', receipt.resolve).once('error', receipt.reject).once('exit', ended.resolve)
  return [(await receipt.promise).committed, await ended.promise]
})
await see('terminated worker', async () => {
  const worker = new Worker(script, { workerData: { file, stay: true } })
  const ready = Promise.withResolvers()
  worker.once('message', ready.resolve).once('error', ready.reject)
  await ready.promise
  await worker.terminate()
  const stored = () => db.prepare(`SELECT count(*) AS n FROM agentLogEntries WHERE text LIKE 'stay %'`).get().n
  for (let i = 0; i < 500 && stored() < 100; i++) await pause(10)
  return stored()
})
await see('closed at leisure', async () => {
  db.appendAgentLog(entry('last'))
  await db.closeAsync()
  return db.isOpen
})
await see('after', () => db.appendAgentLogs([entry('x')]))
await see('one after', () => db.appendAgentLog(entry('x')))
db = new HardenedDatabase(file, { readOnly: true })
await see('integrity', () => db.prepare('PRAGMA integrity_check').all())
await see('last row', () => texts().at(-1).text)
db.close()
clearInterval(alive)
console.log(JSON.stringify(seen))
