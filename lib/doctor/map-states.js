'use strict'

// What a page can be, and how a run of pages is called and coloured.

const { pageList } = require('./format.js')

/** Page states that are drawn on top, with a pattern of their own. */
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

const ROLES = {
  interior: 'interior',
  leaf: 'leaf',
  overflow: 'overflow',
  ...STATES,
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
  const pages = run.pages === 1 ? `page ${run.first}` : where
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

function pagesIn(map, state) {
  if (state === 'damaged') return map.damagedPages
  return map.roles[state === 'free' ? 'freeLeaf' : state] ?? 0
}

function share(pages, of) {
  const percent = (pages / of) * 100
  return percent > 0 && percent < 0.1 ? '< 0.1 %' : `${percent.toFixed(1)} %`
}

module.exports = { MARKS, STATES, classOf, pagesIn, share, tooltip }
