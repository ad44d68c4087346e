'use strict'

// A page map as a picture: a square for each page (or so many pages), in the file's order, coloured
// by what it belongs to. Plain SVG 1.1, without scripts; a few hundred KiB at most.

const { palette, shadesOf } = require('./palette.js')
const { bytes, counted, moment, number, pageList } = require('./wording.js')

/** Pixels. */
const MARGIN = 36
const AXIS = 64
const GRID = 1040
const GUTTER = 28
const WIDTH = MARGIN + AXIS + GRID + GUTTER + MARGIN
const LEGEND_ROW = 21
const LEGEND_COLUMNS = 2
const SMALLEST = 4
const LARGEST = 16
/** Smaller squares have no room for a cross or a gap. */
const DETAILED = 6
/** Area that the squares are made to fill, in square pixels. */
const AREA = GRID * 640

/** Runs that have a tooltip of their own. Above it those of one colour are one path. */
const TOOLTIPS = 6000
/** Rows of the legend; lines of the list of damage, and page ranges in each. */
const LEGEND_ROWS = 40
const LISTED = 12
const RANGES = 5
/** Letters of a name. */
const LONGEST_NAME = 38
/** Letters that the number of damaged pages takes of it. */
const DAMAGE_LABEL = 10

const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

/** States that are drawn on top, with their look: a pattern of its own. */
const MARKS = ['damaged', 'missing', 'orphan']

const STATES = {
  damaged: 'damaged',
  missing: 'missing from the file',
  orphan: 'belongs to nothing',
  free: 'free',
  freeTrunk: 'list of free pages',
  pointerMap: 'pointer map',
  lockByte: 'lock bytes',
}

/** What there is to say of the names. */
const NAMES = {
  known: ['names from the saved schema'],
  nothing: ['the schema is lost: b-trees go by their first pages'],
}

const ROLES = {
  interior: 'interior',
  leaf: 'leaf',
  overflow: 'overflow',
  ...STATES,
}

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

function shortened(name, longest = LONGEST_NAME) {
  const signs = [...name]
  return signs.length > longest ? `${signs.slice(0, longest - 1).join('')}…` : name
}

