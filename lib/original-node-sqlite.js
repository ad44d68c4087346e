'use strict'

// The node:sqlite of the node binary, also where `fusion-sqlite/register` has put this package in
// its place: for protecting it, and for tests that compare the two.

/** On a replaced process.getBuiltinModule: the one that it replaced. */
const kOriginal = Symbol.for('fusion-sqlite.getBuiltinModule')

/** Node's own process.getBuiltinModule. */
function originalGetBuiltinModule() {
  const current = process.getBuiltinModule
  return current?.[kOriginal] ?? current
}

/** Whether `warning` says that node:sqlite is experimental. */
function isExperimental(warning, type) {
  return type === 'ExperimentalWarning' && typeof warning === 'string' && warning.startsWith('SQLite ')
}

/** Node's own node:sqlite; undefined in a Node that has none. */
function realNodeSqlite() {
  const getBuiltinModule = originalGetBuiltinModule()
  if (getBuiltinModule === undefined) return undefined
  // The application did not ask for an experimental module, this package did.
  const { emitWarning } = process
  process.emitWarning = function (warning, type, ...rest) {
    if (!isExperimental(warning, type)) Reflect.apply(emitWarning, this, [warning, type, ...rest])
  }
  try {
    return Reflect.apply(getBuiltinModule, process, ['node:sqlite'])
  } finally {
    process.emitWarning = emitWarning
  }
}

module.exports = { kOriginal, originalGetBuiltinModule, realNodeSqlite }
