'use strict'

// `info FILE`: what can be said of a database without changing it.

const { fileInfo } = require('../../index.js')
const { OK } = require('./exit-codes.js')
const { exitCodeOf } = require('./failure.js')
const { showHolders } = require('./holders.js')
const { bytes, counted, moment, number } = require('./format.js')

const LOCK_KINDS = {
  ofd: 'open-file-description locks, which hold whatever else a process does',
  posix: 'POSIX locks: any close of the file in a process drops its locks',
  windows: "Windows's locks, which belong to handles",
}

const KINDS = { backup: 'backup', snapshot: 'schema copy', preserved: 'put aside' }

function showDatabase(terminal, database) {
  const { journalMode, pageSize, pages, freePages, encoding, autoVacuum } = database
  terminal.fact('journal mode', journalMode)
  terminal.fact('pages', `${number(pages)} of ${bytes(pageSize)}, ${number(freePages)} of them free`)
  terminal.fact('text', encoding)
  terminal.fact('auto_vacuum', autoVacuum)
  terminal.fact('user_version', database.userVersion)
  terminal.fact('application_id', database.applicationId)
  terminal.fact('schema changed', counted(database.schemaVersion, 'time'))
  terminal.fact('last writer', database.lastWriter === null ? 'unknown' : `SQLite ${database.lastWriter}`)
}

function showWal(terminal, { wal, shmBytes, journalBytes }) {
  if (wal === null) {
    terminal.fact('-wal', 'none')
  } else if (wal.frames === null) {
    terminal.fact('-wal', bytes(wal.bytes))
  } else {
    const state =
      wal.frames === wal.checkpointed
        ? 'all of it is in the database as well'
        : `${number(wal.checkpointed)} of ${number(wal.frames)} frames are in the database as well`
    terminal.fact('-wal', `${bytes(wal.bytes)}; ${wal.frames === 0 ? 'nothing in it' : state}`)
  }
  if (shmBytes !== null) terminal.fact('-shm', bytes(shmBytes))
  if (journalBytes > 0) {
    terminal.fact('-journal', `${bytes(journalBytes)}: a transaction is under way, or was cut off`)
  }
}

const REMOVABLE = '; the next repair or restore removes it, since the database has all that it holds'

/** See main.js. */
async function info({ operands: [file] }, terminal) {
  const found = await fileInfo(file)
  const { error } = found
  const exitCode = error === null ? OK : exitCodeOf(error)
  terminal.line(terminal.style('bold', found.path))
  terminal.fact('size', bytes(found.bytes))
  if (found.modified !== null) terminal.fact('changed', moment(found.modified))
  if (found.fileSystem !== null) {
    const { name, network } = found.fileSystem
    terminal.fact('file system', network ? terminal.style('red', `${name}: a network, no place for a database`) : name)
  }
  if (found.hardLinks > 1) {
    terminal.fact('hard links', terminal.style('red', `${found.hardLinks}: each name would have a -wal of its own`))
  }
  if (found.fileMount) {
    terminal.fact('mounted', terminal.style('red', 'as a single file: on the other side it has a -wal of its own'))
  }
  showHolders(terminal, found.holders)
  showWal(terminal, found)
  if (found.database === null) terminal.fact('content', terminal.style('red', `cannot be read: ${error.message}`))
  else showDatabase(terminal, found.database)
  terminal.fact('this SQLite', found.sqliteVersion)
  terminal.fact('its locks', LOCK_KINDS[found.lockKind])
  for (const { path, kind, bytes: length, modified, removable } of found.sidecars) {
    terminal.fact(
      KINDS[kind],
      `${path}, ${bytes(length)}${modified === null ? '' : `, ${moment(modified)}`}${removable ? REMOVABLE : ''}`,
    )
  }
  return { exitCode, info: found }
}

module.exports = { info }
