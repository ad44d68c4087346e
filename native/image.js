'use strict'

// What a file that should be a shared library is, by its first bytes.

const fs = require('node:fs')

const ELF_MACHINE = { 3: 'ia32', 40: 'arm', 62: 'x64', 183: 'arm64' }
const PE_MACHINE = { 0x14c: 'ia32', 0x8664: 'x64', 0xaa64: 'arm64' }
const MACHO_CPU = { 0x1000007: 'x64', 0x100000c: 'arm64' }

/** The first 4 KiB of a file, and its size. */
function head(file) {
  const descriptor = fs.openSync(file, 'r')
  try {
    const bytes = Buffer.alloc(4096)
    const read = fs.readSync(descriptor, bytes, 0, bytes.length, 0)
    return { bytes: bytes.subarray(0, read), size: fs.fstatSync(descriptor).size }
  } finally {
    fs.closeSync(descriptor)
  }
}

const isElf64 = (bytes) =>
  bytes.length >= 64 && bytes.readUInt32BE(0) === 0x7f454c46 && bytes[4] === 2 && bytes[5] === 1

/**
 * How many bytes an ELF file lacks at its end, where its section headers are. The system's loader
 * maps what is missing, and the process ends by SIGBUS at the first access.
 */
function missingBytes(file) {
  if (process.platform !== 'linux') return 0
  const { bytes, size } = head(file)
  if (!isElf64(bytes)) return 0
  const end = Number(bytes.readBigUInt64LE(40)) + bytes.readUInt16LE(58) * bytes.readUInt16LE(60)
  return Math.max(0, end - size)
}

/** The system and CPU that a file is for, or undefined: it is no shared library. */
function madeFor(file) {
  const { bytes } = head(file)
  if (isElf64(bytes)) return { platform: 'linux', arch: ELF_MACHINE[bytes.readUInt16LE(18)] ?? 'another CPU' }
  if (bytes.length < 64) return undefined
  if (bytes.readUInt32LE(0) === 0xfeedfacf) {
    return { platform: 'darwin', arch: MACHO_CPU[bytes.readUInt32LE(4)] ?? 'another CPU' }
  }
  const start = bytes.readUInt32LE(60)
  if (bytes.toString('latin1', 0, 2) !== 'MZ' || start + 6 > bytes.length) return undefined
  if (bytes.toString('latin1', start, start + 4) !== 'PE\0\0') return undefined
  return { platform: 'win32', arch: PE_MACHINE[bytes.readUInt16LE(start + 4)] ?? 'another CPU' }
}

module.exports = { madeFor, missingBytes }
