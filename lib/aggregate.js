'use strict'

// What the groups of an aggregate have accumulated. The native side knows a group by its index;
// a negative one, `~index`, is that of a group that is new. An index may be used again for a new
// group without having been finished: SQLite abandons groups.

const { apply } = Reflect

/**
 * The functions that the native `defineAggregate` takes: step, value, finish and, for what can be
 * a window function, inverse.
 *
 * @param {number} argc number of arguments, or -1
 */
function makeCalls({ start, step, inverse, result }, argc) {
  const groups = []
  // The receivers, null and undefined, are node:sqlite's.
  const begin = typeof start === 'function' ? () => apply(start, null, []) : () => start
  const conclude = typeof result === 'function' ? (value) => apply(result, null, [value]) : (value) => value

  const open = (index) => {
    if (index >= 0) return index
    groups[~index] = undefined
    groups[~index] = begin()
    return ~index
  }
  /** A function that adds the values of a row to a group, or takes them away. */
  const adder = (add) => {
    if (argc === 1) {
      return (index, value) => {
        if (index < 0) index = open(index)
        groups[index] = add(groups[index], value)
      }
    }
    return (index, ...values) => {
      if (index < 0) index = open(index)
      groups[index] = add(groups[index], ...values)
    }
  }
  const value = (index) => conclude(groups[open(index)])
  const finish = (index) => {
    index = open(index)
    const accumulated = groups[index]
    groups[index] = undefined
    return conclude(accumulated)
  }
  const calls = [adder(step), value, finish]
  if (inverse !== undefined) calls.push(adder(inverse))
  return calls
}

module.exports = { makeCalls }
