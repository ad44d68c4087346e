'use strict'

// pageMap(path): what each page of a database file is and belongs to.

const { invalidArgType, outOfRange } = require('./errors.js')
const { pathText } = require('./file-info.js')
const { runTask, taskOptions } = require('./task.js')

/** Squares of a picture that a person can still tell apart. */
const RESOLUTION = 50_000

/** Pages that the findings of a check name. */
function namedPages(health) {
  if (health === undefined) return []
  if (!Array.isArray(health?.findings)) {
    throw invalidArgType('The "options.health" argument must be the result of a check.')
  }
  return [...new Set(health.findings.flatMap((finding) => finding.pages ?? []))].toSorted((a, b) => a - b)
}

/** See index.d.ts. */
async function pageMap(path, options = {}) {
  const watch = taskOptions(options)
  const { health, resolution = RESOLUTION } = options
  if (typeof resolution !== 'number') {
    throw invalidArgType('The "options.resolution" argument must be a number.')
  }
  if (!Number.isInteger(resolution) || resolution < 1 || resolution > 0xffff_ffff) {
    throw outOfRange('The "options.resolution" argument must be an integer from 1 on.')
  }
  return runTask('pageMap', { path: pathText(path), resolution, damaged: namedPages(health) }, watch)
}

module.exports = { pageMap }
