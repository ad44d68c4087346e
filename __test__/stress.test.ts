// Nothing that JavaScript does may crash the process: see children/stress.mjs. Run another seed with
// FUSION_STRESS_SEED (a number, or random), and more operations with FUSION_STRESS_OPERATIONS.

import test from 'ava'
import { run } from './support.ts'

const { FUSION_STRESS_SEED = '99' } = process.env
const seed = FUSION_STRESS_SEED === 'random' ? Math.floor(Math.random() * 2 ** 31) : Number(FUSION_STRESS_SEED)
const operations = Number(process.env.FUSION_STRESS_OPERATIONS ?? 3000)

test('random misuse in four workers ends no process', async (t) => {
  console.log(`stress: FUSION_STRESS_SEED=${seed}`)
  const { code, signal, output } = await run(t, 'stress.mjs', [String(seed), String(operations)], ['--expose-gc'])
  t.is(signal, null, `seed ${seed}: ${output}`)
  t.is(code, 0, `seed ${seed}: ${output}`)
  // Entries that a forgotten transaction kept from being written are told of at the end, by line.
  const results = JSON.parse(output.split('\n').find((line) => line.startsWith('[')) ?? '') as {
    done: number
    thrown: number
    kinds: number
  }[]
  t.is(results.length, 5)
  for (const { done, thrown, kinds } of results.slice(1, 4)) {
    t.is(done, operations)
    t.true(kinds > 40)
    // Neither does everything fail.
    t.true(thrown < done * 0.95, `${thrown} of ${done} operations threw`)
  }
})
