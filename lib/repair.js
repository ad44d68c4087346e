'use strict'

// Repairs of damaged files: by `recover()`, and before a file is opened. The native side does the
// work (src/recovery/repair.rs). A log's writer reports its own repairs by its events.

const { flag, keepCopies } = require('./option-checks.js')
const { invalidArgType } = require('./errors.js')
const { filePath } = require('./file-path.js')
const { binding, process } = require('./native.js')
const { shown } = require('./shown.js')
const { runTask, taskOptions } = require('./task.js')

/** How long others may be in the way of a repair: they may be repairing the same file. */
const PATIENCE = 300_000
/** The same where this thread waits. */
const PATIENCE_AT_OPEN = 60_000

function backupPaths(backups) {
  if (backups === undefined) return null
  if (!Array.isArray(backups)) throw invalidArgType('The "options.backups" argument must be an array of paths.')
  return backups.map((path, index) => filePath(path, `options.backups[${index}]`))
}

/** What the native `recover` takes, but for the file; `asked`: a program asked for the repair. */
function recoverArguments(options, asked, copies) {
  return {
    asked,
    to: options.to === undefined ? null : filePath(options.to, 'options.to'),
    backups: backupPaths(options.backups),
    useBackup: flag(options, 'useBackup', true),
    allowLoss: flag(options, 'allowLoss', false),
    keepCopies: keepCopies(options, copies),
    patience: PATIENCE,
  }
}

/** See index.d.ts; `file` is the text of a path. `asked`: what is not certain is done, too. */
async function recoverFile(file, options = {}, asked = true, copies = undefined) {
  const watch = taskOptions(options, ['to', 'backups', 'useBackup', 'allowLoss', 'keepCopies'])
  return runTask('recover', { path: file, ...recoverArguments(options, asked, copies) }, watch)
}

/** See index.d.ts. */
async function recover(path, options) {
  return recoverFile(filePath(path), options)
}

/** Repairs the file at `path` on this thread, as far as it needs it, and answers the report. */
function repairAtOpen(path, copies) {
  return JSON.parse(binding.recoverNow(path, PATIENCE_AT_OPEN, copies))
}

/** The same off this thread. */
function repairAhead(path, copies) {
  return recoverFile(path, {}, false, copies)
}

/** Says where a WAL is that was put aside. */
function tellAside({ path, steps }) {
  for (const { step, detail } of steps) {
    if (step !== 'staleWal') continue
    process.emitWarning(shown(`${path}: ${detail}`), {
      type: 'FusionSqliteWarning',
      code: 'FUSION_STALE_WAL',
    })
  }
}

module.exports = { recover, recoverFile, repairAhead, repairAtOpen, tellAside }
