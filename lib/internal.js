'use strict'

// Names by which the classes of this package reach each other. None of them is exported from the
// package, so that its users cannot meet them.

module.exports = {
  /**
   * Property of the third argument of DatabaseSync's constructor, for subclasses: a function
   * `(path, settings, timeout) => number` that opens the connection in place of the native
   * `open`, each time the database is opened, and returns the number that the native `adopt` gave.
   */
  kOpen: Symbol('open'),
  /**
   * Method of a subclass of DatabaseSync, called with no arguments after each synchronous call
   * that ended a transaction, be it by COMMIT, ROLLBACK or an error. What it throws, the call
   * throws.
   */
  kTransactionEnded: Symbol('transactionEnded'),
  /** The same, after each call that may have changed a setting of the connection: a PRAGMA. */
  kSetting: Symbol('setting'),
  /** Property of HardenedDatabase's options: the Startup that looked at the file ahead. */
  kStartup: Symbol('startup'),
  /** Method of DatabaseSync: throws unless it is open and may be closed, which no callback may. */
  kClosable: Symbol('closable'),
  /** Method of DatabaseSync: closes it at the end of a `using`, where a subclass's close() does not count. */
  kClose: Symbol('close'),
  /** Method of DatabaseSync: the number of its open connection; throws if it is closed. */
  kNumber: Symbol('number'),
}
