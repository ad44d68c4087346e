// Iterators: protocol, laziness, and what ends or invalidates them.

import { same, type Api } from './helpers/differential.ts'

function open({ DatabaseSync }: Api) {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)')
  return db
}

same('the iterator protocol', (api, look) => {
  const db = open(api)
  const statement = db.prepare('SELECT a FROM t')
  const iterator = statement.iterate() as unknown as Iterator<unknown> & Iterable<unknown>
  const prototype = Object.getPrototypeOf(iterator)
  look('iterator', () => [iterator, Reflect.ownKeys(iterator), iterator[Symbol.iterator]() === iterator])
  look('prototype', () => Reflect.ownKeys(prototype).toSorted())
  look('constructor', () => prototype.constructor.name)
  look('construct', () => new prototype.constructor())
  look('call', () => prototype.constructor())
  look('inherits', () => Object.getPrototypeOf(prototype) === Iterator.prototype)
  look('tag', () => Object.prototype.toString.call(iterator))
  look('receivers', () => prototype.next.call({}))
  look('receivers of return', () => prototype.return.call(statement))
  for (const name of ['next', 'return', 'constructor']) {
    look(name, () => {
      const { writable, enumerable, configurable, value } = Object.getOwnPropertyDescriptor(prototype, name)!
      return { writable, enumerable, configurable, length: value.length, name: value.name }
    })
  }
  look('result', () => Object.getOwnPropertyDescriptors(iterator.next()))
  for (let call = 0; call < 5; call++) look(`next ${call}`, () => iterator.next())
  look('return', () => iterator.return!(7))
  look('helpers', () => [
    ...(statement.iterate() as unknown as IteratorObject<{ a: number }>).map((row) => row.a).take(2),
  ])
})

same('what ends an iteration', (api, look) => {
  const db = open(api)
  const statement = db.prepare('SELECT a FROM t')
  const others: [string, () => unknown][] = [
    ['get', () => statement.get()],
    ['all', () => statement.all()],
    ['run', () => statement.run().changes],
    ['iterate', () => statement.iterate().next()],
    ['columns', () => statement.columns()],
    ['sourceSQL', () => statement.sourceSQL],
    ['expandedSQL', () => statement.expandedSQL],
    ['a failed get', () => statement.get(1)],
    ['a failed iterate', () => statement.iterate(1)],
    ['setReturnArrays', () => statement.setReturnArrays(true)],
    ['setReadBigInts', () => statement.setReadBigInts(true)],
    ['setReturnArrays back', () => statement.setReturnArrays(false)],
  ]
  for (const [name, other] of others) {
    const fresh = statement.iterate()
    look(`${name} before the first row`, other)
    look(`next after ${name}`, () => fresh.next())
    const begun = statement.iterate()
    begun.next()
    look(`${name} in the middle`, other)
    look(`next after ${name}`, () => begun.next())
    look(`return after ${name}`, () => begun.return!())
    look(`next after return after ${name}`, () => begun.next())
    const done = statement.iterate()
    look('all', () => [...done])
    look(`${name} at the end`, other)
    look(`next after ${name}`, () => done.next())
  }
  look('break', () => {
    for (const row of statement.iterate()) return row
  })
  look('throw', () => {
    for (const row of statement.iterate()) throw new RangeError(String(row.a))
  })
})

same('namesakes do not disturb each other', (api, look) => {
  const db = open(api)
  const [first, second] = [db.prepare('SELECT a FROM t WHERE a >= ?'), db.prepare('SELECT a FROM t WHERE a >= ?')]
  look('nested', () => {
    const seen = []
    for (const x of first.iterate(1)) {
      for (const y of second.iterate(2)) seen.push([x.a, y.a, db.prepare('SELECT a FROM t WHERE a >= ?').get(3)])
    }
    return seen
  })
  const [left, right] = [first.iterate(1), second.iterate(2)]
  look('left', () => left.next())
  look('right', () => right.next())
  look('get', () => db.prepare('SELECT a FROM t WHERE a >= ?').all(3))
  look('left again', () => left.next())
  look('right again', () => [right.next(), right.next()])
  look('left to the end', () => [...left])
  look('afterwards', () => [first.all(3), second.all(1)])
})

