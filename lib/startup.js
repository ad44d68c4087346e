'use strict'

// Opening a file that may be damaged: looked at before it is opened, repaired or refused.
// See src/health/startup_check.rs for what is checked when.

const { binding } = require('./native.js')
const { damaged, inUse, unrepaired } = require('./errors.js')
const { fileOf } = require('./file-path.js')
const { repairAhead, repairAtOpen, tellAside } = require('./repair.js')
const { runTask } = require('./task.js')

const NOTHING = { health: null, found: [], background: false }

/** What makes it unsafe to write to a file. */
const UNSAFE = new Set([
  'indexDamage',
  'freelist',
  'tableDamage',
  'header',
  'staleWal',
  'unclearWal',
  'truncated',
  'replaced',
  'notADatabase',
])

/** Whether writing to a file of this health could make it worse. */
function isUnsafe(health) {
  return health !== null && health.findings.some((finding) => UNSAFE.has(finding.type))
}

/** Whether SQLite says that the file is damaged. A full-text index (267) is not the file. */
function isDamage({ errcode }) {
  return errcode !== 267 && ((errcode & 0xff) === 11 || (errcode & 0xff) === 26)
}

/**
 * Primary result codes that SQLite may return for a damaged file as well as for other reasons:
 * ERROR, INTERNAL, NOMEM, NOTFOUND, FORMAT. Only a check shows whether the file is damaged.
 */
const MAY_BE_DAMAGE = new Set([1, 2, 7, 12, 24])

/** Whether SQLite reports that another connection has a lock: BUSY, LOCKED, PROTOCOL. */
function isContention({ errcode }) {
  return [5, 6, 15].includes(errcode & 0xff)
}

/** One opening of a file. */
class Startup {
  #file
  #options
  #look = null
  /** The health to emit once the file is open: a Health, or null. */
  health = null
  /** The health and the report of a repair, to emit once the file is open; or null. */
  recovered = null
  /** Whether a check in the background is due. */
  background = false
  /** Findings that only the startup check can make. The check in the background adds its own. */
  found = []

  constructor(path, options) {
    this.#file = fileOf(path)
    this.#options = options
  }

  /** Looks and repairs off this thread, so that `open` need not. */
  async ahead() {
    if (this.#file === null) return
    const { startupCheck } = this.#options
    const look = (kind) => runTask('startupCheck', { path: this.#file, kind }, { deadline: 0 })
    let found = await look(startupCheck ?? 'ahead')
    this.#remember(found)
    if (this.#isToBeRepaired(found.health)) {
      const report = await repairAhead(this.#file, this.#options.keepCopies).catch((error) =>
        this.#unrepaired(found.health, error),
      )
      if (this.#isRepaired(found.health, report)) found = await look('quick')
    }
    this.#judge(found.health)
    this.#look = found
  }

  /** Opens the file by `open`, which answers the number of its connection. */
  open(open) {
    let look = this.#look
    this.#look = null
    if (look === null) {
      look = this.#lookAt(this.#options.startupCheck)
      this.#remember(look)
      look = this.#repaired(look)
      this.#judge(look.health)
    }
    let number
    try {
      number = open()
    } catch (error) {
      const isCertain = isDamage(error)
      if (this.#file === null || !(isCertain || MAY_BE_DAMAGE.has(error.errcode & 0xff))) throw error
      if (isUnsafe(look.health)) throw damaged(this.#file, look.health, error)
      // Met by the first read, unless it happened since.
      look = this.#lookAt('quick')
      this.#remember(look)
      if (!isCertain && !isUnsafe(look.health)) throw error
      const again = this.#repaired(look)
      if (again === look || isUnsafe(again.health)) throw damaged(this.#file, look.health, error)
      number = open()
    }
    binding.startupOpened(number)
    return number
  }

  #lookAt(kind) {
    return this.#file === null ? NOTHING : JSON.parse(binding.startupCheck(this.#file, kind))
  }

  #remember(look) {
    this.background = look.background
    this.found = look.found
    this.health = look.health !== null && look.health.findings.length > 0 ? look.health : null
  }

  #isToBeRepaired(health) {
    const { onCorruption, readOnly } = this.#options
    return health !== null && !health.ok && onCorruption === 'recover' && !readOnly
  }

  #repaired(look) {
    if (!this.#isToBeRepaired(look.health)) return look
    let report = null
    try {
      report = repairAtOpen(this.#file, this.#options.keepCopies)
    } catch (error) {
      this.#unrepaired(look.health, error)
    }
    return this.#isRepaired(look.health, report) ? this.#lookAt('quick') : look
  }

  /** Whether there was a repair. Keeps its report for the events. */
  #isRepaired(health, report) {
    if (report === null) return false
    tellAside(report)
    // 'healthy': another process has repaired the file in the meantime.
    if (report.outcome !== 'healthy') this.recovered = { health, report }
    return true
  }

  /**
   * A file that cannot be repaired is refused, unless it can be used as it is or is in use.
   * @returns {null} no report
   */
  #unrepaired(health, error) {
    if (!isUnsafe(health) || this.#options.onCorruption === 'report') return null
    if (isContention(error)) throw inUse(this.#file, health, error)
    if (error.errcode !== undefined && error.errcode !== 0 && !isDamage(error)) throw error
    throw unrepaired(this.#file, health, error)
  }

  /** Refuses a file that is not safe to be written to, unless it is to be opened all the same. */
  #judge(health) {
    if (isUnsafe(health) && this.#options.onCorruption !== 'report') throw damaged(this.#file, health)
  }
}

module.exports = { Startup, isUnsafe }
