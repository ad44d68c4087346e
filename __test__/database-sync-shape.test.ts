// The classes look as node:sqlite's do, for what this package has of them.

import { createRequire } from 'node:module'
import test from 'ava'
import { type Api, same } from './helpers/differential.ts'

const require = createRequire(import.meta.url)
const redirected = require('../lib/node-sqlite.js') as Api

same('members', ({ DatabaseSync, StatementSync, Session, backup }, look) => {
  const attributes = (object: object, key: PropertyKey) => {
    const { value, ...rest } = Object.getOwnPropertyDescriptor(object, key)!
    return {
      ...rest,
      name: key === Symbol.dispose ? '' : value.name,
      length: value.length,
      constructs: 'prototype' in value,
    }
  }
  for (const key of [
    'open',
    'close',
    'prepare',
    'exec',
    'location',
    'createSession',
    'applyChangeset',
    'serialize',
    'deserialize',
    'createTagStore',
    'constructor',
    Symbol.dispose,
  ]) {
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
  for (const key of ['changeset', 'patchset', 'close', 'constructor', Symbol.dispose]) {
    look(`Session ${String(key)}`, () => attributes(Session.prototype, key))
  }
  const store = new DatabaseSync(':memory:').createTagStore()
  const prototype = Object.getPrototypeOf(store) as object
  look('tag store', () => [Reflect.ownKeys(store).toSorted(), store.constructor.name])
  for (const key of ['get', 'all', 'iterate', 'run', 'clear', 'constructor']) {
    look(`tag store ${key}`, () => attributes(prototype, key))
  }
  for (const key of ['capacity', 'db', 'size']) {
    look(`tag store ${key}`, () => {
      const { get, ...rest } = Object.getOwnPropertyDescriptor(store, key)!
      return [get!.name, get!.length, rest]
    })
  }
  look('backup', () => [backup.name, backup.length])
  look('classes', () => [
    DatabaseSync.name,
    DatabaseSync.length,
    StatementSync.name,
    StatementSync.length,
    Session.name,
    Session.length,
  ])
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

test('nothing of this Node is missing', (t) => {
  const names = (object: object) => Reflect.ownKeys(object).filter((key) => key !== 'arguments' && key !== 'caller')
  const classes = (api: Api) => {
    const db = new api.DatabaseSync(':memory:')
    const store = Object.getPrototypeOf(db.createTagStore()) as object
    const iterator = Object.getPrototypeOf(db.prepare('SELECT 1').iterate()) as object
    return {
      exports: names(api),
      database: names(db),
      limits: names(db.limits),
      constants: names(api.constants),
      DatabaseSync: [...names(api.DatabaseSync), ...names(api.DatabaseSync.prototype)],
      StatementSync: [...names(api.StatementSync), ...names(api.StatementSync.prototype)],
      Session: [...names(api.Session), ...names(api.Session.prototype)],
      SQLTagStore: [...names(store), ...names(store.constructor)],
      iterator: [...names(iterator), ...names(iterator.constructor)],
    }
  }
  const here = classes(redirected)
  for (const [what, expected] of Object.entries(classes(require('node:sqlite') as Api))) {
    const found = here[what as keyof typeof here]
    t.deepEqual(
      expected.filter((name) => !found.includes(name)),
      [],
      what,
    )
  }
})
