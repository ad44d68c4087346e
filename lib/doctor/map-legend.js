'use strict'

// What stands above and below the squares of a page map.

const { MARKS, STATES, pagesIn, share } = require('./map-states.js')
const { bytes, counted, number, pageList } = require('./format.js')
const { LONGEST_NAME, escape, shortened, text } = require('./xml.js')

/** Pixels. */
const ROW = 21
const GAP = 40
const COLUMNS = 2

/** Rows of the legend; lines of the list of damage, and page ranges in each. */
const ROWS = 40
const LISTED = 12
const RANGES = 5

/** One bar, in which each part is as long as its share of the file. */
function composition(map, colours, barWidth) {
  const parts = []
  let x = 0
  const part = (pages, kind, label) => {
    if (pages === 0) return
    const width = (barWidth * pages) / map.pages
    const title = `${label}: ${counted(pages, 'page')}, ${share(pages, map.pages)}`
    parts.push(
      `<rect class="bar ${kind}" x="${x.toFixed(2)}" width="${width.toFixed(2)}" height="12"><title>${escape(title)}</title></rect>`,
    )
    x += width
  }
  for (const family of colours.families) {
    part(family.tablePages, `o${family.index}leaf`, family.table)
    part(family.indexPages, `o${family.index}index`, `indexes of ${family.table}`)
  }
  for (const state of Object.keys(STATES)) {
    if (state !== 'damaged') part(pagesIn(map, state), state, STATES[state])
  }
  return parts
}

/** What is wrong with a table, in words; empty if nothing is. */
function bad(damaged, missing) {
  const words = []
  if (damaged > 0) words.push(`${number(damaged)} damaged`)
  if (missing > 0) words.push(`${number(missing)} missing`)
  return words.join(', ')
}

/** What there is, in the legend's order: `{ kinds, name, pages, bad, indent }`. */
function entries(map, colours) {
  const rows = []
  for (const family of colours.families) {
    for (const owner of family.owners) {
      const index = owner.type === 'index'
      const shades = index
        ? ['index']
        : ['leaf', ...(owner.interiorPages > 0 ? ['interior'] : []), ...(owner.overflowPages > 0 ? ['overflow'] : [])]
      const kinds = shades.map((shade) => `o${family.index}${shade}`)
      const { name, pages, damagedPages: damaged, missingPages: missing } = owner
      rows.push({ kinds, name, pages, damaged, missing, bad: bad(damaged, missing), indent: index ? 18 : 0 })
    }
  }
  if (rows.length > ROWS) {
    const others = rows.splice(ROWS - 1)
    const sum = (key) => others.reduce((total, row) => total + row[key], 0)
    const name = `${number(others.length)} other tables and indexes`
    rows.push({ kinds: [], name, pages: sum('pages'), bad: bad(sum('damaged'), sum('missing')), indent: 0 })
  }
  for (const state of Object.keys(STATES)) {
    const pages = pagesIn(map, state)
    if (pages > 0) rows.push({ kinds: [state], name: STATES[state], pages, bad: '', indent: 0, state: true })
  }
  return rows
}

/** The key of the colours, `wide` pixels wide, from `top` on. */
function legend(map, colours, wide, top) {
  const rows = entries(map, colours)
  const width = (wide - GAP) / COLUMNS
  const perColumn = Math.ceil(rows.length / COLUMNS)
  const parts = []
  const heading = (x) => {
    parts.push(text(x + width - 138, top, 'pages', 'class="head end"'))
    parts.push(text(x + width - 60, top, 'size', 'class="head end"'))
    parts.push(text(x + width, top, 'share', 'class="head end"'))
  }
  rows.forEach((row, at) => {
    const column = Math.floor(at / perColumn)
    const x = column * (width + GAP)
    const y = top + 22 + (at % perColumn) * ROW
    if (at % perColumn === 0) heading(x)
    row.kinds.forEach((kind, place) => {
      const left = x + row.indent + place * 15
      parts.push(
        MARKS.includes(kind)
          ? `<use href="#sign-${kind}" x="${left}" y="${y - 10}"/>`
          : `<rect class="${kind} swatch" x="${left}" y="${y - 10}" width="12" height="12"/>`,
      )
    })
    const short = escape(shortened(row.name, LONGEST_NAME - row.bad.length))
    const whole = escape(row.name)
    const name = short === whole ? whole : `${short}<title>${whole}</title>`
    const damage = row.bad === '' ? '' : `<tspan class="bad" dx="8">${row.bad}</tspan>`
    const left = x + row.indent + Math.max(row.kinds.length, 1) * 15 + 7
    parts.push(`<text x="${left}" y="${y}"${row.state ? ' class="state"' : ''}>${name}${damage}</text>`)
    parts.push(text(x + width - 138, y, number(row.pages), 'class="end"'))
    parts.push(text(x + width - 60, y, bytes(row.pages * map.pageSize), 'class="end"'))
    parts.push(text(x + width, y, share(row.pages, map.pages), 'class="end quiet"'))
  })
  return { parts, bottom: top + 22 + perColumn * ROW }
}

/** Damage in words: neighbouring pages with the same owner and reason are one line. */
function damageList(map, top) {
  const groups = new Map()
  for (const { page, owner, reason } of map.damaged) {
    const key = `${owner}\0${reason}`
    if (!groups.has(key)) groups.set(key, { owner, reason, pages: [] })
    groups.get(key).pages.push(page)
  }
  if (groups.size === 0) return { parts: [], bottom: top }
  const parts = [text(0, top, 'What is damaged', 'class="section"')]
  let y = top
  for (const { owner, reason, pages } of [...groups.values()].slice(0, LISTED)) {
    y += ROW
    const name = owner === null ? '' : ` (${shortened(map.owners[owner].name)})`
    const list = pageList(pages, RANGES)
    parts.push(text(0, y, `${list[0].toUpperCase()}${list.slice(1)}${name}: ${reason}`))
  }
  if (groups.size > LISTED) {
    y += ROW
    parts.push(text(0, y, `and ${number(groups.size - LISTED)} more`, 'class="quiet"'))
  }
  return { parts, bottom: y + ROW }
}

module.exports = { composition, damageList, legend }
