'use strict'

// `checkpoint FILE`: checks first, because a checkpoint makes damage permanent.

const { DatabaseSync, check } = require('../../index.js')
const { kOpen } = require('../internal.js')
const { binding } = require('../native.js')
const { DAMAGED, LOCKED, OK } = require('./exit-codes.js')
const { showHealth } = require('./findings.js')
const { counted, number } = require('./format.js')

/** Milliseconds that readers and writers are waited for. */
const PATIENCE = 5000

/** Setting of an open (src/node/database.rs): errors say their cause, as those of every other command. */
const EXPLAINS = 32

function carryOut(file, mode) {
  const db = new DatabaseSync(
    file,
    { timeout: PATIENCE, enableForeignKeyConstraints: false },
    { [kOpen]: (path, settings, timeout) => binding.open(path, settings | EXPLAINS, timeout) },
  )
  try {
    const { journal_mode: journalMode } = db.prepare('PRAGMA main.journal_mode').get()
    if (journalMode !== 'wal') return { journalMode, busy: false, frames: 0, checkpointed: 0 }
    const { busy, log, checkpointed } = db.prepare(`PRAGMA main.wal_checkpoint(${mode})`).get()
    return { journalMode, busy: busy !== 0, frames: Math.max(log, 0), checkpointed: Math.max(checkpointed, 0) }
  } finally {
    db.close()
  }
}

/** See main.js. */
async function checkpoint({ operands: [file], mode }, terminal, signal) {
  const health = await check(file, { kind: 'quick', signal, progress: terminal.progress() })
  const locked = health.findings.some(({ type }) => type === 'locked')
  if (locked || !health.ok) {
    showHealth(terminal, health)
    terminal.line()
    terminal.paragraph('No checkpoint was made: it would make the damage permanent.')
    return { exitCode: locked ? LOCKED : DAMAGED, health }
  }
  const result = carryOut(file, mode)
  const { journalMode, busy, frames, checkpointed } = result
  const name = terminal.style('bold', file)
  if (journalMode !== 'wal') {
    terminal.line(`${name}: nothing to do, its journal mode is ${journalMode}`)
  } else if (busy) {
    terminal.line(`${name}: ${terminal.style('yellow', 'another connection is reading or writing')}`)
    terminal.paragraph(`${number(checkpointed)} of ${counted(frames, 'frame')} are in the database.`, 2)
  } else {
    const done = mode === 'truncate' ? 'the WAL is empty' : `${number(checkpointed)} of ${counted(frames, 'frame')}`
    terminal.line(`${name}: ${terminal.style('green', 'checkpointed')}, ${done}`)
  }
  return { exitCode: busy ? LOCKED : OK, health, result }
}

module.exports = { checkpoint }
