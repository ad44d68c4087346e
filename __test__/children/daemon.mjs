// A process that stays and appends through the package: "go" until it is told to stop, "append" 100 rows. "copy" has it
// copy its own live files, as Fusion's dashboard did for backups. Its rows go through the "log", or as "rows" through a
// plain DatabaseSync, which has nobody who looks after it.

import { cp } from 'node:fs/promises'
import { DatabaseSync, HardenedDatabase, engineInfo } from '../../index.mjs'
import { acknowledgements, commands, tell, tellFailure } from './lines.mjs'

const [, , file, acknowledged, copy, how] = process.argv
const acknowledge = acknowledgements(acknowledged)
const filler = 'x'.repeat(300)
const sql =
  "INSERT INTO agentLogEntries (taskId, timestamp, text, type, detail) VALUES ('T-1', '2026-11-23', ?, 'text', ?)"

function openLog() {
  const db = new HardenedDatabase(file, { retryDeadline: 3000 })
  for (const event of ['error', 'corrupt', 'replaced']) db.on(event, tellFailure)
  return {
    add: (texts) => db.appendAgentLogs(texts.map((text) => ({ taskId: 'T-1', type: 'text', text, detail: filler }))),
    close: () => db.closeAsync(),
  }
}

function openRows() {
  const db = new DatabaseSync(file, { timeout: 5000 })
  const insert = db.prepare(sql)
  return {
    async add(texts) {
      db.exec('BEGIN IMMEDIATE')
      for (const text of texts) insert.run(text, filler)
      db.exec('COMMIT')
    },
    close: () => db.close(),
  }
}

const { add, close } = how === 'rows' ? openRows() : openLog()

let going = true
let failed = 0

/** Appends batches until told to stop, at most `batches`. */
async function append(producer, batches = Infinity) {
  for (let batch = 0; going && batch < batches; batch++) {
    const texts = Array.from({ length: 10 }, (_, row) => `daemon ${producer}.${batch}.${row}`)
    try {
      await add(texts)
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
  await close()
} catch (error) {
  tellFailure(error)
}
tell('done')
process.exit()
