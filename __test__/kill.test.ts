// A process may be killed at any moment: what was acknowledged to it is stored, once, each
// producer's rows are in the order of its calls without a gap, and the others go on undisturbed.

import path from 'node:path'
import test from 'ava'
import { createDatabase, temporaryFolder } from './children/database.ts'
import { Child, type Failure, findings, linesOf } from './children/start.ts'

const KILLED = 3
const KILLS_EACH = 11
const SEED = 20_261_123

/** Mulberry32: numbers from 0 to 1, the same in every run. */
function randomNumbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

test('33 kills of 3 of 4 appending processes lose, double and disorder nothing', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'fusion.db')
  await createDatabase(file)
  const acknowledgements: string[] = []
  const failures: Failure[] = []
  const start = (name: string) => {
    const noted = path.join(folder, name)
    acknowledgements.push(noted)
    const child = new Child('producers.mjs', [file, noted, name])
    t.teardown(() => child.kill())
    return child
  }

  let kills = 0
  async function killAgainAndAgain(name: string, random: () => number): Promise<Child> {
    let child = start(`${name}-0`)
    for (let kill = 1; kill <= KILLS_EACH; kill++) {
      await child.hear('ready')
      // Soon after the start, or in full swing.
      const acknowledged = Math.floor(random() ** 2 * 200)
      for (let heard = 0; heard < acknowledged; heard++) await child.hear('appended')
      child.kill()
      t.is((await child.ended).signal, 'SIGKILL')
      failures.push(...child.failures)
      kills++
      child = start(`${name}-${kill}`)
    }
    return child
  }

  const survivor = start('survivor')
  const others = Array.from({ length: KILLED }, (_, index) =>
    killAgainAndAgain(`process${index}`, randomNumbers(SEED + index)),
  )
  const last = [survivor, ...(await Promise.all(others))]
  await Promise.all(last.map((child) => child.hear('appended')))
  for (const child of last) child.say('stop')
  for (const end of await Promise.all(last.map((child) => child.ended))) t.is(end.code, 0, end.stderr)
  failures.push(...last.flatMap((child) => child.failures))
  t.deepEqual(failures, [])
  t.is(kills, KILLED * KILLS_EACH)

  const found = await findings(file)
  t.is(found.error, null)
  t.deepEqual(found.integrity, ['ok'])
  const stored = new Set(found.texts)
  t.is(stored.size, found.texts.length)
  const acknowledged = (await Promise.all(acknowledgements.map(linesOf))).flat()
  t.deepEqual(
    acknowledged.filter((text) => !stored.has(text)),
    [],
  )
  const next = new Map<string, number>()
  const misplaced = found.texts.filter((text) => {
    const [process, producer, number] = text.split(' ')
    const expected = next.get(`${process} ${producer}`) ?? 0
    next.set(`${process} ${producer}`, expected + 1)
    return Number(number) !== expected
  })
  t.deepEqual(misplaced, [])
  t.log(`${kills} kills, ${acknowledged.length} acknowledged rows and ${stored.size} stored, ${next.size} producers`)
})
