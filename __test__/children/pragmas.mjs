// Runs each statement in a turn of its own, once by prepare() and once by exec(), and prints the
// warnings of this package as JSON.

import { setImmediate as turn } from 'node:timers/promises'
import { HardenedDatabase } from '../../index.mjs'

const [, , file, ...statements] = process.argv
const warnings = []
process.removeAllListeners('warning')
process.on('warning', ({ code, message }) => {
  if (code === 'FUSION_SETTING') warnings.push(message)
})
const db = new HardenedDatabase(file)
for (const sql of statements) {
  if (!sql.includes(';')) db.prepare(sql).all()
  await turn()
  db.exec(sql)
  await turn()
}
db.close()
await turn()
console.log(JSON.stringify(warnings))
