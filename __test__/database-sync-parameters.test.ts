// What can be bound to a parameter, under which name, and what cannot.

import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

function detach<T extends ArrayBufferView>(view: T): T {
  structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] })
  return view
}

const values: [string, () => unknown][] = [
  ['1', () => 1],
  ['1.5', () => 1.5],
  ['-0', () => -0],
  ['NaN', () => NaN],
  ['Infinity', () => Infinity],
  ['-Infinity', () => -Infinity],
  ['2^53', () => 2 ** 53],
  ['2^63', () => 2 ** 63],
  ['-2^31', () => -(2 ** 31)],
  ['5e-324', () => 5e-324],
  ['1e300', () => 1e300],
  ['0n', () => 0n],
  ['10n', () => 10n],
  ['-2n^63n', () => -(2n ** 63n)],
  ['2n^63n-1n', () => 2n ** 63n - 1n],
  ['2n^63n', () => 2n ** 63n],
  ['2n^64n', () => 2n ** 64n],
  ['true', () => true],
  ['false', () => false],
  ['null', () => null],
  ['undefined', () => undefined],
  ['text', () => 'text'],
  ['empty text', () => ''],
  ['NUL', () => 'a\0b\0'],
  ['lone surrogate', () => 'a\ud800b'],
  ['low surrogate', () => '\udc00'],
  ['latin1', () => 'é'.repeat(100)],
  ['astral', () => '😀'.repeat(100)],
  ['mixed', () => 'aé😀\u2028'],
  ['250', () => 'a'.repeat(250)],
  ['251', () => 'é'.repeat(125)],
  ['252', () => '€'.repeat(85)],
  ['long', () => 'long '.repeat(50_000)],
  ['long astral', () => '😀'.repeat(70_000)],
  ['Uint8Array', () => new Uint8Array([1, 2, 255])],
  ['empty Uint8Array', () => new Uint8Array(0)],
  ['Buffer', () => Buffer.from('text')],
  ['subarray', () => new Uint8Array([1, 2, 3, 4]).subarray(1, 3)],
  ['DataView', () => new DataView(new ArrayBuffer(5), 1, 3)],
  ['Float64Array', () => new Float64Array([1])],
  ['Float32Array', () => new Float32Array([1])],
  ['Int16Array', () => new Int16Array([1, 2])],
  ['BigInt64Array', () => new BigInt64Array([1n])],
  ['Uint8ClampedArray', () => new Uint8ClampedArray([300])],
  ['ArrayBuffer', () => new Uint8Array([7, 8]).buffer],
  ['SharedArrayBuffer', () => new SharedArrayBuffer(2)],
  ['shared view', () => new Uint8Array(new SharedArrayBuffer(2))],
  ['resizable', () => new Uint8Array(new ArrayBuffer(4, { maxByteLength: 8 }))],
  ['large blob', () => new Uint8Array(300_000).fill(7)],
  ['detached view', () => detach(new Uint8Array(4))],
  ['detached DataView', () => detach(new DataView(new ArrayBuffer(4)))],
  ['detached buffer', () => detach(new Uint8Array(4)).buffer],
  ['symbol', () => Symbol('a')],
  ['function', () => () => 1],
  ['object', () => ({})],
  ['array', () => []],
  ['array of 1', () => [1]],
  ['Date', () => new Date(0)],
  ['String', () => new String('a')],
  ['Number', () => new Number(1)],
  ['RegExp', () => /a/],
  ['Map', () => new Map()],
  ['Promise', () => Promise.resolve()],
]

for (const [name, make] of values) {
  same(`binding ${name}`, ({ DatabaseSync }, look) => {
    const db = new DatabaseSync(':memory:')
    db.exec('CREATE TABLE t (i INTEGER, r REAL, x TEXT, b BLOB, n NUMERIC)')
    const facts = (v: string) => `SELECT typeof(${v}) t, length(${v}) l, hex(substr(CAST(${v} AS BLOB), 1, 400)) h`
    for (const method of ['get', 'all', 'run'] as const) {
      look(`${method} first`, () => db.prepare(facts('?1'))[method](any(make())))
    }
    look('second', () => db.prepare(`${facts('?2')}, ?1 x`).get(any('x'), any(make())))
    look('named', () => db.prepare(facts('$a')).get(any({ a: make() })))
    look('iterate', () => [...db.prepare(facts('?1')).iterate(any(make()))])
    look('back', () => db.prepare('SELECT ? v').get(any(make())))
    look('back big', () => db.prepare('SELECT ? v', { readBigInts: true }).get(any(make())))
    look('columns', () => db.prepare('INSERT INTO t VALUES ($v, $v, $v, $v, $v)').run(any({ v: make() })).changes)
    look('stored', () =>
      db.prepare('SELECT typeof(i) i, typeof(r) r, typeof(x) x, typeof(b) b, typeof(n) n FROM t').all(),
    )
    look('expanded', () => {
      const statement = db.prepare('SELECT ? v')
      statement.run(any(make()))
      return statement.expandedSQL.slice(0, 300)
    })
  })
}

