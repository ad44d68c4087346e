// Ends while another process holds the write lock for good.
import { writeSync } from 'node:fs'
import { HardenedDatabase } from '../../index.js'

const db = new HardenedDatabase(process.argv[2])
db.appendAgentLog({ taskId: 'T', text: 'too late', type: 'text' })
writeSync(1, 'ending\n')
if (process.argv[3] === 'exit') process.exit(0)
