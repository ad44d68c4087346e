'use strict'

const { binding } = require('./native.js')
const { illegalConstructor, illegalInvocation, invalidState } = require('./errors.js')
const { faceOf } = require('./class-facade.js')

/** The constructor requires it: only this module makes sessions. */
const token = Symbol('token')

/** In place of a session's number: it is deleted. */
const NONE = -1

/** Deletes the native session of a collected Session: its changes can no longer be read. */
const forgotten = new FinalizationRegistry(({ number, life }) => {
  if (!life.ended) binding.closeSession(number)
})

class NativeSession {
  #database
  /** Keeps the connection open: a database may be forgotten before its sessions. */
  #connection
  /** NONE once it is closed. */
  #number

  constructor(given, database, connection, number) {
    if (given !== token) throw illegalConstructor()
    this.#database = database
    this.#connection = connection
    this.#number = number
    // The owner keeps the connection open until then.
    forgotten.register(this, { number, life: connection.life, owner: connection.owner }, this)
  }

  changeset() {
    return NativeSession.#read(this, false)
  }

  patchset() {
    return NativeSession.#read(this, true)
  }

  close() {
    NativeSession.#close(this)
  }

  [Symbol.dispose]() {
    NativeSession.#require(this)
    // As in node:sqlite: what is closed already need not be closed.
    if (this.#database.isOpen && this.#number !== NONE && !this.#connection.life.ended) NativeSession.#close(this)
  }

  static #require(value) {
    if (typeof value !== 'object' || value === null || !(#number in value)) throw illegalInvocation()
  }

  /** The number of an open session of an open database. */
  static #open(session) {
    NativeSession.#require(session)
    if (!session.#database.isOpen) throw invalidState('database is not open')
    const { life } = session.#connection
    if (session.#number === NONE || life.ended) throw invalidState('session is not open')
    return session.#number
  }

  static #read(session, patchset) {
    const number = NativeSession.#open(session)
    return session.#connection.published(() => binding.changeset(number, patchset))
  }

  static #close(session) {
    const number = NativeSession.#open(session)
    session.#connection.requireIdle('session cannot be closed while in a callback')
    session.#number = NONE
    forgotten.unregister(session)
    binding.closeSession(number)
  }
}

const Session = faceOf(NativeSession, 'Session', function () {
  throw illegalConstructor()
})

/** The session `number` of `connection`, the connection of `database`. */
function makeSession(database, connection, number) {
  return new NativeSession(token, database, connection, number)
}

module.exports = { Session, makeSession }
