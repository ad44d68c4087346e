'use strict'

// ERR_FUSION_BINARY: no binary could be loaded. Says what was tried, the cause of each failure, and
// what to do.

const fs = require('node:fs')
const path = require('node:path')
const { glibcVersion, libc } = require('./libc.js')
const { madeFor } = require('./image.js')

const NAME_ONE =
  'name the binary with FUSION_SQLITE_BINDING=/path/to/file.node, or with require("fusion-sqlite/with-binding")(path)'
const BUILD =
  'To build one (Rust 1.88 or newer, a C compiler): run "npm ci && npm run build" in a checkout of fusion-sqlite and ' +
  `${NAME_ONE}.`

/** The innermost cause. */
function innermost(error) {
  let inner = error
  while (inner?.cause instanceof Error) inner = inner.cause
  return inner
}

function describeFile(file) {
  try {
    const made = madeFor(file)
    if (made === undefined) return 'the file is no shared library: the download is damaged'
    const { platform, arch } = made
    if (platform === process.platform && arch === process.arch) return undefined
    return `the file is for ${platform}-${arch}, and this process is ${process.platform}-${process.arch}`
  } catch {
    // Absent or unreadable: the error of the load says so.
    return undefined
  }
}

/** Causes that have a sentence of their own: how to recognise the error, what it means, what to do. */
const CAUSES = [
  {
    is: ({ code }) => code === 'MODULE_NOT_FOUND',
    means: () => 'is not installed',
    remedy:
      'Install fusion-sqlite on the system that it runs on (node_modules of another platform or C library does not ' +
      'fit), with optional dependencies: npm install --include=optional.',
  },
  {
    is: ({ code }) => code === 'ERR_DLOPEN_DISABLED' || code === 'ERR_ACCESS_DENIED',
    means: ({ message }) => message,
    remedy:
      'Node runs with --permission: add --allow-addons, and --allow-fs-read for node_modules and --allow-fs-write for ' +
      'the folder of the database.',
  },
  {
    is: ({ message }) => /version `GLIBC_[\d.]+' not found/.test(message),
    means: ({ message }) =>
      `it needs glibc ${/GLIBC_([\d.]+)/.exec(message)[1]}, and this system has ${glibcVersion() ?? 'another'}`,
    remedy: 'Use a newer system, or a binary that was built on this one.',
  },
  {
    is: ({ message }) => /failed to map segment|Operation not permitted/.test(message),
    means: ({ message }) => message,
    remedy: 'The system maps no code from this folder: it may be mounted with noexec.',
  },
  {
    is: ({ message }) => /cut short|no shared library/.test(message),
    means: ({ message }) => message,
    remedy: 'Install it again: remove node_modules first.',
  },
]

/** `name` of a candidate with the reason why it did not load, and what to do about that. */
function explain({ name, file, error }) {
  const cause = innermost(error)
  const described = file === undefined ? undefined : describeFile(file)
  const seen = { code: cause?.code, message: described ?? String(cause?.message ?? cause).split('\n')[0] }
  const known = CAUSES.find(({ is }) => is(seen))
  return { name, reason: known?.means(seen) ?? seen.message, remedy: known?.remedy, cause }
}

/** The platforms whose packages are installed beside this one. */
function otherPlatforms(installed) {
  return Object.keys(installed).filter((target) => {
    try {
      installed[target]()
      return true
    } catch {
      return false
    }
  })
}

function isSingleExecutable() {
  try {
    return require('node:sea').isSea()
  } catch {
    return false
  }
}

/** Whether this code has left its package: the package's folder, or its `native`, is where it was written. */
function isInlined() {
  if (typeof __dirname !== 'string') return true
  return ![__dirname, path.dirname(__dirname)].some((folder) => {
    try {
      return JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).name === 'fusion-sqlite'
    } catch {
      return false
    }
  })
}

/** What to do: by where this code runs, if that left it without a file, else by the `remedies`. */
function advice(remedies, installed, tried) {
  const found = tried.some(({ file }) => file !== undefined)
  if (!found && isSingleExecutable()) {
    return [
      `A single executable loads only files that it writes out first: write the binary to a file and ${NAME_ONE}.`,
    ]
  }
  if (!found && isInlined()) {
    return [`A bundler has inlined fusion-sqlite, which then finds no binary: keep it external, or ${NAME_ONE}.`]
  }
  const others = otherPlatforms(installed)
  const sentences = [...remedies]
  if (tried.length === 0) sentences.push(`There are binaries for: ${Object.keys(installed).join(', ')}.`)
  if (others.length > 0) sentences.push(`Installed are the binaries for: ${others.join(', ')}.`)
  return sentences
}

/** The error for the candidates that were `tried`; `installed` resolves the package of each platform. */
function failure(tried, installed) {
  const { platform, arch } = process
  const libcName = platform === 'linux' ? libc() : null
  const version = libcName === 'glibc' ? ` ${glibcVersion()}` : ''
  const system = libcName === null ? `${platform}-${arch}` : `${platform}-${arch}, ${libcName}${version}`
  const candidates = tried.map(explain)
  const remedies = new Set(candidates.map(({ remedy }) => remedy).filter(Boolean))
  const message = [
    `the binary of fusion-sqlite could not be loaded (${system}, Node ${process.version}):`,
    ...candidates.map(({ name, reason }) => `- ${name}: ${reason}`),
    ...advice(remedies, installed, tried),
    BUILD,
  ].join('\n')
  const error = new Error(message, { cause: candidates.at(-1)?.cause })
  return Object.assign(error, {
    code: 'ERR_FUSION_BINARY',
    platform,
    arch,
    libc: libcName,
    candidates: candidates.map(({ name, reason, cause }) => ({ name, reason, cause })),
  })
}

module.exports = { failure }
