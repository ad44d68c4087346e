// The ways to write that the torture compares: the log of this package, and auto-committed INSERTs of node:sqlite.

import { HardenedDatabase } from '../index.mjs'

const INSERT = "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES (?, '2026-11-23', ?, 'text')"
const EVENTS = ['error', 'corrupt', 'replaced', 'recovering', 'recovered', 'healed', 'checkpoint']
const FAILURES = new Set(['error', 'corrupt', 'replaced', 'healed'])

/** `appendAgentLogs` of a HardenedDatabase. With `waits` its agents wait for `reopen` where the log has stopped. */
export function packageLibrary({ file, options, onEvent, describe, waits }) {
  const db = new HardenedDatabase(file, { retryDeadline: 20_000, ...options })
  for (const event of EVENTS) {
    db.on(event, (first) => {
      if (FAILURES.has(event)) onEvent(event, describe(first))
      else if (event === 'checkpoint') {
        if (first.busy) onEvent('checkpoint busy')
      } else onEvent(event, { outcome: first?.outcome })
    })
  }
  let resumed = Promise.withResolvers()
  const go = (on) => {
    resumed.resolve(on)
    resumed = Promise.withResolvers()
  }
  return {
    batch: true,
    db,
    append: (taskId, texts) => db.appendAgentLogs(texts.map((text) => ({ taskId, text, type: 'text' }))),
    isStopped: () => db.stats().state === 'stopped',
    resumed: () => (waits ? resumed.promise : false),
    giveUp: () => go(true),
    reopen() {
      db.reopen()
      go(true)
    },
    close: () => db.closeAsync(),
    takePending: () => db.takePending(),
  }
}

/**
 * One row a transaction through `sqlite.DatabaseSync`. What a careful program does about a failure: tries again where
 * the database is locked, else opens it again.
 */
export function nodeLibrary({ file, sqlite }) {
  let db = null
  let insert = null
  const open = () => {
    db = new sqlite.DatabaseSync(file, { timeout: 2000 })
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    insert = db.prepare(INSERT)
  }
  const close = () => {
    try {
      db?.close()
    } finally {
      db = null
    }
  }
  return {
    batch: false,
    async append(taskId, [text]) {
      try {
        if (db === null) open()
        insert.run(taskId, text)
      } catch (error) {
        if (![5, 6].includes(error.errcode & 0xff)) {
          try {
            close()
          } catch {
            // It is replaced by a new handle.
          }
        }
        throw error
      }
    },
    close: async () => close(),
  }
}
