'use strict'

// Prepared statements of SQLite, and which of them a connection keeps.
//
// A StatementSync does not own a sqlite3_stmt. It has SQL text, and borrows a statement for each
// call. The connection keeps up to KEPT statements by their text, so that preparing the same text
// again costs one Map lookup. A kept statement is reset and has no bindings: it holds no lock, no
// text and no blob. It behaves like a statement that was prepared just now, because all kept
// statements are dropped when the schema may have changed (SCHEMA_UNSURE, from the native calls).
//
// A *loose* statement belongs to one StatementSync until that is collected. Such are the statements
// that must not be prepared twice, as a PRAGMA that acts while it is prepared, and those that are
// not worth keeping.

const { binding } = require('./native.js')
const { channel, publish, trace } = require('./queries.js')
const { RowMaker } = require('./row-builders.js')
const { ints, RENAMED, TRANSACTION_ENDED, SCHEMA_UNSURE, CACHEABLE, NAMED, SETTING } = require('./report.js')
const { kSetting, kTransactionEnded } = require('./internal.js')
const { invalidState } = require('./errors.js')

/** Statements that a connection keeps. */
const KEPT = 128
/** Length, in UTF-16 units, up to which a text is worth keeping. */
const LONGEST = 16384
/** The number of no statement. */
const NONE = -1
/** In place of the number of a StatementSync. */
const SEVERAL = -1

/** A statement of SQLite. */
class Prepared {
  /** @param {number} flags what `prepare` reported */
  constructor(connection, sql, number, flags) {
    this.connection = connection
    this.sql = sql
    /** NONE once it is finalised. */
    this.number = number
    /** It has parameters with names. */
    this.named = (flags & NAMED) !== 0
    this.loose = (flags & CACHEABLE) === 0 || sql.length > LONGEST
    /** A call or an iterator is using it. */
    this.inUse = false
    /** It was used since it was last looked at for eviction. */
    this.recent = true
    /** The number of the StatementSync whose calls it ran: 0 if none did, or SEVERAL. */
    this.user = 0
    /** Counts its uses by iterators. */
    this.lease = 0
    /** The connection's epoch in which it was prepared. */
    this.epoch = connection.epoch
    this.retired = false
    /** The rows of the running `all`. */
    this.rows = null
    this.objectRow = null
    this.objectRows = null
    this.arrayRows = null
    this.names = null
    /** Made rows last. */
    this.made = null
    this.parameters = null
  }

  parameterNames() {
    return (this.parameters ??= binding.parameterNames(this.number))
  }

  /** The names of the columns, for a function that is handed values. */
  columnNames() {
    if (this.names === null || (ints[0] & RENAMED) !== 0) {
      this.names = binding.columnNames(this.number)
    }
    return this.names
  }

  /** What makes rows with the columns' names. */
  maker() {
    const names = this.columnNames()
    if (this.made === null || this.made.names !== names) this.made = new RowMaker(names)
    return this.made
  }

  /** The function that makes a row's values an object. */
  rowMaker() {
    return (this.objectRow ??= (...values) => this.maker().row(values))
  }

  /** The function that adds objects, made of the values of some rows, to `rows`. */
  objectsMaker() {
    return (this.objectRows ??= (...values) => this.maker().rows(this.rows, values))
  }

  /** The function that adds arrays, made of the values of some rows, to `rows`. */
  arraysMaker() {
    return (this.arrayRows ??= (...values) => {
      const width = this.columnNames().length
      for (let at = 0; at < values.length; at += width) {
        this.rows.push(values.slice(at, at + width))
      }
    })
  }

  finalize() {
    const number = this.number
    this.number = NONE
    binding.finalize(number)
  }
}

/** An open connection and the statements it keeps. */
class Connection {
  /**
   * @param {number} number that of the native connection, which from here on is closed when this
   *   is collected
   * @param {DatabaseSync} database whose connection it is
   * @param {Connection} [before] what stood for the same native connection until now
   */
  constructor(number, database, before) {
    this.number = number
    this.owner = before?.owner ?? binding.owner(number)
    /** Whether the native connection is closed; shared by all that stand for it. */
    this.life = before?.life ?? { ended: false }
    /** Whether its statements can be used. */
    this.isOpen = true
    this.database = database
    /** By text, in the order in which they are looked at for eviction. */
    this.kept = new Map()
    /** Counts how often what was kept might have changed its meaning. */
    this.epoch = 0
    /** Statements of earlier epochs, which only their own StatementSyncs still use. */
    this.retired = []
    /**
     * The JavaScript functions that SQLite may call, which it refers to weakly, by what they take
     * the place of.
     */
    this.functions = new Map(before?.functions)
    this.authorizer = before?.authorizer ?? null
    /** What runs is noted for the subscribers to queries: see ./queries.js. */
    this.traced = before?.traced ?? false
    /** Calls of subscribers under way. */
    this.publishing = before?.publishing ?? 0
  }

  /** Whether no call uses the connection: one that does has called back. */
  get isIdle() {
    return this.publishing === 0 && !binding.isBusy(this.number)
  }

  /** Throws in a callback, with the message `refusal`. */
  requireIdle(refusal) {
    if (!this.isIdle) throw invalidState(refusal)
  }

