'use strict'

// Colours, patterns and fonts of a page map, as definitions and a style sheet.

const { DETAILED } = require('./map-grid.js')
const { MARKS } = require('./map-states.js')
const { palette, shadesOf } = require('./palette.js')

const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

/** Looks of the pages that are marked, in squares of `size` pixels. */
function patterns(id, size, plain) {
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
  const plain = size < DETAILED
  const lines = `<pattern id="lines" width="${size}" height="${size}" patternUnits="userSpaceOnUse"><path d="M${size - 0.5} 0V${size}M0 ${size - 0.5}H${size}" stroke="#fff" stroke-width="1"/></pattern>`
  return `<defs>${[...patterns('grid', size, plain), ...patterns('sign', 12, plain), ...signs, lines].join('')}</defs>`
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
  return `<style>${rules.join('')}</style>`
}

module.exports = { definitions, styles }
