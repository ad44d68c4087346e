// Runs commands for `npm run pack:try` and returns what they print.

import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'

/** Variables by which an outer npm or Node would reach into the commands. */
const OUTER = /^(npm_|NODE_OPTIONS$|NODE_PATH$|INIT_CWD$|FUSION_SQLITE_)/i

/** The environment of a stranger: `node` is the first Node that is found. */
export function environment(node, extra = {}) {
  const entries = Object.entries(process.env).filter(([name]) => !OUTER.test(name))
  const PATH = `${path.dirname(node)}${path.delimiter}${process.env.PATH}`
  return { ...Object.fromEntries(entries), PATH, CI: 'true', NO_COLOR: '1', ...extra }
}

/** Runs a command to its end, at most five minutes; throws with its output if it fails. */
export async function output(command, args, { cwd, env }) {
  const windows = process.platform === 'win32'
  const options = { cwd, env, timeout: 300_000, maxBuffer: 2 ** 26, shell: windows && !command.endsWith('.exe') }
  try {
    const { stdout } = await promisify(execFile)(command, args, options)
    return stdout
  } catch (error) {
    const ended = error.signal ? `ended by ${error.signal}` : `ended with ${error.code}`
    const shown = [command, ...args].join(' ')
    throw new Error(`${shown}\n${ended}\n${error.stdout ?? ''}${error.stderr ?? ''}`, { cause: error })
  }
}