same('rows are read one by one', (api, look) => {
  const db = open(api)
  look('changes show', () => {
    const seen = []
    for (const row of db.prepare('SELECT a FROM t ORDER BY rowid').iterate()) {
      seen.push(row.a)
      if (row.a === 1) db.exec('DELETE FROM t WHERE a = 2')
    }
    return seen
  })
  look('returning', () => {
    const iterator = db.prepare('INSERT INTO t VALUES (8), (9) RETURNING a').iterate()
    return [iterator.next(), db.prepare('SELECT count(*) n FROM t').get(), iterator.next(), iterator.next()]
  })
  const failing = db.prepare('SELECT abs(a) v FROM (SELECT 1 a UNION ALL SELECT -9223372036854775808)').iterate()
  for (let call = 0; call < 4; call++) look(`failing ${call}`, () => failing.next())
  look('return', () => failing.return!())
  const large = db.prepare('SELECT 9007199254740993 v UNION ALL SELECT 2').iterate()
  for (let call = 0; call < 3; call++) look(`too large ${call}`, () => large.next())
})

same('schema changes and iterations', (api, look) => {
  const db = open(api)
  const before = db.prepare('SELECT * FROM t').iterate()
  db.exec('ALTER TABLE t ADD COLUMN b DEFAULT 5')
  look('before the first row', () => [before.next(), before.next()])
  look('a table in use', () => db.exec('DROP TABLE t'))
  look('goes on', () => [before.next(), before.next()])
  look('a table not in use', () => db.exec('DROP TABLE t'))
  look('an iteration without its table', () => db.prepare('SELECT * FROM t').iterate())
})

same('closing in the middle', (api, look) => {
  const db = open(api)
  const statement = db.prepare('SELECT a FROM t')
  const iterators = [statement.iterate(), db.prepare('SELECT a FROM t').iterate()]
  iterators[0]!.next()
  const done = db.prepare('SELECT 1').iterate()
  look('done', () => [...done])
  db.close()
  for (const iterator of [...iterators, done]) {
    look('next', () => iterator.next())
    look('return', () => iterator.return!())
  }
  db.open()
  look('reopened', () => iterators[0]!.next())
  look('statement', () => statement.all())
})

same('a failed step is told once more', (api, look) => {
  const db = open(api)
  const failing = 'SELECT abs(a) v FROM (SELECT 1 a UNION ALL SELECT -9223372036854775808)'
  for (const method of ['get', 'all', 'run', 'iterate'] as const) {
    const statement = db.prepare(failing)
    const iterator = statement.iterate()
    for (let call = 0; call < 2; call++) look(`next ${call}`, () => iterator.next())
    look('another statement', () => db.prepare('SELECT 1 one').get())
    look(`${method} after the failure`, () => statement[method]())
    look('next', () => iterator.next())
    look(`${method} again`, () => statement[method]())
    const returned = statement.iterate()
    for (let call = 0; call < 2; call++) look(`next ${call}`, () => returned.next())
    look('return', () => returned.return!())
    look(`${method} after return`, () => statement[method]())
  }
})

same('run goes to the first row', (api, look) => {
  const db = open(api)
  db.exec('CREATE TABLE parent (p PRIMARY KEY); CREATE TABLE child (c REFERENCES parent DEFERRABLE INITIALLY DEFERRED)')
  look('a failure after it', () => db.prepare('SELECT abs(a) FROM (SELECT 1 a UNION ALL SELECT -1 << 63)').run())
  look('returning', () => db.prepare('INSERT INTO t VALUES (7), (8), (9) RETURNING a').run())
  look('rows', () => db.prepare('SELECT * FROM t').all())
  look('deferred', () => db.prepare('INSERT INTO child VALUES (1), (2) RETURNING c').run())
  look('none', () => [db.prepare('SELECT * FROM child').all(), db.isTransaction])
})
