'use strict'

// Whether this Node is one that package.json's `engines` allows; else loading ends here, with one
// sentence. Older releases crash when a worker thread ends while the native side calls it, or their
// own SQLite damages a database in WAL mode that this package shares with it.

/** The first release of each line that is allowed; every line from NEXT on is. */
const FIRST = { 22: [22, 3], 24: [15, 0] }
const NEXT = 26

function isAllowed(version) {
  const [major, minor, patch] = version.split('.').map(Number)
  if (major >= NEXT) return true
  const first = FIRST[major]
  return first !== undefined && (minor > first[0] || (minor === first[0] && patch >= first[1]))
}

const wanted = Object.entries(FIRST).map(([major, rest]) => `${[major, ...rest].join('.')} or newer of its line`)

// Another runtime says which Node it stands for, but has not its faults.
if (process.versions.bun === undefined && !isAllowed(process.versions.node)) {
  const message = `fusion-sqlite needs Node ${wanted.join(', ')}, or ${NEXT} or newer; this is ${process.version}`
  throw Object.assign(new Error(message), { code: 'ERR_FUSION_NODE' })
}

module.exports = { isAllowed }
