// Checked by tsc, never run: what is written against @types/node's node:sqlite compiles with this
// package.

import { on, once, setMaxListeners } from 'node:events'
import type * as node from 'node:sqlite'
import * as ours from '../../index.js'

/** Compiles if `From` can be used wherever `To` is asked for. */
type Assignable<From extends To, To> = [From, To]

/** Of @types/node's database what is here, with what leads back to a database made ours. */
type NodeDatabase = Omit<node.DatabaseSync, 'prepare' | 'createTagStore'>
type NodeTagStore = Omit<node.SQLTagStore, 'db'>

/** What is given to the package: as @types/node has it, it is accepted. */
export type Given = [
  Assignable<node.SQLInputValue, ours.SQLInputValue>,
  Assignable<node.DatabaseSyncOptions, ours.DatabaseSyncOptions>,
  Assignable<node.PrepareOptions, ours.StatementOptions>,
  Assignable<node.CreateSessionOptions, ours.CreateSessionOptions>,
  Assignable<node.ApplyChangesetOptions, ours.ApplyChangesetOptions>,
  Assignable<node.DeserializeOptions, ours.DeserializeOptions>,
  Assignable<node.BackupOptions, ours.BackupOptions>,
  Assignable<ConstructorParameters<typeof node.DatabaseSync>[0], ConstructorParameters<typeof ours.DatabaseSync>[0]>,
  Assignable<Parameters<typeof node.backup>[1], Parameters<typeof ours.backup>[1]>,
  Assignable<Parameters<node.StatementSync['run']>, Parameters<ours.StatementSync['run']>>,
]

/** What is got of the package: it can be used as what @types/node has. */
export type Got = [
  Assignable<ours.SQLOutputValue, node.SQLOutputValue>,
  Assignable<ours.Row, Record<string, node.SQLOutputValue>>,
  Assignable<ours.RunResult, node.StatementResultingChanges>,
  Assignable<ours.StatementColumn, node.StatementColumnMetadata>,
  Assignable<ours.BackupProgressInfo, node.BackupProgressInfo>,
  Assignable<ours.Session, node.Session>,
  Assignable<ours.StatementSync, Pick<node.StatementSync, keyof node.StatementSync>>,
  Assignable<ours.SQLTagStore, NodeTagStore>,
  Assignable<ours.DatabaseSync, NodeDatabase>,
  Assignable<ReturnType<typeof ours.backup>, ReturnType<typeof node.backup>>,
  Assignable<keyof NodeDatabase, keyof ours.DatabaseSync>,
]

/** And the other way round, where this package adds nothing. */
export type Same = [
  Assignable<node.SQLOutputValue, ours.SQLOutputValue>,
  Assignable<node.StatementResultingChanges, ours.RunResult>,
  Assignable<node.StatementColumnMetadata, ours.StatementColumn>,
  Assignable<ours.StatementOptions, node.PrepareOptions>,
  Assignable<ours.CreateSessionOptions, node.CreateSessionOptions>,
  Assignable<ours.ApplyChangesetOptions, node.ApplyChangesetOptions>,
  Assignable<ours.DeserializeOptions, node.DeserializeOptions>,
  Assignable<ours.BackupOptions, node.BackupOptions>,
]

/** Names of types, too, as a program imports them. */
export type Names = [
  ours.PrepareOptions,
  ours.StatementColumnMetadata,
  ours.StatementResultingChanges,
  ours.SQLInputValue,
  ours.SQLOutputValue,
]

/** A store as it is written against node:sqlite; only the import differs. */
export function program(path: string | Buffer | URL): (string | number)[] {
  const options: node.DatabaseSyncOptions = { open: true, readBigInts: false, timeout: 100 }
  using db = new ours.DatabaseSync(path, { ...options, limits: undefined } as ours.DatabaseSyncOptions)
  const insert: ours.StatementSync = db.prepare('INSERT INTO t VALUES ($a, ?)', { returnArrays: false })
  const values: Record<string, node.SQLInputValue> = { $a: 1n, $b: null, $c: new Uint8Array(1) }
  const { changes }: node.StatementResultingChanges = insert.run(values, Buffer.from('a'))
  const row: Record<string, node.SQLOutputValue> | undefined = insert.get(values)
  const rows = insert.all() as unknown as { a: string }[]
  const seen: (string | number)[] = rows.map(({ a }) => a)
  for (const each of insert.iterate(1, 'b', null)) seen.push(Object.keys(each).length)
  const iterator: NodeJS.Iterator<Record<string, node.SQLOutputValue>> = insert.iterate()
  const session: node.Session = db.createSession({ table: 't' })
  db.applyChangeset(session.changeset(), { filter: (table) => table === 't', onConflict: () => 0 })
  const sql = db.createTagStore(10)
  seen.push(Number(sql.run`DELETE FROM t WHERE a = ${1}`.changes), Number(changes), row === undefined ? 0 : 1)
  seen.push(iterator.next().done ? 1 : 0, db.location() ?? '')
  return seen
}

/** Node's functions on emitters take a HardenedDatabase; its own events are known by name. */
export async function emitters(db: ours.HardenedDatabase): Promise<void> {
  const [result] = (await once(db, 'checkpoint')) as ours.HardenedDatabaseEvents['checkpoint']
  db.on('checkpoint', ({ busy }) => void busy).prependListener('error', ({ path }) => void path)
  db.once('of the program', (anything: number) => void anything)
  setMaxListeners(1, db)
  const emitter: NodeJS.EventEmitter = db
  emitter.emit('checkpoint', result)
  for await (const [health] of on(db, 'check')) return void health
}

/** What is written for node:sqlite's options is accepted by the hardened class, too. */
export type OneImport = Assignable<node.DatabaseSyncOptions, ours.HardenedDatabaseOptions>
