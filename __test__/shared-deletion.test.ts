// The sidecar files deleted under several live processes, which all go on.

import { readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { createDatabase, temporaryFolder } from './children/database.ts'
import { Child, findings } from './children/start.ts'

const NAMES = ['one', 'two', 'three']

for (const suffixes of [['-wal', '-shm'], ['-wal'], ['-shm']]) {
  test(`${suffixes.join(' and ')} deleted under three processes that write: nothing acknowledged is lost`, async (t) => {
    const file = path.join(await temporaryFolder(t), 'fusion.db')
    await createDatabase(file)
    const children = NAMES.map((name) => new Child('sharer.mjs', [file, name]))
    for (const child of children) t.teardown(() => child.kill())
    for (let deletion = 0; deletion < 6; deletion++) {
      for (const child of children) for (let round = 0; round < 4; round++) await child.hear('round')
      for (const suffix of suffixes) rmSync(file + suffix, { force: true })
    }
    for (const child of children) for (let round = 0; round < 4; round++) await child.hear('round')
    for (const child of children) child.say('stop')
    const results = await Promise.all(
      children.map(async (child) => (await child.hear('done')) as unknown as Record<string, string[]>),
    )
    const { error, integrity, texts } = await findings(file)
    t.is(error, null)
    t.deepEqual(integrity, ['ok'])
    const counts = new Map<string, number>()
    for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1)
    const acknowledged = results.flatMap(({ done }) => done!)
    t.deepEqual(
      acknowledged.filter((text) => counts.get(text) !== 1),
      [],
      'lost or doubled',
    )
    t.true(acknowledged.length > 6 * 3 * 4)
    t.log(JSON.stringify(results.map(({ done, refused, events }) => [done!.length, refused!.slice(0, 2), events])))
    t.log(readdirSync(path.dirname(file)))
  })
}