function text(x, y, content, attributes = '') {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${escape(content)}</text>`
}

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

/** What a run is, for its tooltip and its colour. */
function stateOf(run) {
  if (run.damaged) return 'damaged'
  return run.role === 'freeLeaf' ? 'free' : run.role
}

function tooltip(map, run) {
  const owner = run.owner === null ? undefined : map.owners[run.owner]
  const state = stateOf(run)
  const role = ROLES[run.role === 'freeLeaf' ? 'free' : run.role]
  const where = pageList([run.first, run.first + run.pages - 1]).replace(',', run.pages > 2 ? ' to' : ',')
  const pages = run.pages === 1 ? `page ${number(run.first)}` : where
  const what = owner === undefined ? role : `${owner.type} ${owner.name}, ${role}`
  return `${pages}: ${what}${state === 'damaged' ? ', damaged' : ''}`
}

/** Class of a run's colour. */
function classOf(colours, run) {
  const state = stateOf(run)
  if (state in STATES) return state
  const { index, shade } = colours.of(run)
  return `o${index}${shade}`
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

/** One bar, in which each part is as long as its share of the file. */
function composition(map, colours, barWidth, y) {
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
  return `<g transform="translate(${MARGIN + AXIS} ${y})">${parts.join('')}</g>`
}

function pagesIn(map, state) {
  if (state === 'damaged') return map.damagedPages
  return map.roles[state === 'free' ? 'freeLeaf' : state] ?? 0
}

function share(pages, of) {
  const percent = (pages / of) * 100
  return percent > 0 && percent < 0.1 ? '< 0.1 %' : `${percent.toFixed(1)} %`
}

/** What there is, in the legend's order: `{ kinds, name, pages, damaged, indent }`. */
function entries(map, colours) {
  const rows = []
  for (const family of colours.families) {
    for (const owner of family.owners) {
      const index = owner.type === 'index'
      const shades = index
        ? ['index']
        : ['leaf', ...(owner.interiorPages > 0 ? ['interior'] : []), ...(owner.overflowPages > 0 ? ['overflow'] : [])]
      const kinds = shades.map((shade) => `o${family.index}${shade}`)
      rows.push({ kinds, name: owner.name, pages: owner.pages, damaged: owner.damagedPages, indent: index ? 18 : 0 })
    }
  }
  if (rows.length > LEGEND_ROWS) {
    const others = rows.splice(LEGEND_ROWS - 1)
    const sum = (key) => others.reduce((total, row) => total + row[key], 0)
    const name = `${number(others.length)} other tables and indexes`
    rows.push({ kinds: [], name, pages: sum('pages'), damaged: sum('damaged'), indent: 0 })
  }
  for (const state of Object.keys(STATES)) {
    const pages = pagesIn(map, state)
    if (pages > 0) rows.push({ kinds: [state], name: STATES[state], pages, damaged: 0, indent: 0, state: true })
  }
  return rows
}

function legend(map, colours, top) {
  const rows = entries(map, colours)
  const width = (AXIS + GRID + GUTTER - 40) / LEGEND_COLUMNS
  const perColumn = Math.ceil(rows.length / LEGEND_COLUMNS)
  const parts = []
  const heading = (x) => {
    parts.push(text(x + width - 128, top, 'pages', 'class="head end"'))
    parts.push(text(x + width - 60, top, 'size', 'class="head end"'))
    parts.push(text(x + width, top, 'share', 'class="head end"'))
  }
  rows.forEach((row, at) => {
    const column = Math.floor(at / perColumn)
    const x = MARGIN + column * (width + 40)
    const y = top + 22 + (at % perColumn) * LEGEND_ROW
    if (at % perColumn === 0) heading(x)
    row.kinds.forEach((kind, place) => {
      const left = x + row.indent + place * 15
      parts.push(
        MARKS.includes(kind)
          ? `<use href="#sign-${kind}" x="${left}" y="${y - 10}"/>`
          : `<rect class="${kind} swatch" x="${left}" y="${y - 10}" width="12" height="12"/>`,
      )
    })
    const shown = shortened(row.name, row.damaged > 0 ? LONGEST_NAME - DAMAGE_LABEL : LONGEST_NAME)
    const name = shown === row.name ? escape(row.name) : `${escape(shown)}<title>${escape(row.name)}</title>`
    const damage = row.damaged > 0 ? `<tspan class="bad" dx="8">${number(row.damaged)} damaged</tspan>` : ''
    const left = x + row.indent + Math.max(row.kinds.length, 1) * 15 + 7
    parts.push(`<text x="${left}" y="${y}"${row.state ? ' class="state"' : ''}>${name}${damage}</text>`)
    parts.push(text(x + width - 128, y, number(row.pages), 'class="end"'))
    parts.push(text(x + width - 60, y, bytes(row.pages * map.pageSize), 'class="end"'))
    parts.push(text(x + width, y, share(row.pages, map.pages), 'class="end quiet"'))
  })
  return { parts, bottom: top + 22 + perColumn * LEGEND_ROW }
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
  const parts = [text(MARGIN, top, 'What is damaged', 'class="section"')]
  let y = top
  for (const { owner, reason, pages } of [...groups.values()].slice(0, LISTED)) {
    y += LEGEND_ROW
    const name = owner === null ? '' : ` (${shortened(map.owners[owner].name)})`
    const list = pageList(pages, RANGES)
    parts.push(text(MARGIN, y, `${list[0].toUpperCase()}${list.slice(1)}${name}: ${reason}`))
  }
  if (groups.size > LISTED) {
    y += LEGEND_ROW
    parts.push(text(MARGIN, y, `and ${number(groups.size - LISTED)} more`, 'class="quiet"'))
  }
  return { parts, bottom: y + LEGEND_ROW }
}

/** Looks of the pages that are marked, in squares of `size` pixels. */
function patterns(id, size) {
  const plain = size < DETAILED
  const stroke = Math.max(1, size / 7)
  const [low, high] = [size * 0.24, size * 0.76]
  const cross = `<path d="M${low} ${low}L${high} ${high}M${high} ${low}L${low} ${high}" stroke="#fff" stroke-width="${stroke.toFixed(2)}" stroke-linecap="round"/>`
  const inset = Math.max(0.5, size / 14)
  const frame = (colour, dash) =>
    `<rect x="${inset}" y="${inset}" width="${size - 2 * inset}" height="${size - 2 * inset}" fill="#fff" stroke="${colour}" stroke-width="${(inset * 2).toFixed(2)}"${dash}/>`
  const looks = {
    damaged: `<rect width="${size}" height="${size}" fill="${palette.damage}"/>${plain ? '' : cross}`,
    missing: plain
      ? `<rect width="${size}" height="${size}" fill="${palette.missing}"/>`
      : frame(palette.damage, ` stroke-dasharray="${(size / 5).toFixed(2)}"`),
    orphan: frame(palette.orphan, ''),
  }
  return Object.entries(looks).map(
    ([kind, look]) =>
      `<pattern id="${id}${kind}" width="${size}" height="${size}" patternUnits="userSpaceOnUse">${look}</pattern>`,
  )
}

function definitions(layout) {
  const signs = MARKS.map(
    (kind) =>
      `<symbol id="sign-${kind}" width="12" height="12"><rect width="12" height="12" fill="url(#sign${kind})"/></symbol>`,
  )
  const { size } = layout
  const lines = `<pattern id="lines" width="${size}" height="${size}" patternUnits="userSpaceOnUse"><path d="M${size - 0.5} 0V${size}M0 ${size - 0.5}H${size}" stroke="#fff" stroke-width="1"/></pattern>`
  return `<defs>${[...patterns('grid', size), ...patterns('sign', 12), ...signs, lines].join('')}</defs>`
}

function styles(colours) {
  const rules = [
    `text{font-family:${FONT};font-size:13px;fill:#1f2933;font-variant-numeric:tabular-nums}`,
    '.title{font-size:24px;font-weight:600}',
    '.section{font-size:15px;font-weight:600}',
    '.quiet,.head{fill:#66707a}',
    '.head{font-size:12px}',
    '.axis{font-size:11px;fill:#8a939c;text-anchor:end}',
    '.end{text-anchor:end}',
    '.state{font-style:italic}',
    `.bad{fill:${palette.damage};font-weight:600}`,
    `.good{fill:${palette.good};font-weight:600}`,
    '.lines{fill:url(#lines)}',
    `.ring{fill:none;stroke:${palette.damage};stroke-width:2.5}`,
    '.halo{fill:none;stroke:#fff;stroke-width:5}',
    `.pointer{fill:${palette.damage}}`,
    ...MARKS.map((kind) => `.${kind}{fill:url(#grid${kind})}`),
    // Too narrow for a pattern.
    `.bar.orphan{fill:#fff;stroke:${palette.orphan}}.bar.missing{fill:${palette.missing}}`,
    `.free{fill:${palette.free}}.freeTrunk{fill:${palette.freeTrunk}}`,
    `.pointerMap{fill:${palette.pointerMap}}.lockByte{fill:${palette.lockByte}}`,
    '.swatch{stroke:#00000022;stroke-width:.5}',
  ]
  for (const { index } of colours.families) {
    for (const [shade, colour] of Object.entries(shadesOf(index))) rules.push(`.o${index}${shade}{fill:${colour}}`)
  }
  return `<style>${escape(rules.join('')).replaceAll('&#34;', '"').replaceAll('&#62;', '>')}</style>`
}

