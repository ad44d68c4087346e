'use strict'

// pageMap(path): what each page of a database file is and belongs to.

const { integer } = require('./option-checks.js')
const { invalidArgType } = require('./errors.js')
const { filePath } = require('./file-path.js')
const { runTask, taskOptions } = require('./task.js')

/** The most squares of one picture that a person can still distinguish. */
const RESOLUTION = 50_000

/** Pages that the findings of a check name. */
function namedPages(health) {
  if (health === undefined || health === null) return []
  if (!Array.isArray(health?.findings)) {
    throw invalidArgType('The "options.health" argument must be the result of a check.')
  }
  return [...new Set(health.findings.flatMap((finding) => finding.pages ?? []))].toSorted((a, b) => a - b)
}

/** See index.d.ts. */
async function pageMap(path, options = {}) {
  const watch = taskOptions(options, ['health', 'resolution'])
  const resolution = integer(options, 'resolution', RESOLUTION, 1, 0xffff_ffff)
  return runTask('pageMap', { path: filePath(path), resolution, damaged: namedPages(options.health) }, watch)
}

module.exports = { pageMap }
