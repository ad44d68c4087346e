// One round of the cheap cells of `npm run torture` (docs/reliability.md), by the same code: what is promised holds,
// and the oracle sees what node:sqlite loses.

import test, { type ExecutionContext } from 'ava'
import { startRun } from '../torture/start-run.mjs'
import { cells } from '../torture/cells.mjs'

interface Result {
  rows: number
  faults: number
  lost: number
  damaged: number
  crashes: string[]
  violations: string[]
  observations: string[]
  skipped?: string
}

const linux = process.platform === 'linux' ? test.serial : test.skip
const SEED = 20_261_123

async function run(cell: string, column: string, seed = SEED, seconds = 0, faults = 1): Promise<Result> {
  const found = cells.find(({ name }) => name === cell)
  return (await startRun(found, { cell, column, seed, seconds, faults })) as unknown as Result
}

async function holds(t: ExecutionContext, cell: string, column: string) {
  const { violations, rows, faults, skipped } = await run(cell, column)
  if (skipped !== undefined) return t.pass(`not run: ${skipped}`)
  t.deepEqual(violations, [], `npm run torture -- --only ${cell},${column} --seed ${SEED}`)
  t.true(rows > 0)
  t.true(faults > 0)
}

for (const [cell, column] of [
  ['copy', 'alone'],
  ['copy', 'registered'],
  ['raw-open', 'elsewhere'],
  ['second-library', 'alone'],
  ['rename-over', 'alone'],
  ['rm-wal', 'alone'],
  ['disk-full', 'alone'],
  ['stopped-holder', 'alone'],
  ['kill-commit', 'alone'],
  ['kill-checkpoint', 'elsewhere'],
  ['kill-repair', 'alone'],
  ['kill-restore', 'alone'],
  ['kill-backup', 'alone'],
  ['connections', 'registered'],
] as const) {
  linux(`${cell}, ${column}: what is promised holds`, (t) => holds(t, cell, column))
}

linux('a rename over the file loses acknowledged rows of node:sqlite, which the oracle counts', async (t) => {
  // What was committed between the rename and the next open is lost: that it is anything depends on who writes when.
  for (let seed = SEED; seed < SEED + 5; seed++) {
    const { lost, violations } = await run('rename-over', 'node', seed)
    t.deepEqual(violations, [], 'nothing is promised for node:sqlite')
    if (lost > 0) return t.pass()
  }
  return t.fail('node:sqlite kept everything')
})

linux('a close of the files loses or damages what node:sqlite writes, which the oracle reports', async (t) => {
  // What becomes of two writers without locks depends on who writes when.
  for (let seed = SEED; seed < SEED + 5; seed++) {
    const { rows, lost, damaged, crashes, observations } = await run('raw-open', 'node', seed, 2, 1000)
    t.log(`${lost} of ${rows} rows lost; ${[...observations, ...crashes].join('; ')}`)
    if (lost + damaged + crashes.length > 0) return t.pass()
  }
  return t.fail('node:sqlite kept everything')
})
