// Bun's own SQLites, bun:sqlite and node:sqlite, beside this package: what is noticed, in JSON.
import { writeFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { Database } from 'bun:sqlite'
import { DatabaseSync as Builtin } from 'node:sqlite'
import { DatabaseSync, engineInfo, protectNodeSqlite } from '../../index.mjs'

const folder = process.argv[2]
let files = 0

function beside(Foreign) {
  const file = path.join(folder, `${files++}.db`)
  writeFileSync(file, '')
  const foreign = new Foreign(file)
  foreign.exec('PRAGMA journal_mode = WAL')
  foreign.exec('CREATE TABLE t(x)')
  try {
    new DatabaseSync(file, { foreignHandles: 'error' }).close()
    return 'not noticed'
  } catch (error) {
    return error.code
  } finally {
    foreign.close()
  }
}

async function forgotten() {
  const file = path.join(folder, 'forgotten.db')
  for (let i = 0; i < 60; i++) new DatabaseSync(file).prepare('SELECT 1').get()
  const descriptors = () => readdirSync('/proc/self/fd').length
  const before = descriptors()
  for (let i = 0; i < 50 && descriptors() > before - 30; i++) {
    Bun.gc(true)
    await Bun.sleep(20)
  }
  return descriptors() <= before - 30
}

const register = await import('../../register.mjs').then(
  () => 'loaded',
  (error) => error.message,
)
console.log(
  JSON.stringify({
    forgotten: await forgotten(),
    unprotected: [beside(Database), beside(Builtin)],
    protect: protectNodeSqlite(),
    protected: [beside(Database), beside(Builtin)],
    locks: engineInfo().nodeSqliteLocks,
    register,
  }),
)
