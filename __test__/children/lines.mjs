// What a child process of a test and the test say to each other: one JSON object a line. Written
// synchronously, so that what a child has said is known even if it is killed right after.

import { openSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** Tells the test something. */
export function tell(kind, facts = {}) {
  const line = Buffer.from(`${JSON.stringify({ kind, ...facts })}\n`)
  for (let at = 0; at < line.length;) at += writeSync(1, line, at)
}

/** Tells of a failure, with what identifies it. */
export function tellFailure(error) {
  const { code = null, errcode = 0, message } = error
  tell('failed', { code, errcode, message })
}

/** What the test says, line by line. */
export const commands = () => createInterface({ input: process.stdin })

/** A function that notes texts in `file`, each on a line, before it returns. */
export function acknowledgements(file) {
  const fd = openSync(file, 'a')
  return (texts) => writeSync(fd, texts.map((text) => `${text}\n`).join(''))
}
