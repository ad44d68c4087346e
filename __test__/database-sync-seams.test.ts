// What subclasses of this package rely on: lib/internal.js.

import { createRequire } from 'node:module'
import test from 'ava'
import { DatabaseSync } from '../index.js'

const require = createRequire(import.meta.url)
const { kNumber, kOpen, kTransactionEnded } = require('../lib/internal.js') as {
  kNumber: string
  kOpen: string
  kTransactionEnded: string
}
const binding = require('../binding.js') as { open: (...args: unknown[]) => number }
const Base = DatabaseSync as unknown as new (...args: unknown[]) => DatabaseSync & Record<string, () => number>

test('a subclass opens the connection itself, each time', (t) => {
  const opened: unknown[][] = []
  const open = (...args: unknown[]) => {
    opened.push(args)
    return binding.open(...args)
  }
  const db = new Base(':memory:', { timeout: 7 }, { [kOpen]: open })
  db.close()
  db.open()
  t.deepEqual(
    opened.map(([path, , timeout]) => [path, timeout]),
    [
      [':memory:', 7],
      [':memory:', 7],
    ],
  )
  t.is(typeof db[kNumber]!(), 'number')
  db.close()
  t.throws(() => db[kNumber]!(), { code: 'ERR_INVALID_STATE' })
})

test('a subclass learns that a transaction has ended, however it ended', (t) => {
  let ended = 0
  class Watching extends Base {
    [kTransactionEnded]() {
      ended++
      return 0
    }
  }
  const db = new Watching(':memory:')
  db.exec('CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)')
  db.prepare('INSERT INTO t VALUES (2)').run()
  t.is(ended, 0, 'autocommit ends nothing that was open before the call')
  db.exec('BEGIN')
  db.prepare('INSERT INTO t VALUES (3)').run()
  t.is(ended, 0)
  db.exec('COMMIT')
  t.is(ended, 1)
  db.exec('SAVEPOINT a; SAVEPOINT b')
  db.exec('RELEASE b')
  t.is(ended, 1)
  db.prepare('RELEASE a').run()
  t.is(ended, 2)
  db.exec('BEGIN')
  db.prepare('ROLLBACK').all()
  t.is(ended, 3)
  db.exec('BEGIN')
  t.throws(() => db.prepare('INSERT OR ROLLBACK INTO t VALUES (1)').run())
  t.is(ended, 4)
  db.exec('BEGIN')
  t.throws(() => db.exec('INSERT OR ROLLBACK INTO t VALUES (1)'))
  t.is(ended, 5)
  db.prepare('BEGIN').run()
  db.prepare('COMMIT').iterate().next()
  t.is(ended, 6)
})
