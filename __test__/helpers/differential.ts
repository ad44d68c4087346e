// Runs the same probe on node:sqlite and on this package and compares what it saw.

import { inspect } from 'node:util'
import * as node from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import * as ours from '../../index.js'

/** @types/node does not know that Session is a value, too. */
export type Api = Pick<typeof node, 'DatabaseSync' | 'StatementSync' | 'backup' | 'constants'> & {
  Session: { prototype: node.Session; name: string; length: number }
}
export type Look = (label: string, look: () => unknown) => void
export type LookAsync = (label: string, look: () => unknown) => Promise<void>

interface Failure {
  name?: string
  message?: string
  code?: string
  errcode?: number
  errstr?: string
}

export const show = (value: unknown) => inspect(value, { depth: 9, maxStringLength: 200, breakLength: Infinity })

export function failure(error: unknown): string {
  if (typeof error !== 'object' || error === null) return `throws the value ${show(error)}`
  const { name, message, code, errcode, errstr } = error as Failure
  return `throws ${show({ name, message, code, errcode, errstr, keys: Object.keys(error) })}`
}

/** What `probe` sees of `api`: each value with its prototype and key order, each error in full. */
export function observe(api: Api, probe: (api: Api, look: Look) => void): string[] {
  const seen: string[] = []
  probe(api, (label, look) => {
    try {
      seen.push(`${label}: ${show(look())}`)
    } catch (error) {
      seen.push(`${label}: ${failure(error)}`)
    }
  })
  return seen
}

async function observeAsync(api: Api, probe: (api: Api, look: LookAsync) => Promise<void>): Promise<string[]> {
  const seen: string[] = []
  await probe(api, async (label, look) => {
    let when = 'at once'
    try {
      const promise = look()
      when = 'later'
      seen.push(`${label}: ${show(await promise)}`)
    } catch (error) {
      seen.push(`${label}: ${when} ${failure(error)}`)
    }
  })
  return seen
}

/** A test that passes if `probe` sees the same of both. */
export function same(title: string, probe: (api: Api, look: Look) => void): void {
  test(`as node:sqlite: ${title}`, (t) => {
    compare(t, observe(node as unknown as Api, probe), observe(ours as unknown as Api, probe))
  })
}

/** The same for what answers later: also whether an error was thrown at once or later. */
export function sameAsync(title: string, probe: (api: Api, look: LookAsync) => Promise<void>): void {
  test(`as node:sqlite: ${title}`, async (t) => {
    compare(t, await observeAsync(node as unknown as Api, probe), await observeAsync(ours as unknown as Api, probe))
  })
}

function compare(t: ExecutionContext, expected: string[], actual: string[]): void {
  t.true(expected.length > 0)
  t.is(actual.length, expected.length)
  const differs = (_: string, index: number) => actual[index] !== expected[index]
  t.deepEqual(actual.filter(differs), expected.filter(differs))
}