const getter = (body: () => unknown) => Object.defineProperty({}, 'a', { get: body, enumerable: true })

const calls: [sql: string, ...args: unknown[]][] = [
  ['SELECT ?'],
  ['SELECT ?', 1, 2],
  ['SELECT 1', 1],
  ['SELECT ?, ?', 1],
  ['SELECT 1', null],
  ['SELECT 1', undefined],
  ['SELECT ?', 1, Symbol('late')],
  ['SELECT ?1 x, ?1 y', 1],
  ['SELECT ?5', 1],
  ['SELECT ?5', 1, 2, 3, 4, 5],
  ['SELECT ?5', 1, 2, 3, 4, 5, 6],
  ['SELECT :a', 1],
  ['SELECT $a', 1],
  ['SELECT @a, ?', 1],
  ['SELECT $a', {}],
  ['SELECT $a', { a: 1 }],
  ['SELECT $a', { $a: 1 }],
  ['SELECT $a', { b: 1 }],
  ['SELECT $a', { $b: 1 }],
  ['SELECT $a', { ':a': 1 }],
  ['SELECT $a', { a: 1, $a: 2 }],
  ['SELECT $a', { $a: 2, a: 1 }],
  ['SELECT $a, $a', { a: 1 }],
  ['SELECT $a, @b, :c', { a: 1, b: 2, c: 3 }],
  ['SELECT $a, @b, :c', { c: 1, $a: 2, '@b': 3 }],
  ['SELECT $a, @a', { a: 1 }],
  ['SELECT $a, @a', {}],
  ['SELECT $a, @a', { $a: 1, '@a': 2 }],
  ['SELECT $a, @a'],
  ['SELECT $a, @a', 1],
  ['SELECT $a, ?, ?', { a: 1 }, 2, 3],
  ['SELECT ?, $a, ?', { a: 1 }, 2, 3],
  ['SELECT ?, $a, ?', 1, 2],
  ['SELECT ?, $a, ?', 1, 2, 3],
  ['SELECT ?1, $a, ?5', { a: 1 }, 2, 3],
  ['SELECT ?1, $a, ?5', 2, 3, 4, 5],
  ['SELECT ?1, $a, ?5', 2, 3, 4, 5, 6],
  ['SELECT ?1, $a, ?5', { a: 1, '?5': 2 }],
  ['SELECT ?1, ?2', { 1: 1, 2: 2 }],
  ['SELECT ?1, ?2', { '?1': 1, '?2': 2 }],
  ['SELECT ?1, $1', { 1: 1 }],
  ['SELECT ?', { a: 1 }],
  ['SELECT ?', {}],
  ['SELECT ?', [1]],
  ['SELECT ?', []],
  ['SELECT ?', {}, 1],
  ['SELECT ?', () => 1],
  ['SELECT ?', new Map(), 2],
  ['SELECT $a', Object.create({ a: 1 })],
  ['SELECT $a', Object.assign(Object.create(null), { a: 1 })],
  ['SELECT $a', { [Symbol('a')]: 1, a: 2 }],
  ['SELECT $a', Object.defineProperty({}, 'a', { value: 1 })],
  ['SELECT $a', new Proxy({ a: 1 }, {})],
  ['SELECT $a', getter(() => 5)],
  [
    'SELECT $a',
    getter(() => {
      throw new RangeError('from the getter')
    }),
  ],
  [
    'SELECT $a',
    new Proxy(
      {},
      {
        ownKeys() {
          throw new RangeError('from the proxy')
        },
      },
    ),
  ],
  ['SELECT $a', { a: Symbol('first'), z: 1 }],
  ['SELECT $a', { z: 1, a: Symbol('second') }],
  [
    'SELECT $a',
    {
      get z() {
        throw new RangeError('unread')
      },
    },
  ],
  ['SELECT $a', { a: undefined }],
  ['SELECT $a', null],
  ['SELECT $é', { é: 1 }],
  ['SELECT $a::b(c)', { 'a::b(c)': 1 }],
  ['SELECT ' + Array.from({ length: 40 }, () => '?').join(), ...Array.from({ length: 40 }, (_, i) => i)],
]

for (const settings of [{}, { allowBareNamedParameters: false }, { allowUnknownNamedParameters: true }]) {
  same(`names and positions with ${JSON.stringify(settings)}`, ({ DatabaseSync }, look) => {
    const db = new DatabaseSync(':memory:', settings)
    calls.forEach(([sql, ...args], index) => {
      for (const method of ['get', 'all', 'run'] as const) {
        look(`${index} ${sql} ${method}`, () => db.prepare(sql)[method](...(args as never[])))
      }
      look(`${index} ${sql} iterate`, () => [...db.prepare(sql).iterate(...(args as never[]))])
    })
  })
}

