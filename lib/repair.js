'use strict'

// What is done about damage that is found before a file is opened. The database is not open in
// this thread then, though it may be elsewhere.

const binding = require('../binding.js')
const { runTask } = require('./task.js')

const hasStaleWal = (health) => health.findings.some((finding) => finding.type === 'staleWal')

function tellAside(path, aside) {
  process.emitWarning(
    `the -wal beside ${path} was not its own, and was put aside as ${aside}. The database is sound without it; ` +
      'if commits are missing from it, they are in that file.',
    { type: 'FusionSqliteWarning', code: 'FUSION_STALE_WAL' },
  )
}

/**
 * Repairs the file at `path`, of which `health` was found, on this thread.
 * @returns {boolean} whether something was done, so that the file is to be looked at again
 * @throws why a repair that is known to help could not be made
 */
function repairAtOpen(path, health) {
  if (!hasStaleWal(health)) return false
  tellAside(path, binding.putWalAside(path))
  return true
}

/** The same off this thread. */
async function repairAhead(path, health) {
  if (!hasStaleWal(health)) return false
  tellAside(path, await runTask('putWalAside', { path }, { deadline: 0 }))
  return true
}

module.exports = { repairAhead, repairAtOpen }
