'use strict'

// Named parameters, arranged by position for the native calls, which know positions only.

const { types } = require('node:util')
const { invalidArgType, invalidArgValue, invalidState } = require('./errors.js')
const { features } = require('./features.js')

/** Whether `value`, as first argument, holds named parameters: an object that is not binary. */
function isNamedParameters(value) {
  if (typeof value === 'function') return true
  return typeof value === 'object' && value !== null && !ArrayBuffer.isView(value) && !types.isAnyArrayBuffer(value)
}

/** The positions of parameters by the names that a named parameter may be given. */
function positionsOf(names, bareNames) {
  const positions = new Map()
  names.forEach((name, index) => {
    if (name !== null) positions.set(name, index)
  })
  if (!bareNames) return positions
  const bare = new Map()
  for (const name of positions.keys()) {
    const short = name.slice(1)
    const other = bare.get(short)
    if (other !== undefined) {
      throw invalidState(
        `Cannot create bare named parameter '${short}' because of conflicting names '${other}' and '${name}'.`,
      )
    }
    bare.set(short, name)
  }
  for (const [short, name] of bare) {
    if (!positions.has(short)) positions.set(short, positions.get(name))
  }
  return positions
}

function requireBindable(value, position) {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'bigint':
    case 'boolean':
      return
    case 'undefined':
      if (features.undefinedIsNull) return
      break
    case 'object':
      if (value === null || ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) return
  }
  throw invalidArgType(`Provided value cannot be bound to SQLite parameter ${position + 1}.`)
}

/** The same, and that SQLite has such an integer. */
function requireStorable(value, position) {
  requireBindable(value, position)
  if (typeof value === 'bigint' && BigInt.asIntN(64, value) !== value) {
    throw invalidArgValue('BigInt value is too large to bind.')
  }
}

/** Of `values`, those that a call binds to the `count` parameters before it fails, or all. */
function bound(values, count) {
  let end = 0
  try {
    for (; end < values.length && end < count; end++) requireStorable(values[end], end)
  } catch {
    // The call has failed with this.
  }
  return end === values.length ? values : values.slice(0, end)
}

/** As the native side takes it: N-API has no access to a SharedArrayBuffer but through a view. */
function readable(value) {
  if (value === undefined) return features.undefinedIsNull ? null : value
  return types.isSharedArrayBuffer(value) ? new Uint8Array(value) : value
}

/**
 * The values by position, from the arguments of a statement's method: named parameters first, if
 * the first argument holds such; the others take the parameters without names, in order. Runs
 * getters and proxies of the caller.
 *
 * @param {readonly (string | null)[]} names of the statement's parameters
 * @param {unknown[]} values empty; what is in it after an error would have been bound until then
 */
function arrange(names, args, { bareNames, unknownNames }, values) {
  const put = (position, value) => {
    while (values.length < position) values.push(null)
    values[position] = readable(value)
  }
  let next = 0
  if (isNamedParameters(args[0])) {
    next = 1
    const given = args[0]
    const positions = positionsOf(names, bareNames)
    for (const name of Object.keys(given)) {
      const position = positions.get(name)
      if (position === undefined) {
        if (unknownNames) continue
        throw invalidState(`Unknown named parameter '${name}'`)
      }
      const value = given[name]
      requireStorable(value, position)
      put(position, value)
    }
  }
  for (let position = 0; next < args.length; position++) {
    const name = names[position]
    if (typeof name === 'string' && !name.startsWith('?')) continue
    if (position < names.length) requireStorable(args[next], position)
    put(position, args[next++])
  }
}

module.exports = { arrange, bound, isNamedParameters, requireBindable }
