// Limits, as node:sqlite has them.

import test from 'ava'
import { DatabaseSync as Database } from '../index.js'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

const NAMES = [
  'length',
  'sqlLength',
  'column',
  'exprDepth',
  'compoundSelect',
  'vdbeOp',
  'functionArg',
  'attach',
] as const
const VALUES: unknown[] = [-1, 0, 1, 1.5, -0, NaN, Infinity, -Infinity, '5', null, undefined, true, 5n, {}, Symbol('s')]
VALUES.push(2 ** 31, 2 ** 31 - 1, -(2 ** 31), 2 ** 32, 100)

same('the option', ({ DatabaseSync }, look) => {
  const made = (limits: unknown) => ({ ...new DatabaseSync(':memory:', { limits: any(limits) }).limits })
  for (const value of [1, null, undefined, 'a', [], {}, () => 1, { unknown: 1 }]) look(typeof value, () => made(value))
  VALUES.forEach((value, index) => {
    for (const name of ['length', 'attach', 'triggerDepth']) look(`${name}, ${index}`, () => made({ [name]: value }))
  })
  for (const proxied of ['limits', 'options']) {
    look(`order of ${proxied}`, () => {
      const seen: unknown[] = []
      const log = new Proxy({}, { get: (_, key) => void seen.push(key) })
      const db = new DatabaseSync(':memory:', any(proxied === 'limits' ? { limits: log } : log))
      return [db.isOpen, seen]
    })
  }
  look('not opened, wrong', () => new DatabaseSync(':memory:', { open: false, limits: { length: -1 } }))
  look('not opened', () => new DatabaseSync(':memory:', { open: false, limits: { length: 50 } }).limits)
  look('effect', () => new DatabaseSync(':memory:', { limits: { column: 2 } }).exec('CREATE TABLE t (a, b, c)'))
})

same('setting', ({ DatabaseSync }, look) => {
  for (const name of NAMES) {
    VALUES.forEach((value, index) => {
      const db = new DatabaseSync(':memory:')
      look(`${name}, ${index}`, () => [(db.limits[name] = any(value)), db.limits[name]])
    })
  }
  const db = new DatabaseSync(':memory:')
  const statement = db.prepare('SELECT 1, 2, 3')
  db.limits.column = 2
  look('prepared before', () => statement.get())
  look('the same text', () => db.prepare('SELECT 1, 2, 3').get())
  db.limits.column = Infinity
  look('the same text again', () => db.prepare('SELECT 1, 2, 3').get())
})

same('the object', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:', { limits: { length: 500 } })
  const { limits } = db
  look('identity', () => db.limits === limits)
  look('shape', () => limits)
  look('property', () => {
    const { get, ...rest } = Object.getOwnPropertyDescriptor(db, 'limits')!
    return [typeof get, rest]
  })
  look('descriptor', () => Object.getOwnPropertyDescriptor(limits, 'column'))
  look('prototype', () => {
    const prototype = Object.getPrototypeOf(limits)
    const { value, ...rest } = Object.getOwnPropertyDescriptor(prototype, 'constructor')!
    return [Reflect.ownKeys(prototype), value.name, rest, Object.getPrototypeOf(prototype) === Object.prototype]
  })
  look('has', () => ['length' in limits, 'other' in limits, 'toString' in limits, any(limits)['other']])
  look('define', () => [Reflect.defineProperty(limits, 'column', { value: 55 }), limits.column])
  look('define an accessor', () => [Reflect.defineProperty(limits, 'column', { get: () => 3 }), limits.column])
  look('another property', () => [Reflect.set(limits, 'other', 1), any(limits)['other'], Object.keys(limits)])
  look('JSON', () => JSON.stringify(limits))
  look('spread', () => ({ ...limits }))
  look('extensible', () => Object.isExtensible(limits))
  look('read-only', () => Reflect.set(db, 'limits', 1))
  db.limits.length = 700
  db.close()
  look('closed', () => db.limits)
  look('read', () => limits.length)
  look('write', () => (limits.length = 5))
  look('write, wrong', () => (limits.length = -5))
  look('keys', () => Object.keys(limits))
  db.open()
  look('reopened', () => [db.limits === limits, limits.length, limits.column])
})

test('the constructor of the limits constructs nothing', (t) => {
  const { limits } = new Database(':memory:')
  const Limits = limits.constructor as unknown as new () => unknown
  t.throws(() => new Limits(), { code: 'ERR_ILLEGAL_CONSTRUCTOR' })
  t.throws(() => (Limits as unknown as () => void)(), { code: 'ERR_ILLEGAL_CONSTRUCTOR' })
  t.is((Object.create(limits) as typeof limits).column, 2000)
  t.throws(() => Object.freeze(limits), { instanceOf: TypeError })
})
