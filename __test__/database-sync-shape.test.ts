// The classes look as node:sqlite's do, for what this package has of them.

import { same } from './helpers/differential.ts'

same('members', ({ DatabaseSync, StatementSync }, look) => {
  const attributes = (object: object, key: PropertyKey) => {
    const { value, ...rest } = Object.getOwnPropertyDescriptor(object, key)!
    return {
      ...rest,
      name: key === Symbol.dispose ? '' : value.name,
      length: value.length,
      constructs: 'prototype' in value,
    }
  }
  for (const key of ['open', 'close', 'prepare', 'exec', 'location', 'constructor', Symbol.dispose]) {
    look(String(key), () => attributes(DatabaseSync.prototype, key))
  }
  for (const key of [
    'iterate',
    'all',
    'get',
    'run',
    'columns',
    'setAllowBareNamedParameters',
    'setAllowUnknownNamedParameters',
    'setReadBigInts',
    'setReturnArrays',
    'constructor',
  ]) {
    look(key, () => attributes(StatementSync.prototype, key))
  }
  look('classes', () => [DatabaseSync.name, DatabaseSync.length, StatementSync.name, StatementSync.length])
})

same('properties of a database', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  for (const key of ['isOpen', 'isTransaction', Symbol.for('sqlite-type')]) {
    look(String(key), () => {
      const { get, ...rest } = Object.getOwnPropertyDescriptor(db, key)!
      return [typeof get, rest]
    })
  }
  look('tag', () => Object.prototype.toString.call(db))
  look('read-only', () => Reflect.set(db, 'isOpen', false))
  look('instanceof', () => [
    db instanceof DatabaseSync,
    db.constructor === DatabaseSync,
    db.prepare('SELECT 1').constructor.name,
  ])
})
