// Numbers that are the same in every run with the same seed.

/** Mulberry32: a function that returns numbers from 0 to 1. */
export function randomNumbers(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A seed for one part of a run: FNV-1a over `name`, mixed with the run's seed. */
export function seedFor(seed, name) {
  let hash = 0x811c9dc5 ^ seed
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193)
  return hash >>> 0
}
