// Run once in each environment of the addon, in the addon's own realm, which outlives every realm
// that the package's JavaScript is loaded into (Jest's test files, contexts of node:vm). Nothing
// here may hold what one of those made. Evaluates to what src/node/realm.rs keeps.

;(({ process, console, Error, TypeError, RangeError, SharedArrayBuffer, Uint8Array }) => {
  const { types } = process.getBuiltinModule('node:util')
  return Object.freeze({
    // Jest gives its test files a copy of `process`, whose 'exit' does not come.
    process,
    errors: [Error, TypeError, RangeError],
    // Shared, because JavaScript cannot detach it.
    report: new SharedArrayBuffer(48),
    // N-API has no access to a SharedArrayBuffer, but to a view of one.
    view: (value) => (types.isSharedArrayBuffer(value) ? new Uint8Array(value) : undefined),
    // What is accepted is written before the process ends: 'exit' comes on a natural exit, on
    // process.exit(), after an uncaught exception and after an unhandled rejection. Nothing runs on
    // a signal that is not handled. A worker's entries are in the process's own queues, so that its
    // end needs nothing here.
    //
    // A transaction that this thread has open keeps its log from writing. A listener that runs after
    // this one may commit it, so that it is rolled back later, when the process itself ends and no
    // JavaScript runs any more; the native side is called then, but on the systems below.
    atExit(flushAll) {
      // Here, because a Node that has not loaded this module yet takes milliseconds for it.
      if (!process.getBuiltinModule('node:worker_threads').isMainThread) return
      const isLast = process.platform === 'win32' || (process.platform === 'darwin' && 'bun' in process.versions)
      process.on('exit', () => {
        // No listener runs any more that could be given an error.
        for (const sentence of flushAll(isLast)) console.error(`fusion-sqlite: ${sentence}`)
      })
    },
  })
})(globalThis)
