'use strict'

// What a path that is given as a database's leads to instead. A file that is no regular one is not
// opened: that may wait for ever.

const { closeSync, existsSync, openSync, readSync, statSync } = require('node:fs')

/** The rollback journal's first bytes (sqlite.org/fileformat2.html, 3). */
const JOURNAL = [0xd9, 0xd5, 0x05, 0xf9]

const startsWith = (bytes, start) => start.every((byte, at) => bytes[at] === byte)

/** Files that SQLite has next to a database, by the end of their names, and whether `bytes` may begin one. */
const NEIGHBOURS = {
  '-wal': (bytes) => startsWith(bytes, [0x37, 0x7f, 0x06, 0x82]) || startsWith(bytes, [0x37, 0x7f, 0x06, 0x83]),
  '-journal': (bytes) => startsWith(bytes, JOURNAL),
  // Its version, in the machine's byte order.
  '-shm': (bytes) => bytes.length >= 4 && [bytes.readUInt32LE(), bytes.readUInt32BE()].includes(3_007_000),
}

function beginning(path) {
  const bytes = Buffer.alloc(16)
  const file = openSync(path, 'r')
  try {
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, 0))
  } finally {
    closeSync(file)
  }
}

/** Whether `path` is named as a neighbour of a database and holds what such a one holds, or nothing. */
function neighbourOf(path) {
  const ending = Object.keys(NEIGHBOURS).find((candidate) => path.endsWith(candidate))
  if (ending === undefined) return undefined
  let bytes
  try {
    bytes = beginning(path)
  } catch {
    // Opening the file as a database will report why it cannot be read.
    return undefined
  }
  // A sidecar file that is not in use may be empty or begin with zeros.
  if (!NEIGHBOURS[ending](bytes) && bytes.some((byte) => byte !== 0)) return undefined
  const database = path.slice(0, -ending.length)
  return existsSync(database)
    ? `${path} is the ${ending} of ${database}; name the database itself: ${database}`
    : `${path} is the ${ending} of a database ${database}, which is not there`
}

/** Whether something is at `path` that is no directory. If not, opening it says why (src/engine/cause.rs). */
function mayBeOpened(path) {
  try {
    return !statSync(path).isDirectory()
  } catch {
    return false
  }
}

/** Why what is at `path` is no database, in words; undefined if it may. */
function whyNoDatabase(path) {
  if (!mayBeOpened(path)) return undefined
  if (!statSync(path).isFile()) return `${path} is not a regular file, but a pipe, a socket or a device`
  return neighbourOf(path)
}

module.exports = { mayBeOpened, whyNoDatabase }
