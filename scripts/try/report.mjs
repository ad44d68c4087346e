// What `npm run pack:try` did: each step passed, failed, or was not tried, with the reason.

import { stripVTControlCharacters } from 'node:util'
import { SetupError } from '../bootstrap.mjs'

const counts = { passed: 0, failed: 0, untried: 0 }

const lastLines = (text, lines) => stripVTControlCharacters(text).trim().split('\n').slice(-lines).join('\n    ')

export function notTried(what, reason) {
  counts.untried += 1
  console.log(`not tried: ${what}, because ${reason}`)
}

/** Runs a step; a SetupError is a tool that is missing, any other error a failure. Returns the body's result. */
export async function step(what, body) {
  const started = Date.now()
  try {
    const result = await body()
    counts.passed += 1
    const detail = typeof result === 'string' ? `: ${lastLines(result, 1)}` : ''
    console.log(`ok: ${what}${detail} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    return result ?? true
  } catch (error) {
    if (error instanceof SetupError) {
      notTried(what, error.message)
      return undefined
    }
    counts.failed += 1
    console.log(`FAILED: ${what}\n    ${lastLines(error.message, 30)}`)
    return undefined
  }
}

/** Prints the sums; true if nothing failed. */
export function summary() {
  const { passed, failed, untried } = counts
  console.log(`pack:try: ${passed} passed, ${failed} failed, ${untried} not tried`)
  return failed === 0
}
