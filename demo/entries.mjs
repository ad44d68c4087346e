// Reads agent log entries from a JSON Lines file.

import { readFile } from 'node:fs/promises'

/** How many of the entries are written through node:sqlite, to compare: it takes its time for more. */
export const MEASURED_ROWS = 3000

/** The input cannot be played; the message says where and why. */
export class InputError extends Error {}

/** There is no such file, or it may not be read. */
export class MissingInputError extends InputError {}

export async function readEntries(file) {
  let text
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const reasons = { ENOENT: 'no such file', EISDIR: 'is a folder', EACCES: 'may not be read' }
    throw new MissingInputError(`--input ${file}: ${reasons[error.code] ?? error.message}`, { cause: error })
  }
  const entries = text
    .split('\n')
    .map((line, index) => (line.trim() === '' ? null : parseEntry(line, `${file}:${index + 1}`)))
    .filter((entry) => entry !== null)
  if (entries.length === 0) throw new InputError(`--input ${file}: holds no entries`)
  return entries
}

function parseEntry(line, place) {
  let entry
  try {
    entry = JSON.parse(line)
  } catch (error) {
    throw new InputError(`${place}: not JSON: ${error.message}`, { cause: error })
  }
  const missing = ['taskId', 'text', 'type'].filter((name) => typeof entry?.[name] !== 'string')
  if (missing.length > 0)
    throw new InputError(`${place}: not an agent log entry: ${missing.join(', ')} must be a string`)
  return entry
}
