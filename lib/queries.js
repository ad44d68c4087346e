'use strict'

// The diagnostics channel `sqlite.db.query`: `{ sql, database, duration }` of each statement that has
// run. Published when the call that ran it returns: SQLite says it at moments when JavaScript must
// not run.

const diagnostics = require('node:diagnostics_channel')
const { binding } = require('./native.js')

const channel = diagnostics.channel('sqlite.db.query')

/** Has SQLite say what runs on `connection` for as long as there are subscribers. */
function trace(connection) {
  connection.traced = channel.hasSubscribers
  binding.traceQueries(connection.number, connection.traced)
}

/** Hands the subscribers what ran, to whom `connection` is in a callback. */
function publish(connection) {
  if (!connection.isOpen) return
  const queries = binding.takeQueries(connection.number)
  connection.publishing++
  try {
    for (let at = 0; at < queries.length; at += 2) {
      const [sql, duration] = [queries[at], queries[at + 1]]
      channel.publish({ __proto__: null, sql, database: connection.database, duration })
    }
  } finally {
    connection.publishing--
  }
  if (!channel.hasSubscribers) trace(connection)
}

/** Forgets what ran. */
function discard(connection) {
  if (connection.traced) binding.takeQueries(connection.number)
}

module.exports = { channel, discard, publish, trace }
