// A process with 20 producers that append through the package until told to stop. Each producer's
// texts are numbered from 0 by "process producer number"; what is acknowledged is noted before
// the next append.

import { HardenedDatabase } from '../../index.mjs'
import { acknowledgements, commands, tell, tellFailure } from './lines.mjs'

const [, , file, acknowledged, name] = process.argv
const acknowledge = acknowledgements(acknowledged)
const db = new HardenedDatabase(file)
for (const event of ['error', 'corrupt', 'replaced']) db.on(event, tellFailure)
let going = true

async function produce(producer) {
  const entry = (number) => ({ taskId: `T-${producer}`, type: 'text', text: `${name} ${producer} ${number}` })
  let number = 0
  for (;;) {
    if (!going) return
    // Now and then an entry that nobody waits for, between those that are acknowledged.
    if (number % 5 === 0) db.appendAgentLog(entry(number++))
    const batch = Array.from({ length: 1 + ((number + producer) % 4) }, () => entry(number++))
    await db.appendAgentLogs(batch)
    acknowledge(batch.map(({ text }) => text))
    tell('appended')
  }
}

tell('ready')
const producing = Promise.all(Array.from({ length: 20 }, (_, index) => produce(index + 1))).catch(tellFailure)
for await (const command of commands()) if (command === 'stop') break
going = false
await producing
await db.closeAsync()
tell('done')
process.exit()
