// A process that writes to a shared database until it is told to stop: rows of the log, awaited, and
// rows by SQL, in autocommit mode and in transactions. It tells each row that was acknowledged.

import { HardenedDatabase } from '../../index.mjs'
import { commands, tell } from './lines.mjs'

const [, , file, name] = process.argv
const db = new HardenedDatabase(file, { checkpointIdle: 50, onCorruption: 'throw' })
const insert = db.prepare(
  "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', 'now', ?, 'text')",
)
const events = {}
for (const event of ['error', 'corrupt', 'healed', 'recovered']) {
  db.on(event, () => (events[event] = (events[event] ?? 0) + 1))
}

/** The texts of acknowledged rows, and of those that were refused: they may be there, or not. */
const [done, refused] = [[], []]
const stop = new AbortController()
const entry = (text) => ({ taskId: 'T-1', timestamp: 'now', text, type: 'text' })

async function attempt(texts, write) {
  try {
    await write()
    done.push(...texts)
  } catch (error) {
    refused.push(...texts.map((text) => `${text}: ${error.code} ${error.errcode} ${error.message}`))
  }
}

async function work() {
  for (let round = 0; !stop.signal.aborted; round++) {
    const texts = [0, 1, 2].map((row) => `${name} ${round} ${row}`)
    await attempt(texts, () => db.appendAgentLogs(texts.map(entry)))
    await attempt([`${name} ${round} sql`], () => insert.run(`${name} ${round} sql`))
    await attempt([`${name} ${round} tx`], () => {
      db.exec('BEGIN IMMEDIATE')
      try {
        insert.run(`${name} ${round} tx`)
        db.exec('COMMIT')
      } catch (error) {
        if (db.isTransaction) db.exec('ROLLBACK')
        throw error
      }
    })
    tell('round', { round })
    await new Promise(setImmediate)
  }
}

const working = work()
for await (const command of commands()) if (command === 'stop') break
stop.abort()
await working
await db.closeAsync()
tell('done', { done, refused, events })
process.exit()
