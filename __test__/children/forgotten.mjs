// A database left to the garbage collector: its writer ends, and takes the file's lock table with it.
import { existsSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { HardenedDatabase } from '../../index.js'

const file = process.argv[2]
function leave() {
  const db = new HardenedDatabase(file)
  db.on('checkpoint', () => {})
  db.appendAgentLog({ taskId: 'T', text: 'forgotten', type: 'text' })
}
leave()
// The writer's end closes the last connection, which removes the -wal.
while (existsSync(`${file}-wal`)) {
  globalThis.gc()
  await setImmediate()
}
console.log('closed')