/**
 * The picture of a page map, as the text of an SVG file.
 * @param map of `pageMap`
 * @param {{ title?: string, date?: Date }} [options] `title`: the file's name unless given;
 *   `date`: now unless given
 */
function pageMapSvg(map, { title = map.path.split(/[\\/]/).at(-1), date = new Date() } = {}) {
  const colours = palette.assign(map)
  const layout = new Grid(map)
  const facts = [
    bytes(map.fileBytes),
    `${counted(map.pages, 'page')} of ${bytes(map.pageSize)}`,
    ...(map.pagesFromWal > 0 ? [`${number(map.pagesFromWal)} of them read from the -wal`] : []),
    ...(NAMES[map.namesFrom] ?? []),
    moment(date.getTime()),
  ]
  const bad = map.damagedPages > 0 || (map.roles.missing ?? 0) > 0
  const verdict = [
    ...(map.damagedPages > 0 ? [`${counted(map.damagedPages, 'page')} damaged`] : []),
    ...(map.roles.missing > 0 ? [`${counted(map.roles.missing, 'page')} missing`] : []),
    ...(map.roles.orphan > 0 ? [`${counted(map.roles.orphan, 'page')} that belong to nothing`] : []),
  ]
  const says = verdict.length === 0 ? 'No damaged page' : verdict.join(', ')
  const scale =
    map.pagesPerCell === 1
      ? 'Each square is a page, in the order of the file. Lighter: indexes. Darker: interior pages of a b-tree.'
      : `Each square stands for ${number(map.pagesPerCell)} pages, in the order of the file, and shows the worst of them. ` +
        'Lighter: indexes. Darker: interior pages of a b-tree.'

  const gridTop = 166
  const below = gridTop + layout.height + 34
  const key = legend(map, colours, below + 30)
  const list = damageList(map, key.bottom + 18)
  const height = Math.ceil(list.bottom + 16)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}">`,
    `<title>${escape(`Page map of ${title}`)}</title>`,
    styles(colours),
    definitions(layout),
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    text(MARGIN, 58, shortened(title), 'class="title"'),
    text(MARGIN, 84, facts.join('  ·  '), 'class="quiet"'),
    text(MARGIN, 108, says, `class="${bad || verdict.length > 0 ? 'bad' : 'good'}"`),
    composition(map, colours, layout.width, 126),
    `<g transform="translate(${MARGIN + AXIS} ${gridTop})">`,
    ...grid(map, layout, colours),
    ...axis(map, layout),
    '</g>',
    text(MARGIN, below, scale, 'class="quiet"'),
    ...key.parts,
    ...list.parts,
    '</svg>',
    '',
  ].join('\n')
}

module.exports = { pageMapSvg }
