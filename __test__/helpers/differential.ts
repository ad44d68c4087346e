// Runs the same probe on node:sqlite and on this package and compares what it saw.

import { inspect } from 'node:util'
import * as node from 'node:sqlite'
import test from 'ava'
import * as ours from '../../index.js'

export type Api = Pick<typeof node, 'DatabaseSync' | 'StatementSync' | 'constants'>
export type Look = (label: string, look: () => unknown) => void

interface Failure {
  name?: string
  message?: string
  code?: string
  errcode?: number
  errstr?: string
}

/** What `probe` sees of `api`: each value with its prototype and key order, each error in full. */
export function observe(api: Api, probe: (api: Api, look: Look) => void): string[] {
  const seen: string[] = []
  const show = (value: unknown) => inspect(value, { depth: 9, maxStringLength: 200, breakLength: Infinity })
  probe(api, (label, look) => {
    try {
      seen.push(`${label}: ${show(look())}`)
    } catch (error) {
      const { name, message, code, errcode, errstr } = error as Failure
      const keys = Object.keys(error as object)
      seen.push(`${label}: throws ${show({ name, message, code, errcode, errstr, keys })}`)
    }
  })
  return seen
}

/** A test that passes if `probe` sees the same of both. */
export function same(title: string, probe: (api: Api, look: Look) => void): void {
  test(`as node:sqlite: ${title}`, (t) => {
    const expected = observe(node, probe)
    t.true(expected.length > 0)
    const actual = observe(ours as unknown as Api, probe)
    t.is(actual.length, expected.length)
    const differs = (_: string, index: number) => actual[index] !== expected[index]
    t.deepEqual(actual.filter(differs), expected.filter(differs))
  })
}
