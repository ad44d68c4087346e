'use strict'

// `require('fusion-sqlite/with-binding')(binding)`: the package, on the binary that the application
// names. For bundles and single executables, where the loader cannot find one.

const choice = require('./native/choice.js')

function invalid(message) {
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_TYPE' })
}

/** See with-binding.d.ts. */
module.exports = function withBinding(nativeBinding) {
  if (nativeBinding === null || !['string', 'object'].includes(typeof nativeBinding)) {
    throw invalid('The "nativeBinding" argument must be a path, or the exports of the loaded addon.')
  }
  if (choice.nativeBinding !== nativeBinding) {
    if (choice.loaded) {
      const message = 'fusion-sqlite is loaded already: name its binary before anything requires it'
      throw Object.assign(new Error(message), { code: 'ERR_INVALID_STATE' })
    }
    choice.nativeBinding = nativeBinding
  }
  return require('./index.js')
}
