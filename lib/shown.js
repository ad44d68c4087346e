'use strict'

// Text for a person, with the characters escaped that a terminal or a viewer would act on: control
// characters (C0, DEL, C1), line and paragraph separators, and those that change the direction of
// text. Names, values and SQLite's own lines come from a file that another program may have written.
// The rule of src/engine/shown.rs: a backslash stays, so that escaping a text twice changes nothing.

// oxlint-disable-next-line no-control-regex -- these are what is looked for
const UNSAFE = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

const NAMED = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/** `text` on one line, without a character that a terminal or a viewer would act on. */
function shown(text) {
  return String(text).replace(UNSAFE, (sign) => NAMED[sign] ?? `\\u{${sign.codePointAt(0).toString(16)}}`)
}

/** The same of each line of `text`. */
function shownLines(text) {
  return String(text).split('\n').map(shown).join('\n')
}

/** `value` as JSON on one line: the exact value, in characters that a terminal shows. */
function shownJson(value) {
  return JSON.stringify(value).replace(UNSAFE, (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, '0')}`)
}

/** `error` for a process warning, which Node prints as it is. */
function shownError(error) {
  const message = shown(error.message)
  if (message === error.message) return error
  return Object.create(error, { message: { value: message }, stack: { value: shownLines(error.stack) } })
}

module.exports = { shown, shownError, shownJson, shownLines }
