'use strict'

// Which binary the application named, from `fusion-sqlite/with-binding` to the loader.

module.exports = {
  /** A path, or the exports of an addon that is loaded already. */
  nativeBinding: undefined,
  /** Whether the loader has run: later it is too late to name one. */
  loaded: false,
}
