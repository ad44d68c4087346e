// A process that stays and appends through the package: "go" until it is told to stop, "append" 100 rows. "copy" has it
// copy its own live files, as Fusion's dashboard did for backups.

import { cp } from 'node:fs/promises'
import { HardenedDatabase, engineInfo } from '../../index.mjs'
import { acknowledgements, commands, tell, tellFailure } from './lines.mjs'

const [, , file, acknowledged, copy] = process.argv
const acknowledge = acknowledgements(acknowledged)
const db = new HardenedDatabase(file, { retryDeadline: 3000 })
for (const event of ['error', 'corrupt', 'replaced']) db.on(event, tellFailure)
const filler = 'x'.repeat(300)

let going = true
let failed = 0

/** Appends batches until told to stop, at most `batches`. */
async function append(producer, batches = Infinity) {
  for (let batch = 0; going && batch < batches; batch++) {
    const texts = Array.from({ length: 10 }, (_, row) => `daemon ${producer}.${batch}.${row}`)
    const entries = texts.map((text) => ({ taskId: 'T-1', type: 'text', text, detail: filler }))
    try {
      await db.appendAgentLogs(entries)
      acknowledge(texts)
    } catch (error) {
      tellFailure(error)
      // Damage is final; a failed lock is not.
      if (++failed === 20) going = false
    }
  }
}

async function copyLiveFiles() {
  for (const suffix of ['', '-wal', '-shm']) {
    await cp(file + suffix, `${copy}${suffix}`).catch((error) => {
      if (error.code !== 'ENOENT') tellFailure(error)
    })
  }
  tell('copied')
}

let appending
let rounds = 0
tell('ready', engineInfo())
for await (const command of commands()) {
  if (command === 'go') appending = Promise.all([append(1), append(2)])
  if (command === 'append') {
    await append(`round ${++rounds}`, 10)
    tell('appended')
  }
  if (command === 'copy') await copyLiveFiles()
  if (command === 'stop') break
}
going = false
await appending
try {
  await db.closeAsync()
} catch (error) {
  tellFailure(error)
}
tell('done')
process.exit()
