'use strict'

// Locks that hold for Node's own copy of SQLite: it loads this addon as an extension of its own.

const { binding } = require('./native.js')
const { realNodeSqlite } = require('./original-node-sqlite.js')

/** See index.d.ts. */
function protectNodeSqlite() {
  const { nodeSqliteLocks, lockKind, lockFallbackReason } = binding.engineInfo()
  if (nodeSqliteLocks !== 'posix') return { protected: true, reason: null }
  if (lockKind !== 'ofd') {
    binding.notLoaded(lockFallbackReason)
    return { protected: false, reason: lockFallbackReason }
  }
  const image = binding.image()
  if (image === undefined) return { protected: false, reason: "the addon's file is not known" }
  let database
  try {
    const sqlite = realNodeSqlite()
    if (sqlite === undefined) return { protected: false, reason: 'this process has no node:sqlite' }
    database = new sqlite.DatabaseSync(':memory:', { allowExtension: true })
    // SQLite finds the entry point by the file's name: sqlite3_fusionsqlite_init.
    database.loadExtension(image)
  } catch (error) {
    // Unless the addon was loaded and has said it better.
    binding.notLoaded(String(error?.message))
    return { protected: false, reason: binding.engineInfo().nodeSqliteLocksReason }
  } finally {
    database?.close()
  }
  return { protected: true, reason: null }
}

module.exports = { protectNodeSqlite }