  /** What `body` returns, whose statements are published. */
  published(body) {
    if (channel.hasSubscribers !== this.traced) trace(this)
    try {
      return body()
    } finally {
      if (this.traced) publish(this)
    }
  }

  close() {
    this.requireIdle('database cannot be closed while in a callback')
    binding.close(this.number)
    this.life.ended = true
    this.end()
  }

  /**
   * Finalises every statement, for good. What takes this one's place has the native connection.
   *
   * @throws `ERR_INVALID_STATE` in a callback
   */
  succeed() {
    this.requireIdle('database cannot be deserialized while in a callback')
    binding.finalizeStatements(this.number)
    const successor = new Connection(this.number, this.database, this)
    this.end()
    return successor
  }

  end() {
    this.isOpen = false
    this.kept.clear()
    this.retired = []
    this.functions.clear()
    this.authorizer = null
  }

  /** A statement for `sql` that is not in use. */
  prepared(sql) {
    // Kept or not, none is found while there is an authorizer: it is asked at each prepare().
    const kept = this.kept.get(sql)
    if (kept !== undefined && !kept.inUse) {
      kept.recent = true
      return kept
    }
    return this.prepare(sql)
  }

  prepare(sql) {
    let number
    try {
      number = binding.prepare(this.number, sql)
    } catch (error) {
      this.applyReport(ints[0])
      throw error
    }
    const flags = ints[0]
    // One that acted while it was prepared ends the epoch of those before it.
    if ((flags & SCHEMA_UNSURE) !== 0) this.forget()
    if ((flags & SETTING) !== 0) this.database[kSetting]?.()
    const prepared = new Prepared(this, sql, number, this.authorizer === null ? flags : flags & ~CACHEABLE)
    if (!prepared.loose) this.keep(prepared)
    return prepared
  }

  /** A statement for `sql` that is its StatementSync's alone. */
  prepareAlone(sql) {
    const prepared = this.prepare(sql)
    this.giveAway(prepared)
    return prepared
  }

  /** Leaves `prepared` to the one StatementSync that uses it. */
  giveAway(prepared) {
    if (this.kept.get(prepared.sql) === prepared) this.kept.delete(prepared.sql)
    this.retired = this.retired.filter((other) => other !== prepared)
    prepared.loose = true
  }

  /** Keeps `prepared`, in place of one that was not used for a while. */
  keep(prepared) {
    if (this.kept.size >= KEPT) {
      for (const [sql, candidate] of this.kept) {
        this.kept.delete(sql)
        if (candidate.recent || candidate.inUse) {
          candidate.recent = false
          this.kept.set(sql, candidate)
        } else {
          candidate.finalize()
          break
        }
      }
    }
    const other = this.kept.get(prepared.sql)
    this.kept.set(prepared.sql, prepared)
    if (other !== undefined) this.evict(other)
  }

  /** Gives `prepared` to an iterator. Until `takeBack` no other StatementSync can borrow it. */
  checkOut(prepared) {
    prepared.inUse = true
    prepared.lease++
    if (this.kept.get(prepared.sql) === prepared) this.kept.delete(prepared.sql)
  }

  /** Takes back what was lent. */
  checkIn(prepared) {
    prepared.inUse = false
    if (prepared.loose || !this.isOpen) return
    if (prepared.epoch !== this.epoch || this.kept.has(prepared.sql)) this.evict(prepared)
    else this.keep(prepared)
  }

  /**
   * Queues a statement that is no longer kept to be finalised later. A StatementSync may still
   * refer to it: SQLite re-prepares a statement only when it is next run, and until then the
   * statement describes its columns as they were.
   */
  evict(prepared) {
    if (prepared.retired) return
    prepared.retired = true
    this.retired.push(prepared)
    if (this.retired.length <= KEPT) return
    const oldest = this.retired.shift()
    if (oldest.inUse) this.retired.push(oldest)
    else oldest.finalize()
  }

  /** Sees to what a call reported. */
  applyReport(flags, prepared) {
    if ((flags & RENAMED) !== 0) prepared.names = null
    if ((flags & SCHEMA_UNSURE) !== 0) this.forget()
    if ((flags & TRANSACTION_ENDED) !== 0) this.database[kTransactionEnded]?.()
    if ((flags & SETTING) !== 0) this.database[kSetting]?.()
  }

  /**
   * Sets the authorizer `callback`, a function or null. SQLite re-prepares existing statements when
   * they are next run, and calls the authorizer then. For a statement that several StatementSyncs
   * share it would do so only for the first of them, so each gets its own.
   */
  authorize(callback) {
    if (callback === null) binding.setAuthorizer(this.number)
    else binding.setAuthorizer(this.number, callback)
    this.authorizer = callback
    this.forget()
  }

  /** Whether `prepared` may be used again, as far as the authorizer is concerned. */
  isOwn(prepared) {
    return this.authorizer === null || prepared.loose
  }

  /** Ends an epoch: what is kept may mean something else now. */
  forget() {
    if (!this.isOpen) return
    this.epoch++
    const kept = [...this.kept.values()]
    this.kept.clear()
    for (const prepared of kept) this.evict(prepared)
  }
}

module.exports = { Connection, NONE, SEVERAL }
