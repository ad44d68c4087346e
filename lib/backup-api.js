'use strict'

const { binding } = require('./native.js')
const { connectionOf } = require('./database-sync.js')
const { invalidArgType } = require('./errors.js')
const { backupOptions, databasePath } = require('./options.js')
const { withCaller } = require('./stack.js')

/** Copies slice by slice, each of them off this thread. */
async function copy(number, rate, progress) {
  let copying = true
  try {
    for (;;) {
      let slice
      try {
        slice = await binding.backupStep(number, rate)
      } catch (error) {
        copying = false
        throw withCaller(error)
      }
      const [totalPages, remainingPages] = slice
      if (remainingPages < 0) {
        copying = false
        return totalPages
      }
      if (progress !== undefined) Reflect.apply(progress, null, [{ totalPages, remainingPages }])
    }
  } finally {
    // Rolling back waits for the disk, too.
    if (copying) await binding.backupStep(number, 0)
    binding.backupEnd(number)
  }
}

/** The arguments are checked at once; everything else is the promise's. */
function backup(sourceDb, path, ...rest) {
  if ((typeof sourceDb !== 'object' || sourceDb === null) && typeof sourceDb !== 'function') {
    throw invalidArgType('The "sourceDb" argument must be an object.')
  }
  // node:sqlite crashes here.
  if (connectionOf(sourceDb) === undefined) {
    throw invalidArgType('The "sourceDb" argument must be an instance of DatabaseSync.')
  }
  const file = databasePath(path)
  const { rate, source, target, progress } = backupOptions(rest[0], rest.length > 0)
  // The getters of `options` may have closed the database, or reopened it.
  const { number } = connectionOf(sourceDb)
  return copy(binding.backupStart(number, file, source, target), rate, progress)
}

module.exports = { backup }
