'use strict'

// The exit code of a command that failed, and how its error is reported.

const { LOSS } = require('../errors.js')
const { DAMAGED, FAILED, LOCKED, NO_INPUT } = require('./exit-codes.js')

/** By SQLite's primary result code (sqlite.org/rescode.html): BUSY, LOCKED, PROTOCOL; CORRUPT, NOTADB. */
const BY_RESULT = new Map([
  [5, LOCKED],
  [6, LOCKED],
  [15, LOCKED],
  [11, DAMAGED],
  [26, DAMAGED],
])

/** By this package's codes. */
const BY_CODE = new Map([
  ['ERR_FUSION_BACKUP_IN_USE', LOCKED],
  ['ERR_FUSION_BACKUP_DAMAGED', DAMAGED],
  ['ERR_FUSION_NOTHING_TO_SALVAGE', DAMAGED],
  [LOSS, DAMAGED],
  ['ERR_FUSION_UNRECOVERABLE', DAMAGED],
])

/** By `reason`: the path leads to no file. */
const BY_REASON = new Map(
  ['noFile', 'noDirectory', 'notADirectory', 'isADirectory', 'pathTooLong'].map((reason) => [reason, NO_INPUT]),
)

/** The exit code for `error`. */
function exitCodeOf(error) {
  return BY_REASON.get(error?.reason) ?? BY_CODE.get(error?.code) ?? BY_RESULT.get(error?.errcode & 0xff) ?? FAILED
}

/** `error` for JSON. */
function described(error) {
  const { code, errcode, reason, message, comparison } = error instanceof Error ? error : { message: String(error) }
  return {
    ...(code !== undefined && { code }),
    ...(errcode !== undefined && { errcode }),
    ...(reason !== undefined && { reason }),
    message,
    ...(comparison !== undefined && { comparison }),
  }
}

module.exports = { described, exitCodeOf }
