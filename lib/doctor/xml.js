'use strict'

// Texts of an SVG.

const { shown } = require('../shown.js')

/** Letters of a name. */
const LONGEST_NAME = 36

/** A text for XML: control characters are escaped, and what XML 1.0 cannot write is replaced. */
function escape(value) {
  return shown(value)
    .toWellFormed()
    .replace(/[\ufffe\uffff]/g, '\ufffd')
    .replace(/[&<>"']/g, (sign) => `&#${sign.codePointAt(0)};`)
}

/** A text of at most so many letters, as they are shown. */
function shortened(name, longest = LONGEST_NAME) {
  const signs = [...shown(name)]
  return signs.length > longest ? `${signs.slice(0, longest - 1).join('')}…` : signs.join('')
}

/** An element of text. */
function text(x, y, content, attributes = '') {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${escape(content)}</text>`
}

module.exports = { LONGEST_NAME, escape, shortened, text }
