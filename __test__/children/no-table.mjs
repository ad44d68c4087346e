// An entry for a database without its table: an error to which a monitor alone listens.

import { errorMonitor } from 'node:events'
import { HardenedDatabase } from '../../index.mjs'

const db = new HardenedDatabase(process.argv[2], { changeCounter: null })
// A schema, so that the log makes no table.
db.exec('CREATE TABLE other (a)')
// The writer keeps no process alive.
const alive = setInterval(() => {}, 1000)
const warned = new Promise((resolve) => process.once('warning', resolve))
db.on(errorMonitor, (error) => console.log('monitor', error.code))
db.appendAgentLog({ taskId: 'a', type: 'text', text: 'x' })
await warned
clearInterval(alive)
db.takePending()
await db.closeAsync()
