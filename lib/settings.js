'use strict'

// What a program sets by PRAGMA against the profile of its HardenedDatabase: SQLite obeys it on that
// connection, and the log's writer, which has one of its own, does not. Said once a handle.

const { kNumber } = require('./internal.js')
const { binding, process } = require('./native.js')

const SYNCHRONOUS = ['OFF', 'NORMAL', 'FULL', 'EXTRA']

/** The option that sets both, by PRAGMA. */
const OPTIONS = { synchronous: 'synchronous', journal_size_limit: 'journalSizeLimit', foreign_keys: 'foreignKeys' }

function sentence(name, now, own) {
  switch (name) {
    case 'journal_mode':
      return "journal_mode: the file has a rollback journal now, and this process leaves it so; the next one puts it into WAL mode again, unless it opens it with journalMode: 'keep'"
    case 'locking_mode':
      return "locking_mode = EXCLUSIVE: while this connection keeps its lock the log's writer, which has a connection of its own, can write nothing"
    case 'wal_autocheckpoint':
      return `wal_autocheckpoint = ${now} is not obeyed: the log's writer checkpoints (option checkpointFrames)`
    default: {
      const value = (number) => (name === 'synchronous' ? (SYNCHRONOUS[number] ?? number) : number)
      const option = OPTIONS[name] === undefined ? '' : ` (option ${OPTIONS[name]} sets both)`
      return `${name} = ${value(now)} holds for this connection alone; the log's writer goes on with ${value(own)}${option}`
    }
  }
}

class Settings {
  #database
  /** Names of settings that were warned of. */
  #warned = new Set()
  /** Sentences by name, until the turn of the event loop ends. */
  #changed = null

  constructor(database) {
    this.#database = database
  }

  /**
   * A statement may have changed a setting. What was set and set back within one turn, as around a
   * migration, is not worth a warning; what was not obeyed is.
   */
  mayHaveChanged(warns) {
    const refused = this.#look().filter(([name]) => name === 'wal_autocheckpoint')
    if (!warns) return
    if (this.#changed === null) {
      this.#changed = new Map()
      process.nextTick(() => this.#warn())
    }
    for (const change of refused) this.#changed.set(change[0], change)
  }

  #warn() {
    const changed = this.#changed
    this.#changed = null
    for (const change of this.#look()) changed.set(change[0], change)
    const news = [...changed.values()].filter(([name]) => !this.#warned.has(name))
    if (news.length === 0) return
    for (const [name] of news) this.#warned.add(name)
    process.emitWarning(news.map((change) => sentence(...change)).join('. '), {
      type: 'FusionSqliteWarning',
      code: 'FUSION_SETTING',
    })
  }

  /** Settings that are not the profile's: name, value, the profile's. */
  #look() {
    let flat
    try {
      flat = this.#database.isOpen ? binding.changedSettings(this.#database[kNumber]()) : []
    } catch {
      // The statement was carried out; that its effect cannot be looked at now is no failure of it.
      return []
    }
    return Array.from({ length: flat.length / 3 }, (_, index) => flat.slice(3 * index, 3 * index + 3))
  }
}

module.exports = { Settings }
