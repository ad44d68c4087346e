'use strict'

// What native calls report in addition to their results. The layout is that of `Report` in
// src/node/environment.rs.

const { binding } = require('./native.js')

const { report: buffer } = binding.realm()

module.exports = {
  /** The bits of the last call, at index 0; two small numbers; whether they are too small. */
  ints: new Int32Array(buffer),
  doubles: new Float64Array(buffer),
  bigints: new BigInt64Array(buffer),
  RENAMED: 1,
  TRANSACTION_ENDED: 2,
  SCHEMA_UNSURE: 4,
  CACHEABLE: 8,
  NAMED: 16,
  DONE: 32,
  SETTING: 64,
}
