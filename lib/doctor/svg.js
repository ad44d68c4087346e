'use strict'

// A page map as a picture: a square for each page (or so many pages), in the file's order, coloured
// by what it belongs to. Plain SVG 1.1, without scripts; a few hundred KiB at most.

const { GRID, Grid, axis, grid } = require('./map-grid.js')
const { composition, damageList, legend } = require('./map-legend.js')
const { definitions, styles } = require('./map-style.js')
const { palette } = require('./palette.js')
const { bytes, counted, moment, number } = require('./format.js')
const { escape, shortened, text } = require('./xml.js')

/** Pixels. */
const MARGIN = 36
const AXIS = 64
const GUTTER = 28
const WIDTH = MARGIN + AXIS + GRID + GUTTER + MARGIN

/** What there is to say of the names. */
const NAMES = {
  known: ['names from the saved schema'],
  nothing: ['the schema is lost: b-trees go by their first pages'],
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
  const key = legend(map, colours, WIDTH - 2 * MARGIN, below + 30)
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
    `<g transform="translate(${MARGIN + AXIS} 126)">`,
    ...composition(map, colours, layout.width),
    '</g>',
    `<g transform="translate(${MARGIN + AXIS} ${gridTop})">`,
    ...grid(map, layout, colours),
    ...axis(map, layout),
    '</g>',
    text(MARGIN, below, scale, 'class="quiet"'),
    `<g transform="translate(${MARGIN} 0)">`,
    ...key.parts,
    ...list.parts,
    '</g>',
    '</svg>',
    '',
  ].join('\n')
}

module.exports = { pageMapSvg }