same('values last for one call', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const statement = db.prepare('SELECT $a a, ? b, ? c')
  look('all', () => statement.get({ a: 1 }, 2, 3))
  look('expanded', () => statement.expandedSQL)
  look('none', () => statement.get())
  look('expanded none', () => statement.expandedSQL)
  look('positions', () => statement.get(4))
  look('a failed call', () => statement.get({ a: 1 }, Symbol('b') as never))
  look('after it', () => statement.get())
  const other = db.prepare('SELECT $a a, ? b, ? c')
  look('another', () => other.get())
  look('expanded of the first', () => statement.expandedSQL)
  look('more than once', () => [1, 2, 3].map((value) => db.prepare('SELECT ? v').get(value)))
})

same('expandedSQL is that of the object, not of a namesake', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const [first, second] = [db.prepare('SELECT ?'), db.prepare('SELECT ?')]
  look('unused', () => [first.expandedSQL, second.expandedSQL, first.sourceSQL])
  first.run("it's")
  look('first used', () => [first.expandedSQL, second.expandedSQL])
  second.get(2)
  look('second used', () => [first.expandedSQL, second.expandedSQL])
  const iterator = first.iterate(3)
  look('iterating', () => first.expandedSQL)
  iterator.next()
  second.get(4)
  look('in the middle', () => [first.expandedSQL, second.expandedSQL])
})

same('settings of a statement', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const statement = db.prepare('SELECT $a a, 9007199254740993 b')
  look('too big', () => statement.get({ a: 1 }))
  look('setReadBigInts', () => statement.setReadBigInts(true))
  look('big', () => statement.get({ a: 1 }))
  look('run big', () => statement.run({ a: 1 }))
  look('setReturnArrays', () => statement.setReturnArrays(true))
  look('arrays', () => [statement.get({ a: 1 }), statement.all({ a: 1 }), [...statement.iterate({ a: 1 })]])
  look('setAllowBareNamedParameters', () => statement.setAllowBareNamedParameters(false))
  look('no bare', () => statement.get({ a: 1 }))
  look('setAllowUnknownNamedParameters', () => statement.setAllowUnknownNamedParameters(true))
  look('unknown', () => statement.get({ a: 1 }))
  look('another is untouched', () => db.prepare('SELECT $a a, 1 b').get({ a: 1 }))
  for (const method of [
    'setReadBigInts',
    'setReturnArrays',
    'setAllowBareNamedParameters',
    'setAllowUnknownNamedParameters',
  ] as const) {
    for (const value of [1, 0, null, undefined, 'true', {}])
      look(`${method} ${value}`, () => statement[method](any(value)))
  }
  for (const option of ['readBigInts', 'returnArrays', 'allowBareNamedParameters', 'allowUnknownNamedParameters']) {
    for (const value of [true, false, undefined])
      look(`prepare ${option} ${value}`, () => db.prepare('SELECT $a a, 1 b', any({ [option]: value })).get({ $a: 1 }))
    for (const value of [1, null, 'true', {}])
      look(`prepare ${option} ${value}`, () => db.prepare('SELECT 1', any({ [option]: value })))
  }
  for (const options of [1, null, 'a', true]) look(`prepare ${options}`, () => db.prepare('SELECT 1', any(options)))
  look('prepare undefined', () => db.prepare('SELECT 1', undefined).get())
})

same('what a failed call has bound', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  const calls: [string, unknown[]][] = [
    ['SELECT 1', [1]],
    ['SELECT ?, ?', [1, 2, 3]],
    ['SELECT ?, ?, ?', [1, {}, 3]],
    ['SELECT ?, ?, ?', [1, 2n ** 63n, 3]],
    ['SELECT $a, $b, $c, ?', [{ c: 1, a: 2, b: Symbol('s') }, 4]],
    ['SELECT $a, $b, $c, ?', [{ c: 1, b: 2n ** 64n, a: 3 }, 4]],
    ['SELECT $a, $b, $c, ?', [{ c: 1, nope: 2, a: 3 }, 4]],
    ['SELECT $a, ?, $c', [{ c: 1, a: 3 }, {}]],
    ['SELECT $a, ?, $c', [{ c: 1, a: 3 }, 2n ** 63n]],
    ['SELECT $a, ?, $c', [{ c: 1, a: 3 }, 4, 5]],
  ]
  for (const [sql, values] of calls) {
    const statement = db.prepare(sql)
    look(sql, () => statement.get(...(any(values) as never[])))
    look('expanded', () => statement.expandedSQL)
    look('the next call', () => statement.get())
    look('expanded again', () => statement.expandedSQL)
  }
})
