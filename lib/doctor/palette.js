'use strict'

// The colours of a page map: one for each of the largest tables, lighter for its indexes, darker
// for the interior pages of its b-tree. They differ for people with any kind of colour blindness,
// and none of them is near the red of damage.

/** The colours of tables. All tables after the largest ones share the last colour. */
const TABLES = ['#33508f', '#e08e0b', '#12805c', '#8e4ca8', '#3aa5d1', '#8c8a1e', '#6b4a33', '#7d848c']

/** The colour of `sqlite_schema`, which every file has. */
const SCHEMA = TABLES.length

/** The part of a colour at a place of its text. */
function channel(colour, at) {
  return Number.parseInt(colour.slice(at, at + 2), 16)
}

function mixed(colour, other, share) {
  const mix = (at) => Math.round(channel(colour, at) * (1 - share) + channel(other, at) * share)
  return `#${[1, 3, 5].map((at) => mix(at).toString(16).padStart(2, '0')).join('')}`
}

/** The colours of what belongs to a table, by its number. */
function shadesOf(index) {
  const base = TABLES[index] ?? '#1f2933'
  return {
    leaf: base,
    interior: mixed(base, '#000000', 0.45),
    overflow: mixed(base, '#ffffff', 0.3),
    index: mixed(base, '#ffffff', 0.58),
    indexInterior: mixed(mixed(base, '#ffffff', 0.58), '#000000', 0.3),
  }
}

/** Pages of a table and its indexes. */
function size({ tablePages, indexPages }) {
  return tablePages + indexPages
}

/**
 * Which colour whose pages have: `families` of a table and its indexes, the largest first, and
 * `of(run)`. A colour goes by the table's place among the largest in the schema's order, so that it
 * is the same before and after a repair.
 */
function assign({ owners }) {
  const families = new Map()
  for (const owner of owners) {
    const family = families.get(owner.table) ?? { table: owner.table, owners: [], tablePages: 0, indexPages: 0 }
    families.set(owner.table, family)
    family.owners.push(owner)
    family[owner.type === 'index' ? 'indexPages' : 'tablePages'] += owner.pages
  }
  const all = [...families.values()]
  const coloured = new Set(
    all
      .filter(({ table }) => table !== 'sqlite_schema')
      .toSorted((a, b) => size(b) - size(a))
      .slice(0, TABLES.length - 1),
  )
  let next = 0
  for (const family of all) {
    if (family.table === 'sqlite_schema') family.index = SCHEMA
    else family.index = coloured.has(family) ? next++ : TABLES.length - 1
    family.owners.sort((a, b) => (a.type === 'index') - (b.type === 'index') || b.pages - a.pages)
  }
  return {
    families: all.toSorted((a, b) => size(b) - size(a)),
    of({ owner, role }) {
      const { table, type } = owners[owner]
      const { index } = families.get(table)
      if (type !== 'index') return { index, shade: role }
      return { index, shade: role === 'interior' ? 'indexInterior' : 'index' }
    },
  }
}

const palette = {
  assign,
  damage: '#d1121f',
  missing: '#f3a9ae',
  good: '#12805c',
  orphan: '#1f2933',
  free: '#e6e9ec',
  freeTrunk: '#b9c0c7',
  pointerMap: '#4b5560',
  lockByte: '#000000',
}

module.exports = { palette, shadesOf }
