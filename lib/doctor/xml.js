'use strict'

// Texts of an SVG.

/** Letters of a name. */
const LONGEST_NAME = 36

/** A text for XML: what may stand in neither text nor attributes is replaced. */
function escape(value) {
  return (
    String(value)
      .toWellFormed()
      // oxlint-disable-next-line no-control-regex -- XML 1.0 has no way to write them
      .replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, '\ufffd')
      .replace(/[&<>"']/g, (sign) => `&#${sign.codePointAt(0)};`)
  )
}

/** A text of at most so many letters. */
function shortened(name, longest = LONGEST_NAME) {
  const signs = [...name]
  return signs.length > longest ? `${signs.slice(0, longest - 1).join('')}…` : name
}

/** An element of text. */
function text(x, y, content, attributes = '') {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${escape(content)}</text>`
}

module.exports = { LONGEST_NAME, escape, shortened, text }
