'use strict'

// Numbers in words.

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB']

/** How many of a list are named unless it is said otherwise; the others are counted. */
const LISTED = 8

/** 28761 as `28,761`. */
function number(value) {
  return value.toLocaleString('en-US')
}

/** Bytes as `4 KiB`, `112.4 MiB`. */
function bytes(value) {
  if (value < 1024) return `${value} bytes`
  let [size, unit] = [value / 1024, 0]
  while (size >= 1023.95 && unit < UNITS.length - 1) {
    size /= 1024
    unit++
  }
  return `${number(Math.round(size * 10) / 10)} ${UNITS[unit]}`
}

/** `1 page`, `2 pages`, `3 indexes`. */
function counted(value, noun) {
  const plural = noun.endsWith('x') ? `${noun}es` : `${noun}s`
  return `${number(value)} ${value === 1 ? noun : plural}`
}

/** Texts in a row, the first few. */
function list(texts, listed = LISTED) {
  const more = texts.length - listed
  return more > 0 ? `${texts.slice(0, listed).join(', ')} and ${number(more)} more` : texts.join(', ')
}

/** Sorted page numbers as ranges `[first, last]`. */
function ranges(pages) {
  const found = []
  for (const page of [...new Set(pages)].toSorted((a, b) => a - b)) {
    const last = found.at(-1)
    if (last?.[1] === page - 1) last[1] = page
    else found.push([page, page])
  }
  return found
}

/** Pages as `page 7`, `pages 3 to 66, 1080 and 2 more`: a separator in a list would look like the next number. */
function pageList(pages, listed = LISTED) {
  const found = ranges(pages)
  const shown = found.slice(0, listed).map(([first, last]) => {
    if (first === last) return String(first)
    return last === first + 1 ? `${first}, ${last}` : `${first} to ${last}`
  })
  const more = found.slice(listed).reduce((sum, [first, last]) => sum + last - first + 1, 0)
  const rest = more === 0 ? '' : ` and ${number(more)} more`
  return `${found.length === 1 && found[0][0] === found[0][1] ? 'page' : 'pages'} ${shown.join(', ')}${rest}`
}

/** Milliseconds as `40 ms`, `1.4 s`, `3 min 20 s`. */
function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.ceil(milliseconds)} ms`
  const seconds = milliseconds / 1000
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`
}

/** Milliseconds since 1970 as `2026-11-23 17:30:00 UTC`. */
function moment(milliseconds) {
  return `${new Date(milliseconds).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}

module.exports = { bytes, counted, duration, list, moment, number, pageList, ranges }
