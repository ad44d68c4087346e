'use strict'

// The squares of a page map: where they are, and what is drawn on them and next to them.

const { MARKS, classOf, tooltip } = require('./map-states.js')
const { number } = require('./format.js')
const { escape, text } = require('./xml.js')

/** Pixels. */
const GRID = 1040
const SMALLEST = 4
const LARGEST = 16
/** Smaller squares have no room for a cross or a gap. */
const DETAILED = 6
/** Area that the squares are made to fill, in square pixels. */
const AREA = GRID * 640

/** Runs that have a tooltip of their own. Above it those of one colour are one path. */
const TOOLTIPS = 6000

/** How the squares are laid out. */
class Grid {
  constructor(map) {
    this.perCell = map.pagesPerCell
    this.cells = Math.max(1, Math.ceil(map.pages / this.perCell))
    this.size = Math.min(LARGEST, Math.max(SMALLEST, Math.floor(Math.sqrt(AREA / this.cells))))
    const fit = Math.floor(GRID / this.size)
    // Rows that begin with round page numbers can be found again.
    this.columns = Math.min(fit - (fit % (fit >= 100 ? 50 : 10)), Math.max(this.cells, 10))
    this.rows = Math.ceil(this.cells / this.columns)
    this.width = this.columns * this.size
    this.height = this.rows * this.size
  }

  /** First and last square of the pages. */
  span(first, pages) {
    const last = first + pages - 1
    return [Math.floor((first - 1) / this.perCell), Math.floor((last - 1) / this.perCell)]
  }

  /** The squares of a run as up to three rectangles of a path. */
  path(first, pages) {
    const { size, columns } = this
    let [from, to] = this.span(first, pages)
    const rectangles = []
    const rectangle = (cell, across, down) => {
      const [x, y] = [(cell % columns) * size, Math.floor(cell / columns) * size]
      rectangles.push(`M${x} ${y}h${across * size}v${down * size}H${x}z`)
    }
    if (from % columns !== 0) {
      const across = Math.min(columns - (from % columns), to - from + 1)
      rectangle(from, across, 1)
      from += across
    }
    const down = Math.floor((to + 1 - from) / columns)
    if (down > 0) {
      rectangle(from, columns, down)
      from += down * columns
    }
    if (from <= to) rectangle(from, to - from + 1, 1)
    return rectangles.join('')
  }
}

function grid(map, layout, colours) {
  const drawn = []
  const marked = []
  if (map.runs.length <= TOOLTIPS) {
    for (const run of map.runs) {
      const kind = classOf(colours, run)
      const path = `<path class="${kind}" d="${layout.path(run.first, run.pages)}"><title>${escape(tooltip(map, run))}</title></path>`
      ;(MARKS.includes(kind) ? marked : drawn).push(path)
    }
  } else {
    const paths = new Map()
    for (const run of map.runs) {
      const kind = classOf(colours, run)
      if (!paths.has(kind)) paths.set(kind, [])
      paths.get(kind).push(layout.path(run.first, run.pages))
    }
    for (const [kind, parts] of paths) {
      ;(MARKS.includes(kind) ? marked : drawn).push(`<path class="${kind}" d="${parts.join('')}"/>`)
    }
  }
  const { width, height } = layout
  const lines = layout.size >= DETAILED ? `<rect class="lines" width="${width}" height="${height}"/>` : ''
  return [...drawn, lines, ...marked, ...rings(map, layout)].filter(Boolean)
}

/** Circles around damage that would be too small to be seen. */
function rings(map, layout) {
  if (layout.size >= 10) return []
  const found = []
  let last = -Infinity
  for (const run of map.runs) {
    if (!run.damaged) continue
    const [from, to] = layout.span(run.first, run.pages)
    // Neighbours share a ring, and a large area needs none.
    if (to - from < 6 && from - last > 3) {
      const middle = from + Math.floor((to - from) / 2)
      const x = (middle % layout.columns) * layout.size + layout.size / 2
      const y = Math.floor(middle / layout.columns) * layout.size + layout.size / 2
      found.push(`M${x - 9} ${y}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0z`)
    }
    last = to
  }
  const all = found.slice(0, 500).join('')
  return all === '' ? [] : [`<path class="halo" d="${all}"/>`, `<path class="ring" d="${all}"/>`]
}

/** Page numbers at the left, marks of damaged rows at the right. */
function axis(map, layout) {
  const marks = []
  const every = Math.max(1, Math.ceil(30 / layout.size))
  for (let row = 0; row < layout.rows; row += every) {
    const page = row * layout.columns * layout.perCell + 1
    marks.push(text(-12, row * layout.size + layout.size / 2 + 4, number(page), 'class="axis"'))
  }
  const rows = new Set()
  for (const run of map.runs) {
    if (!run.damaged && run.role !== 'missing') continue
    const [from, to] = layout.span(run.first, run.pages)
    for (let row = Math.floor(from / layout.columns); row <= Math.floor(to / layout.columns); row++) rows.add(row)
  }
  const pointers = [...rows].map((row) => {
    const y = row * layout.size + layout.size / 2
    return `M${layout.width + 7} ${y}l9 -5v10z`
  })
  if (pointers.length > 0) marks.push(`<path class="pointer" d="${pointers.join('')}"/>`)
  return marks
}

module.exports = { DETAILED, GRID, Grid, axis, grid }
