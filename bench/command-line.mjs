// The command line of the benchmarks: options that both have, and how mistakes are answered.

import { parseArgs } from 'node:util'

/** A mistake on the command line. */
export class UsageError extends Error {}

/** The values of `options` on the command line, with --repetitions as a number. */
export function commandLine(options, repetitionsOf) {
  let values
  try {
    values = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        repetitions: { type: 'string' },
        help: { type: 'boolean', default: false },
        ...options,
      },
    }).values
  } catch (error) {
    throw new UsageError(error.message)
  }
  const repetitions = Number(values.repetitions ?? repetitionsOf(values))
  if (!Number.isInteger(repetitions) || repetitions < 1) {
    throw new UsageError('--repetitions must be a whole number, 1 or more')
  }
  return { ...values, repetitions }
}

/** Runs `main`; what it throws is an error in one line, with `usage` and exit code 64 for a mistake. */
export async function runMain(main, usage) {
  try {
    await main()
  } catch (error) {
    console.error(`error: ${error.message}`)
    if (error instanceof UsageError) console.error(usage)
    process.exitCode = error instanceof UsageError ? 64 : 1
  }
}
