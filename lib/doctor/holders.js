'use strict'

// Who has a database open, as text.

const FILES = { database: 'database', wal: '-wal', shm: '-shm', journal: '-journal' }

/** What a lock stands for, for a person. */
const LOCKS = {
  database: {
    shared: 'reads, or has it open in WAL mode',
    reserved: 'is about to write',
    pending: 'waits for readers to end',
    exclusive: 'keeps everybody else out',
  },
  shm: {
    write: 'writes',
    checkpoint: 'checkpoints',
    recover: 'rebuilds the WAL index',
    read: 'reads',
    open: 'has it open',
  },
}

/** What a lock means, in words; undefined for a lock that SQLite does not use. */
function meaning({ file, standsFor, exclusive }) {
  // A WAL recovery takes several locks as one range, which then stands for several names.
  const words = standsFor.map((name) => {
    // Readers take these locks shared.
    if (name === 'read' && exclusive) return 'resets the WAL'
    return LOCKS[file]?.[name] ?? name
  })
  return words.length === 0 ? undefined : words.join(', ')
}

/** Prints who has the file open and which locks they hold. */
function showHolders(terminal, { processes, locks: known, unknown }) {
  // macOS lists processes, not locks.
  const locks = known ?? []
  if (processes === null) {
    terminal.fact('open in', unknown ?? 'unknown')
    return
  }
  const others = processes.filter(({ thisProcess }) => !thisProcess)
  if (others.length === 0) terminal.fact('open in', 'no process that can be seen')
  for (const { pid, command, files } of others) {
    terminal.fact('open in', `process ${pid}: ${command || '(no command line)'}`)
    const held = locks.filter((lock) => lock.pid === pid).map(meaning)
    const does = [...new Set(held.filter(Boolean))]
    terminal.fact('', terminal.style('dim', `has open: ${files.map((file) => FILES[file]).join(', ')}`))
    if (does.length > 0) terminal.fact('', terminal.style('dim', `locks: ${does.join('; ')}`))
  }
  for (const lock of locks.filter(({ pid }) => pid === null)) {
    terminal.fact('locked', `by a process that cannot be seen: ${meaning(lock) ?? FILES[lock.file]}`)
  }
  if (unknown !== null) terminal.fact('', terminal.style('dim', unknown))
}

module.exports = { showHolders }
