'use strict'

// Which C library this Node is linked with: a binary for the other one does not load.

const fs = require('node:fs')

/** What Node's executable names as its dynamic linker, in its first page; cheaper than a report. */
function ofExecutable() {
  let descriptor
  try {
    descriptor = fs.openSync(process.execPath, 'r')
    const head = Buffer.alloc(4096)
    fs.readSync(descriptor, head, 0, head.length, 0)
    if (head.includes('/ld-musl-')) return 'musl'
    return head.includes('/ld-linux') ? 'glibc' : 'unknown'
  } catch {
    return 'unknown'
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor)
  }
}

/** Node's diagnostic report, without looking up the names of hosts. */
function report() {
  if (process.report === undefined) return undefined
  const { excludeNetwork } = process.report
  process.report.excludeNetwork = true
  try {
    return process.report.getReport()
  } finally {
    process.report.excludeNetwork = excludeNetwork
  }
}

function ofReport() {
  const { header, sharedObjects = [] } = report() ?? {}
  if (header?.glibcVersionRuntime !== undefined) return 'glibc'
  return sharedObjects.some((file) => file.includes('musl')) ? 'musl' : 'unknown'
}

/** "glibc", "musl" or "unknown". */
function libc() {
  const found = ofExecutable()
  return found === 'unknown' ? ofReport() : found
}

/** The version of the glibc that this process runs on, "2.36" say; undefined on another system. */
function glibcVersion() {
  return report()?.header?.glibcVersionRuntime
}

module.exports = { glibcVersion, libc }
