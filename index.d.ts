/**
 * `DatabaseSync` with node:sqlite's names and behaviour, on this package's own SQLite.
 *
 * Errors of SQLite are `Error`s with `code: 'ERR_SQLITE_ERROR'`, `errcode` (SQLite's extended
 * result code) and `errstr` (SQLite's text for it).
 */

/** What a parameter can be. Numbers are stored as REAL unless the column's affinity converts them. */
export type SQLInputValue =
  null | number | bigint | boolean | string | NodeJS.ArrayBufferView | ArrayBuffer | SharedArrayBuffer

/** What a column can be: `bigint` only where big integers are asked for. */
export type SQLOutputValue = null | number | bigint | string | Uint8Array<ArrayBuffer>

/** A row: an object without a prototype, or an array where `returnArrays` is set. */
export type Row = Record<string, SQLOutputValue>

/** Parameters by name, with or without the prefix `$`, `@` or `:`. */
export type NamedParameters = Record<string, SQLInputValue>

export interface StatementOptions {
  /** Read integers as `bigint`. Default: that of the database, `false` there. */
  readBigInts?: boolean | undefined
  /** Return rows as arrays. Default: that of the database, `false` there. */
  returnArrays?: boolean | undefined
  /** Allow names without their prefix. Default: that of the database, `true` there. */
  allowBareNamedParameters?: boolean | undefined
  /** Ignore names that the statement does not have. Default: that of the database, `false` there. */
  allowUnknownNamedParameters?: boolean | undefined
}

/** Options of `DatabaseSync.prepare`. */
export interface PrepareOptions extends StatementOptions {
  /**
   * That the statement will be used for long, as SQLite's `SQLITE_PREPARE_PERSISTENT` says. Without an effect: every
   * statement that is kept is prepared so. Node 26.8 and newer throw TypeError for what is no boolean. Default `false`.
   */
  persistent?: boolean | undefined
}

/** What is done when another SQLite of this process has the same file open. */
export type ForeignHandles = 'error' | 'warn' | 'ignore'

export interface DatabaseSyncOptions extends StatementOptions {
  /**
   * What is done when another SQLite of this process (node:sqlite, better-sqlite3, another copy of
   * this package) has the file open already: throw `ERR_FUSION_FOREIGN_SQLITE`, warn once a file
   * (`FusionSqliteWarning`, code `FUSION_FOREIGN_SQLITE`), or nothing. Default `'warn'`.
   */
  foreignHandles?: ForeignHandles | undefined
  /** Open the database in the constructor. Default `true`. */
  open?: boolean | undefined
  /** Open the file for reading only; it must exist. Default `false`. */
  readOnly?: boolean | undefined
  /** Enforce foreign keys. Default `true`. */
  enableForeignKeyConstraints?: boolean | undefined
  /** Take `"text"` for a string where no column has that name. Default `false`. */
  enableDoubleQuotedStringLiterals?: boolean | undefined
  /** Milliseconds that a statement waits for another connection's lock. Default 0. */
  timeout?: number | undefined
  /** Forbid SQL that can damage the file, `PRAGMA writable_schema` say. Default `true`. */
  defensive?: boolean | undefined
  /** Permit `loadExtension()`. Default `false`. */
  allowExtension?: boolean | undefined
  /** Limits of the connection, at most SQLite's own. */
  limits?: { [Name in keyof DatabaseLimits]?: number | undefined } | undefined
}

/** What SQLite limits (sqlite.org/limits.html). `Infinity` sets what it was built for. */
export interface DatabaseLimits {
  /** Bytes of a string, blob or row. */
  length: number
  /** Bytes of a statement's text. */
  sqlLength: number
  column: number
  exprDepth: number
  compoundSelect: number
  vdbeOp: number
  functionArg: number
  attach: number
  likePatternLength: number
  variableNumber: number
  triggerDepth: number
}

export interface FunctionOptions {
  /** Same arguments, same result: the function may be used in indexes. Default `false`. */
  deterministic?: boolean | undefined
  /** Not to be called from the schema: triggers, views, constraints, indexes. Default `false`. */
  directOnly?: boolean | undefined
  /** Hand integers over as `bigint`. Default `false`: those beyond 2^53 - 1 throw. */
  useBigIntArguments?: boolean | undefined
  /** Take any number of arguments. Default `false`: as many as the function's `length`. */
  varargs?: boolean | undefined
}

export interface AggregateOptions<T extends SQLInputValue = SQLInputValue> extends FunctionOptions {
  /** What a group begins with, or a function that returns it. */
  start: T | (() => T)
  /** Adds a row's arguments to what was accumulated, and returns that. */
  step: (accumulator: T, ...args: SQLOutputValue[]) => T
  /** The result. Default: what was accumulated. */
  result?: ((accumulator: T) => SQLInputValue) | undefined
  /** Takes a row out of the window; makes the aggregate a window function. */
  inverse?: ((accumulator: T, ...args: SQLOutputValue[]) => T) | undefined
}

export class DatabaseSync implements Disposable {
  /**
   * @param path a file, `:memory:`, the empty string (a temporary file), or a `file:` URL
   * @throws TypeError for arguments of the wrong type; an error of SQLite if it cannot be opened
   */
  constructor(path: string | Uint8Array | URL, options?: DatabaseSyncOptions)
  /** Whether the database is open. */
  readonly isOpen: boolean
  /** Whether a transaction is open. Throws `ERR_INVALID_STATE` while the database is not open. */
  readonly isTransaction: boolean
  /** Opens the database. Throws `ERR_INVALID_STATE` if it is open. */
  open(): void
  /**
   * Finalises every statement and closes. Throws `ERR_INVALID_STATE` if it is not open, and in a callback: a function in
   * SQL, the authorizer, a handler of a changeset, a subscriber to `sqlite.db.query`.
   */
  close(): void
  /** Runs every statement of `sql`, up to the first that fails, which is thrown. Rows are ignored. */
  exec(sql: string): void
  /**
   * Prepares the first statement of `sql`. Preparing the same text again is cheap: SQLite's
   * statements are kept, up to 128 for each connection.
   *
   * @throws TypeError `ERR_INVALID_ARG_VALUE` if there is no statement; SQLite's errors
   */
  prepare(sql: string, options?: PrepareOptions): StatementSync
  /**
   * The path of the file behind the database `dbName` (`main` or an attached one's name), or null
   * if it has no file. Default `main`.
   */
  location(dbName?: string): string | null
  /**
   * Records what this connection changes from now on, in tables with a primary key.
   *
   * @throws TypeError; `ERR_INVALID_STATE`
   */
  createSession(options?: CreateSessionOptions): Session
  /**
   * Applies a changeset or patchset, all of it or nothing.
   *
   * @returns false if `onConflict` answered `SQLITE_CHANGESET_ABORT`, as it does by default
   * @throws what the functions throw; an error of SQLite
   */
  applyChangeset(changeset: Uint8Array, options?: ApplyChangesetOptions): boolean
  /** The content of the database `dbName` (default `main`), as it would be in a file. */
  serialize(dbName?: string): Uint8Array<ArrayBuffer>
  /**
   * Replaces a database of this connection by one in memory with the content `buffer`. Every
   * statement is finalised first, also if this fails.
   *
   * @throws TypeError; `ERR_INVALID_STATE` while a statement runs; an error of SQLite
   */
  deserialize(buffer: Uint8Array, options?: DeserializeOptions): void
  /** A cache of up to `maxSize` (default 1000) statements for template literals. */
  createTagStore(maxSize?: number): SQLTagStore
  /**
   * Defines `fn` as SQL function `name`. It may run SQL, but not close the database. What it throws,
   * the statement throws.
   */
  function(name: string, options: FunctionOptions, fn: (...args: SQLOutputValue[]) => SQLInputValue): void
  function(name: string, fn: (...args: SQLOutputValue[]) => SQLInputValue): void
  /** Defines an aggregate function or, with `inverse`, a window function. */
  aggregate(name: string, options: AggregateOptions): void
  aggregate<T extends SQLInputValue>(name: string, options: AggregateOptions<T>): void
  /**
   * Asks `callback` for each action of each statement that is prepared from here on, also of those
   * that exist when they are next run. It answers `SQLITE_OK`, `SQLITE_DENY` or `SQLITE_IGNORE`; while
   * it runs, the database cannot be used. Statements are not kept as long as there is one.
   */
  setAuthorizer(
    callback:
      | ((
          actionCode: number,
          arg1: string | null,
          arg2: string | null,
          dbName: string | null,
          triggerOrView: string | null,
        ) => number)
      | null,
  ): void
  /** Permits or forbids `loadExtension()`. Throws `ERR_INVALID_STATE` without `allowExtension`. */
  enableLoadExtension(allow: boolean): void
  /**
   * Loads a shared library into the connection.
   *
   * @throws `ERR_LOAD_SQLITE_EXTENSION`, or `ERR_INVALID_STATE` where that is forbidden
   */
  loadExtension(path: string, entryPoint?: string): void
  /** Forbids, or permits, SQL that can damage the file. */
  enableDefensive(active: boolean): void
  /** The limits, to read and to set. Throws `ERR_INVALID_STATE` while the database is not open. */
  readonly limits: DatabaseLimits;
  /** Closes the database if it is open. */
  [Symbol.dispose](): void
}

export interface CreateSessionOptions {
  /** The table to record. Default: every table. */
  table?: string | undefined
  /** The database it is in. Default `main`. */
  db?: string | undefined
}

export interface ApplyChangesetOptions {
  /** Whether the changes of a table are applied. Default: of every table. */
  filter?: ((tableName: string) => boolean) | undefined
  /**
   * What becomes of a change that conflicts: one of `SQLITE_CHANGESET_OMIT`, `_REPLACE` and
   * `_ABORT`, the default. Any other answer fails with `errcode` 21.
   */
  onConflict?: ((conflictType: number) => number) | undefined
}

export interface DeserializeOptions {
  /** The database to replace. Default `main`. */
  dbName?: string | undefined
}

/**
 * What a connection changed; made by `DatabaseSync.createSession` only. Every method throws
 * `ERR_INVALID_STATE` once the session or its database is closed.
 */
export class Session {
  private constructor()
  /** The changes so far, with the values from before. */
  changeset(): Uint8Array<ArrayBuffer>
  /** The changes so far, with the values from before of primary keys only. */
  patchset(): Uint8Array<ArrayBuffer>
  /** Ends the recording. Throws `ERR_INVALID_STATE` if it has ended, and in a callback of the database. */
  close(): void
  /** Ends the recording if it has not ended. Throws `ERR_INVALID_STATE` in a callback of the database. */
  [Symbol.dispose](): void
}

/**
 * Statements by template literal, the least recently used of which is dropped when there are more
 * than `capacity`; made by `DatabaseSync.createTagStore` only.
 */
export interface SQLTagStore {
  /** Every row. */
  all(strings: TemplateStringsArray, ...values: SQLInputValue[]): Row[]
  /** The first row, or `undefined`. */
  get(strings: TemplateStringsArray, ...values: SQLInputValue[]): Row | undefined
  /** Rows one by one. */
  iterate(strings: TemplateStringsArray, ...values: SQLInputValue[]): IteratorObject<Row, undefined, any>
  /** Runs to the end. */
  run(strings: TemplateStringsArray, ...values: SQLInputValue[]): RunResult
  /** Forgets the statements. */
  clear(): void
  readonly capacity: number
  readonly db: DatabaseSync
  /** Statements kept at present. */
  readonly size: number
}

export interface BackupProgressInfo {
  totalPages: number
  remainingPages: number
}

export interface BackupOptions {
  /** The database to copy. Default `main`. */
  source?: string | undefined
  /** The database of `path` to overwrite. Default `main`. */
  target?: string | undefined
  /** Pages copied at a time. Default 100. */
  rate?: number | undefined
  /** Called after each time but the last. What it throws rejects the promise. */
  progress?: ((progressInfo: BackupProgressInfo) => void) | undefined
}

/**
 * Copies a database to `path`, off this thread. `path` is opened before this returns, so that a relative one is one of
 * the directory that is current then. The source can be used meanwhile: what its own
 * connection writes is copied, too; what another connection writes makes the backup begin again.
 * Closing the source does not stop it.
 *
 * @returns a promise for the number of pages. It rejects with SQLite's errors; where the source or
 * `path` is locked with "not an error", as in node:sqlite, and the lock's error as its `cause`
 * @throws TypeError, RangeError, `ERR_INVALID_STATE` for the arguments
 */
export function backup(
  sourceDb: DatabaseSync,
  path: string | Uint8Array | URL,
  options?: BackupOptions,
): Promise<number>

/** What a column of a result is made of; null where it is not a table's column. */
export interface StatementColumn {
  column: string | null
  database: string | null
  name: string
  table: string | null
  type: string | null
}

/** As @types/node calls it. */
export type StatementColumnMetadata = StatementColumn

export interface RunResult {
  /** Rows that the last INSERT, UPDATE or DELETE changed; a bigint where `readBigInts` is set. */
  changes: number | bigint
  /** Row id of the last INSERT; a bigint where `readBigInts` is set. */
  lastInsertRowid: number | bigint
}

/** As @types/node calls it. */
export type StatementResultingChanges = RunResult

/**
 * A prepared statement; made by `DatabaseSync.prepare` only. Values of a call are forgotten by the
 * next. After it or the database was closed every method throws `ERR_INVALID_STATE`. So do `all`, `get`, `run`,
 * `iterate`, `close` and the iterator's methods in a callback of this statement's own running call.
 *
 * A parameter may be `undefined` under Node 26.10 and newer, and binds NULL; before it is TypeError
 * `ERR_INVALID_ARG_TYPE`. A text longer than `buffer.constants.MAX_STRING_LENGTH` throws `ERR_STRING_TOO_LONG`.
 */
export class StatementSync {
  private constructor()
  /** The text, up to the end of the statement. */
  readonly sourceSQL: string
  /** The text with the values of the last call in place of the parameters. */
  readonly expandedSQL: string
  /** Every row. Throws `ERR_OUT_OF_RANGE` for an integer beyond 2^53 - 1, unless `readBigInts`. */
  all(...parameters: SQLInputValue[]): Row[]
  all(named: NamedParameters, ...parameters: SQLInputValue[]): Row[]
  /** The first row, or `undefined`. */
  get(...parameters: SQLInputValue[]): Row | undefined
  get(named: NamedParameters, ...parameters: SQLInputValue[]): Row | undefined
  /**
   * Runs to the end. Where a result is no safe integer and `readBigInts` is not set, Node 26.8 and newer throw
   * `ERR_OUT_OF_RANGE`, after the statement has run; before, it is rounded.
   */
  run(...parameters: SQLInputValue[]): RunResult
  run(named: NamedParameters, ...parameters: SQLInputValue[]): RunResult
  /** Rows one by one. Another call of this statement invalidates the iterator. */
  iterate(...parameters: SQLInputValue[]): IteratorObject<Row, undefined, any>
  iterate(named: NamedParameters, ...parameters: SQLInputValue[]): IteratorObject<Row, undefined, any>
  /** The columns of the result; none for a statement without one. */
  columns(): StatementColumn[]
  setAllowBareNamedParameters(enabled: boolean): void
  setAllowUnknownNamedParameters(enabled: boolean): void
  setReadBigInts(enabled: boolean): void
  setReturnArrays(enabled: boolean): void
  /** Gives up what the statement holds, in the middle of an iteration, too. node:sqlite has it since 24.22 and 26.8. */
  close(): void
  /** The same; does nothing if it or its database is closed. node:sqlite has it since 24.22 and 26.8. */
  [Symbol.dispose](): void
  /**
   * A counter of what this statement has done (sqlite.org/c3ref/c_stmtstatus_counter.html): a count; `memused` is in
   * bytes. node:sqlite has it since 26.8. Statements with the same text share one of SQLite's until the first call of
   * `stat` or `resetStats` in a thread: counts from before that of several are those of all.
   *
   * @throws TypeError `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE` for another name
   */
  stat(counter: StatementCounter): number
  /** Has each counter but `memused` start at 0. node:sqlite has it since 26.8. */
  resetStats(): void
}

/** What `StatementSync.stat` counts. */
export type StatementCounter =
  'fullscanStep' | 'sort' | 'autoindex' | 'vmStep' | 'reprepare' | 'run' | 'filterMiss' | 'filterHit' | 'memused'

/**
 * What the diagnostics channel `sqlite.db.query` (`node:diagnostics_channel`) publishes for each statement that a
 * `DatabaseSync` has run, when the call that ran it returns. node:sqlite has it since 24.22 and 26.8.
 */
export interface QueryMessage {
  /** The text, with the values in place of the parameters. */
  sql: string
  database: DatabaseSync
  /** Nanoseconds, in steps of a millisecond. */
  duration: number
}

/** What authorizers and conflict handlers of changesets get as arguments, and return. */
export declare const constants: {
  readonly SQLITE_CHANGESET_OMIT: number
  readonly SQLITE_CHANGESET_REPLACE: number
  readonly SQLITE_CHANGESET_ABORT: number
  readonly SQLITE_CHANGESET_DATA: number
  readonly SQLITE_CHANGESET_NOTFOUND: number
  readonly SQLITE_CHANGESET_CONFLICT: number
  readonly SQLITE_CHANGESET_CONSTRAINT: number
  readonly SQLITE_CHANGESET_FOREIGN_KEY: number
  readonly SQLITE_OK: number
  readonly SQLITE_DENY: number
  readonly SQLITE_IGNORE: number
  readonly SQLITE_CREATE_INDEX: number
  readonly SQLITE_CREATE_TABLE: number
  readonly SQLITE_CREATE_TEMP_INDEX: number
  readonly SQLITE_CREATE_TEMP_TABLE: number
  readonly SQLITE_CREATE_TEMP_TRIGGER: number
  readonly SQLITE_CREATE_TEMP_VIEW: number
  readonly SQLITE_CREATE_TRIGGER: number
  readonly SQLITE_CREATE_VIEW: number
  readonly SQLITE_DELETE: number
  readonly SQLITE_DROP_INDEX: number
  readonly SQLITE_DROP_TABLE: number
  readonly SQLITE_DROP_TEMP_INDEX: number
  readonly SQLITE_DROP_TEMP_TABLE: number
  readonly SQLITE_DROP_TEMP_TRIGGER: number
  readonly SQLITE_DROP_TEMP_VIEW: number
  readonly SQLITE_DROP_TRIGGER: number
  readonly SQLITE_DROP_VIEW: number
  readonly SQLITE_INSERT: number
  readonly SQLITE_PRAGMA: number
  readonly SQLITE_READ: number
  readonly SQLITE_SELECT: number
  readonly SQLITE_TRANSACTION: number
  readonly SQLITE_UPDATE: number
  readonly SQLITE_ATTACH: number
  readonly SQLITE_DETACH: number
  readonly SQLITE_ALTER_TABLE: number
  readonly SQLITE_REINDEX: number
  readonly SQLITE_ANALYZE: number
  readonly SQLITE_CREATE_VTABLE: number
  readonly SQLITE_DROP_VTABLE: number
  readonly SQLITE_FUNCTION: number
  readonly SQLITE_SAVEPOINT: number
  readonly SQLITE_COPY: number
  readonly SQLITE_RECURSIVE: number
}

/** Kinds of log rows that Fusion writes today; others are accepted. */
export type AgentLogType = 'text' | 'thinking' | 'tool' | 'tool_result' | 'tool_error' | (string & {})

/** A value of a column that the option `columns` names, bound as `node:sqlite` binds it. */
export type AgentLogValue = string | number | bigint | null | undefined

/**
 * One row of `agentLogEntries`. A key of its own that is neither listed here nor named by the option
 * `columns` is refused with a TypeError, unless its value is undefined.
 */
export interface AgentLogEntry {
  /** Id of a row in `tasks`, where the table refers to that. Not empty. */
  taskId: string
  /** Lone surrogates are stored as U+FFFD, as by node:sqlite; NUL is kept. */
  text: string
  type: AgentLogType
  /** ISO-8601. Default: the time of the call. */
  timestamp?: string | undefined
  /** Default: NULL. */
  detail?: string | null | undefined
  /** Default: NULL. */
  agent?: string | null | undefined
}

/** The same with values for columns that the option `columns` names. Undefined is NULL. */
export type AgentLogEntryWith<Columns extends string> = AgentLogEntry & { [Column in Columns]?: AgentLogValue }

/** An entry that was handed back. */
export interface PendingAgentLogEntry {
  /** Of columns that the option `columns` names. */
  [column: string]: string | number | bigint | null
  taskId: string
  timestamp: string
  text: string
  type: string
  detail: string | null
  agent: string | null
}

/** A row that could not be stored, of a call whose other rows were. */
export interface RejectedEntry {
  /** Index in the array that was given. */
  index: number
  /** `ERR_SQLITE_ERROR` */
  code: string
  /** SQLite's extended result code: 787 where the task does not exist, or no longer exists. */
  errcode: number
  message: string
}

/** What became of the entries of one call. */
export interface AppendReceipt {
  /** Rows committed. */
  committed: number
  /** Rows rejected, each alone. */
  rejected: RejectedEntry[]
  /** Smallest `id` given; null if no row was committed. */
  firstId: number | null
  /** Largest `id` given. */
  lastId: number | null
}

/** An error of this package: an `Error` with what a program and a person need. */
export interface FusionSqliteError extends Error {
  /** `ERR_SQLITE_ERROR`, or one of the `ERR_FUSION_…` codes that docs/errors.md lists. */
  code: string
  /** SQLite's extended result code, where SQLite reported the error. */
  errcode?: number
  /** SQLite's text for `errcode`. */
  errstr?: string
  /** The database file. */
  path?: string
  /**
   * Why the system refused it, where that is known: by the system's own error, and by what it answers
   * about the files. The message says it in a sentence, with what to do. Not set by `DatabaseSync`,
   * whose errors are those of `node:sqlite`.
   */
  reason?:
    | 'diskFull'
    | 'quota'
    | 'noInodes'
    | 'fileTooLarge'
    | 'noDescriptors'
    | 'readOnlyFileSystem'
    | 'noPermission'
    | 'refused'
    | 'openedReadOnly'
    | 'immutable'
    | 'pathTooLong'
    | 'noDirectory'
    | 'notADirectory'
    | 'isADirectory'
    | 'noFile'
    | 'noTemporaryDirectory'
    | 'io'
  /** The number of the system's error behind `reason`, negative as Node's, and its name (`ENOSPC`). */
  errno?: number
  /** See `errno`. */
  system?: string
  /**
   * On `ERR_FUSION_DAMAGED`: what is wrong with the database. On `ERR_FUSION_BACKUP_DAMAGED`: the
   * same, or what is wrong with the backup.
   */
  health?: Health | null
  /**
   * On `ERR_FUSION_LOSS`, and on `ERR_FUSION_DAMAGED` and the event `corrupt` after it: what the
   * repair lacks that SQLite can read of the damaged file. Not set otherwise.
   */
  comparison?: RecoveryComparison
  /** On a rejected append: what had been committed before. The rest is kept; see `takePending`. */
  receipt?: AppendReceipt
}

export type CheckpointMode = 'passive' | 'full' | 'restart' | 'truncate'

/** What a checkpoint did. */
export interface CheckpointResult {
  mode: CheckpointMode
  /** A reader, a writer or another checkpointer prevented it from completing. */
  busy: boolean
  /** Frames in the WAL afterwards. */
  frames: number
  /** How many of them are in the database file. */
  backfilled: number
}

/** A distribution of durations in milliseconds, to a quarter of an octave. */
export interface Latencies {
  p50: number
  p99: number
  max: number
}

/** Figures of a file's log, since its writer was started. */
export interface DatabaseStats {
  /** `retrying`: attempts fail, see `error`; `stopped`: for good, see `takePending`. */
  state: 'writing' | 'retrying' | 'stopped'
  error: FusionSqliteError | null
  /** Accepted and not committed; `refused` counts appends that found the queue full. */
  queue: { rows: number; bytes: number; limitBytes: number; refused: number }
  /** Transactions committed. */
  batches: number
  rows: number
  rejected: number
  takenBack: number
  /** Bytes of the committed rows' values. */
  bytes: number
  /** Attempts that met a lock; attempts that met another failure. */
  retries: number
  failures: number
  /** How often connections of this process to the file were wedged, and work again. */
  healed: number
  /** BEGIN to COMMIT. */
  commitMs: Latencies
  /** Acceptance to COMMIT, of the oldest row of a group. */
  appendMs: Latencies
  wal: { frames: number; backfilled: number; bytes: number; peakBytes: number }
  checkpoints: {
    passive: number
    full: number
    restart: number
    truncate: number
    /** Prevented by a reader, a writer or another checkpointer; since when without a success. */
    busy: number
    busySince: Date | null
    failed: number
  }
  /** What was found last in the file, by whichever check; null if none was made since it was opened. */
  health: Health | null
}

/** How an operation on a thread of its own is watched and ended. */
export interface TaskOptions {
  /** Ends it early: the promise rejects with the signal's reason, and nothing was changed. */
  signal?: AbortSignal | undefined
  /** Milliseconds after which it ends with `ERR_FUSION_DEADLINE`. Default 0: none. */
  deadline?: number | undefined
  /** Called now and then with how far it is; `total` is 0 where that is not known. */
  progress?: ((stage: { stage: string; done: number; total: number }) => void) | undefined
}

/**
 * How thorough a check is. `quick`: every page, and every record's form. `full`: indexes against
 * their tables, too, full-text indexes against their text, and foreign keys. Of a table whose
 * statements call a function, or name a collation, that only the application knows, either looks at
 * every page and record, and compares nothing.
 */
export type CheckKind = 'quick' | 'full'

export interface CheckOptions extends TaskOptions {
  /** Default `'full'`. */
  kind?: CheckKind | undefined
}

/** One thing that is wrong, with SQLite's own lines about it, at most 100. */
export type Finding =
  /**
   * An index disagrees with its table, or is damaged itself; the table is not. `needsApplication`:
   * REINDEX calls a function, or compares by a collation, that only the application has, so that
   * nothing here can rebuild the index: run REINDEX on a connection that has it.
   */
  | {
      type: 'indexDamage'
      index: string
      table: string
      needsApplication: boolean
      pages: number[]
      lines: string[]
    }
  /**
   * A full-text index is damaged: its module's own check, or a statement, fails with SQLite's code
   * 267. The file, and the rows it is of, are not. `leftOut`: rows of its content that the index
   * leaves out, perhaps on purpose; null if that is not known. Unasked, an index is rebuilt only
   * where that is 0.
   */
  | { type: 'ftsDamage'; table: string; leftOut: number | null; lines: string[] }
  /**
   * A full-text index over another table's text is sound, but not up to date: it has entries of
   * `gone` deleted rows, or of rows whose text has changed since. No damage: the index is rebuilt
   * when a statement fails because of it (code 267) and no row is left out, or by `recover()`.
   * `leftOut` as for `ftsDamage`. Only a full check looks for it.
   */
  | { type: 'ftsStale'; table: string; gone: number; leftOut: number | null; lines: string[] }
  /** Rows whose foreign key refers to a missing row. No damage. */
  | { type: 'foreignKeyViolations'; table: string; parent: string; rows: number; rowids: number[] }
  /** Rows that their own table's constraints forbid. No damage. */
  | { type: 'constraintViolations'; table: string; lines: string[] }
  /** The list of free pages, or the pointer map of an auto-vacuum file, is damaged. */
  | { type: 'freelist'; pages: number[]; lines: string[] }
  /** A table lost rows. `sqlite_schema` is a table, too. */
  | { type: 'tableDamage'; table: string; pages: number[]; lines: string[] }
  /** The first page, or the schema, makes no sense. */
  | { type: 'header'; lines: string[] }
  /** The `-wal` is another file's: without it the database is sound. */
  | { type: 'staleWal'; bytes: number; lines: string[] }
  /** Sound without the `-wal`, damaged with it, and no proof that it is another file's: nothing is done unasked. */
  | { type: 'unclearWal'; bytes: number; lines: string[] }
  /** The disk failed every read of these pages. Only in the report of `recover()`: a check throws `SQLITE_IOERR`. */
  | { type: 'unreadable'; pages: number[]; lines: string[] }
  /** The `-wal` was deleted, and commits with it: in so many pages, null if unknown. No damage. Reported once. */
  | { type: 'walDeleted'; frames: number | null }
  /**
   * A transaction was cut off and left its rollback journal of so many bytes, `<path>-journal`. The next connection
   * that may write puts `changedPages` back. No damage: what else was found is of the database as it is after that.
   * A check does not change it, a repair begins with rolling it back.
   */
  | { type: 'hotJournal'; bytes: number; changedPages: number }
  /** A `-wal`, `-shm` or `-journal` that this user may not use, although the database may be: no damage. */
  | { type: 'refusedFile'; file: string; lines: string[] }
  /** The file was cut short. */
  | { type: 'truncated'; missingPages: number; lines: string[] }
  /** This process has another file open by the same path. */
  | { type: 'replaced'; lines: string[] }
  /**
   * No SQLite database. `wasDatabase`: something of one is in the file or next to it (a part of its header, a page with
   * rows, its `-wal`, its `-journal`, the saved copy of its schema), so that its first page was overwritten; without it
   * there is nothing to repair.
   */
  | { type: 'notADatabase'; wasDatabase: boolean; lines: string[] }
  /** Another connection held the file for five seconds: nothing is known of it. No damage. */
  | { type: 'locked'; lines: string[] }

/** What a check found. */
export interface Health {
  path: string
  kind: CheckKind
  /** The file was checked, and nothing was found that is damage. */
  ok: boolean
  findings: Finding[]
  /** Pages, and bytes a page; 0 where that is not known. */
  pages: number
  pageSize: number
  elapsedMs: number
  /** The findings, for a person. Empty without findings. */
  text: string
}

export interface RecoverOptions extends TaskOptions {
  /** Backups, newest first. Default: `<file>.backup`, `<file>.backup.1`, and so on. */
  backups?: readonly (string | Uint8Array | URL)[] | undefined
  /** Whether rows of the newest sound backup go where rows are lost. Default `true`. */
  useBackup?: boolean | undefined
  /**
   * Write a repair into the file even if it lacks something that SQLite can read of the damaged one.
   * Default `false`: the file stays as it is, and the promise rejects with `ERR_FUSION_LOSS`. Of no
   * effect with `to`.
   */
  allowLoss?: boolean | undefined
  /**
   * How many of the newest copies of a kind (`.damaged-`, `.before-restore-`, `-wal.stale-`) are kept,
   * from 1 on; the older ones are removed after it, but only those whose names end with `-spare`: the
   * database has all that they hold. Default the `keepCopies` of the database, which is 3.
   *
   * @throws `ERR_INVALID_ARG_TYPE`, `ERR_OUT_OF_RANGE`
   */
  keepCopies?: number | undefined
}

/**
 * A repair, compared with what SQLite itself can read of the damaged file before the repair is
 * written into it. Rowids beyond 2 ** 53 are not exact.
 */
export interface RecoveryComparison {
  /**
   * Every version of a row that SQLite reads is in its table or in `lost_and_found`, and every object
   * of the schema is there with its own text.
   */
  holds: boolean
  /** Why nothing could be proven: SQLite reads no table of the damaged file, say. Null: it could be. */
  reason: string | null
  /**
   * The first page with which SQLite reads the damaged file with the fewest faults: its own, one by
   * what its pages show, or that of the copy that was saved next to it.
   */
  header: 'own' | 'pages' | 'snapshot'
  tables: {
    table: string
    /** SQLite reads it to its end, and its check finds no fault in it. */
    sound: boolean
    /** Versions of rows that SQLite reads. */
    rows: number
    /** How many of them are in the table of the repair, in its `lost_and_found`, and in neither. */
    inTable: number
    inLostAndFound: number
    missing: number
    /** Rows that a sound table has in the repair and that SQLite does not read of the damaged file. */
    invented: number
    /** Rowids of the missing ones, at most 100. */
    missingRowids: number[]
  }[]
  /** Objects of `sqlite_schema` that the repair lacks, or has with another text. */
  objects: { type: string; name: string; reason: string }[]
  /** All of it, for a person. */
  text: string
}

/** A row that an index contradicts: a bit flipped in one of the two. */
export interface SuspectRow {
  rowid: number
  index: string
}

/** What was saved of one table. Rowids beyond 2 ** 53 are not exact. */
export interface TableSalvage {
  name: string
  /** Rows in the repaired database that were read from the damaged one. */
  rows: number
  /** How many of them were on pages that the table's b-tree no longer led to. */
  adopted: number
  /** Pages of its b-tree that could not be read. */
  pagesLost: number
  /** Rows that an index proves to have existed and that were not found; null: no index could say. */
  rowsMissing: number | null
  /** Their rowids, at most 10,000. */
  missing: number[]
  /** Whether one of those indexes is whole, so that a row it does not name was not there. */
  indexIsWhole: boolean
  /** Ranges of rowids, both ends inclusive, that lost pages held. */
  gaps: [first: number, last: number][]
  /** Records that are damaged beyond reading. */
  recordsLost: number
  /** How many of the rows were read in spite of a damaged header, which only one value could have been. */
  mended: number
  /** Rows that were found twice. */
  duplicates: number
  /** Rows that an index contradicts, at most 10,000. */
  suspects: SuspectRow[]
}

/** What was saved of a damaged database. */
export interface Salvage {
  pageSize: number
  /** Pages that the database has, or had by its header. */
  pages: number
  pagesFromWal: number
  pagesLost: number
  /** Where the schema is from: its own pages, whole or found one by one, or the saved copy. */
  schemaFrom: 'file' | 'orphans' | 'snapshot' | 'none'
  tables: TableSalvage[]
  /** Rows in `lost_and_found`: they belong to no table that is known. */
  lostAndFound: number
  /** Virtual tables that were rebuilt from their content. */
  rebuilt: string[]
  /** Statements of the schema that could not be carried out again, with the reasons. */
  schemaErrors: string[]
}

/**
 * What became of the rows, over all tables: the sums of what `text` says of each. Tables in which a
 * virtual table keeps its index, and which were rebuilt, do not count.
 */
export interface RecoveryTotals {
  /** Rows that were read from the damaged file and are in their tables. */
  recovered: number
  /** Rows that were read from it and are in `lost_and_found`. */
  lostAndFound: number
  /** Rows that were taken from a backup. */
  fromBackup: number
  /**
   * Rows that an index of the damaged file names, and that neither the file nor a backup has: the
   * least that is lost. 0: no row is known to be lost. Null: something is lost, and nothing says of
   * how many rows.
   */
  knownLost: number | null
}

/** The account of a repair. */
export interface RecoveryReport {
  /** The file that was repaired, or read. */
  path: string
  /** The new file; null where `path` itself was repaired. */
  to: string | null
  /**
   * `healthy`: nothing was wrong, or another process had repaired it; `rebuiltFts`, `reindexed`:
   * no row was in danger; `salvaged`: see `salvage`; `restored`: nothing could be read, the
   * content is a backup's.
   */
  outcome: 'healthy' | 'rebuiltFts' | 'reindexed' | 'salvaged' | 'restored'
  /** What was tried, in order. */
  steps: { step: 'hotJournal' | 'staleWal' | 'fts' | 'reindex' | 'salvage' | 'backup'; ok: boolean; detail: string }[]
  before: Health
  after: Health
  /** Where the damaged original is, byte for byte; null where only indexes were touched. */
  preserved: { database: string; wal: string | null } | null
  salvage: Salvage | null
  /**
   * Rows that were taken from a backup, and into which tables; `named`: how many of them an index of
   * the damaged file names.
   */
  backup: { path: string; rows: number; tables: { name: string; rows: number; named: number }[] } | null
  totals: RecoveryTotals
  /** How it compares with what SQLite reads of the damaged file; null where that was not compared. */
  comparison: RecoveryComparison | null
  elapsedMs: number
  /** All of it, for a person. */
  text: string
}

export interface DatabaseBackupOptions extends TaskOptions {
  /** How the copy is checked before it takes its place. Default `'full'`. */
  verify?: CheckKind | false | undefined
  /** How many generations there are afterwards; at least 2, the default. */
  keep?: number | undefined
  /** Pages copied at a time. Default 1000. */
  rate?: number | undefined
}

/** A backup that was made. */
export interface BackupResult {
  path: string
  pages: number
  bytes: number
  verified: boolean
  /** What the check found: a full-text index that is to be rebuilt, say. Null: not checked. */
  health: Health | null
  /** Older generations, newest first. */
  kept: string[]
  elapsedMs: number
}

/** Scheduled backups. */
export interface BackupSchedule {
  /** Default `<file>.backup`. */
  path?: string | Uint8Array | URL | undefined
  /** Milliseconds between two backups. Default 3600000. Nothing is made of an unchanged database. */
  interval?: number | undefined
  /** As for `backup()`. */
  keep?: number | undefined
  /** As for `backup()`. */
  verify?: CheckKind | false | undefined
}

export interface RestoreOptions extends TaskOptions {
  /** How the backup is checked before anything is changed. Default `'full'`. */
  verify?: CheckKind | false | undefined
  /**
   * How many of the newest copies of a kind (`.damaged-`, `.before-restore-`, `-wal.stale-`) are kept,
   * from 1 on; the older ones are removed after it, but only those whose names end with `-spare`: the
   * database has all that they hold. Default the `keepCopies` of the database, which is 3.
   *
   * @throws `ERR_INVALID_ARG_TYPE`, `ERR_OUT_OF_RANGE`
   */
  keepCopies?: number | undefined
}

/** A restore that was made. */
export interface RestoreResult {
  path: string
  from: string
  /** What the database was before; null if it was not there. */
  preserved: { database: string; wal: string | null } | null
  /** Pages of the database now. */
  pages: number
  elapsedMs: number
}

/**
 * Those of `DatabaseSync`, with the same meaning, and the log's. Durations are in milliseconds, sizes in
 * bytes.
 */
export interface HardenedDatabaseOptions extends Omit<
  DatabaseSyncOptions,
  'readOnly' | 'timeout' | 'enableForeignKeyConstraints' | 'enableDoubleQuotedStringLiterals'
> {
  /**
   * Open for reading only: no log, no checkpoints, and the journal mode stays as it is. The file must
   * exist. Default `false`.
   */
  readOnly?: boolean | undefined
  /**
   * Open an existing file only, and make no file and no directory: `ERR_FUSION_MISSING`, with `path`,
   * where the file is missing. Default `false`.
   */
  mustExist?: boolean | undefined
  /**
   * `wal`: the file is put into WAL mode when it is opened, and `ERR_FUSION_NOT_WAL` says why it could
   * not be. `keep`: its journal mode stays, and a new file gets SQLite's own, a rollback journal. With
   * one, everything works but what is the WAL's: `checkpoint()` does nothing and answers zeros, and a
   * commit and a read of others wait for each other. Default `wal`, except that a process which keeps a
   * file in rollback mode already goes on doing so; asked for, `wal` is `ERR_FUSION_OPTIONS_CONFLICT`
   * while another handle of this process keeps it.
   */
  journalMode?: 'wal' | 'keep' | undefined
  /**
   * Every SELECT by `get`, `all` or `iterate` comes after a flush of what this process handed to the log
   * before, so that it sees those entries; `exec`, a write that reads (`INSERT … SELECT`), `serialize`
   * and backups do not. It waits for up to `closeTimeout`, and throws what
   * `flushAgentLogsSync()` throws. Not in a function that SQL calls. Inside a transaction that has read
   * already, a read sees what that one saw. Costs a free lock where nothing is pending, else
   * the wait for a commit. Default `false`: entries of `appendAgentLog` are seen after `linger`.
   */
  flushBeforeReads?: boolean | undefined
  /**
   * How long a statement waits for a lock. Set before any other PRAGMA. Default 5000. `timeout` is
   * node:sqlite's name for it; given both, they must agree (`ERR_INVALID_ARG_VALUE`).
   */
  busyTimeout?: number | undefined
  /** Another name of `busyTimeout`. */
  timeout?: number | undefined
  /**
   * `NORMAL`: commits survive any crash of the process. `FULL`: loss of power, too. `EXTRA`: as
   * `FULL`, and with a rollback journal the last commit survives, too. Default `NORMAL`.
   */
  synchronous?: 'NORMAL' | 'FULL' | 'EXTRA' | undefined
  /** Size above which the WAL is cut. Default 4 MiB. */
  journalSizeLimit?: number | undefined
  /** Enforce foreign keys, in the log's transactions as well. Default `true`. */
  foreignKeys?: boolean | undefined
  /** Another name of `foreignKeys`. */
  enableForeignKeyConstraints?: boolean | undefined
  /** Take `"text"` for a string, for the log's writer as well. Default `false`. */
  enableDoubleQuotedStringLiterals?: boolean | undefined
  /** Open a file that has several hard links. Default `false`: an error. */
  allowHardLinks?: boolean | undefined
  /** Open a file on a network file system. Default `false`: an error. */
  allowNetworkFileSystem?: boolean | undefined
  /** Rows that close a batch. Default 1000. */
  batchRows?: number | undefined
  /** Bytes that close a batch. Default 1 MiB. */
  batchBytes?: number | undefined
  /** How long an entry of `appendAgentLog` may wait for others, in milliseconds. Default 500. */
  linger?: number | undefined
  /**
   * The least that an entry waits for company once a caller waits for it, in milliseconds. Default 0: the
   * writer begins when the turn of the event loop that appended it ends, or 10 ms after the append where the
   * turn goes on. So all calls of one turn share a transaction, and what is appended while the writer commits
   * is its next one. More than 0 makes fewer transactions, which write fewer bytes, and each call that much
   * slower.
   */
  awaitedLinger?: number | undefined
  /** Bytes that may be queued. Default 64 MiB. */
  queueBytes?: number | undefined
  /** After how long of failures a waiting call rejects; its entries are kept. Default 60000. */
  retryDeadline?: number | undefined
  /**
   * Key in `__meta` that each transaction increases; null: none. Default `lastModified` where the database has a
   * table `__meta`; a key that is given must have one (`ERR_FUSION_SCHEMA`).
   */
  changeCounter?: string | null | undefined
  /**
   * Columns of `agentLogEntries` that entries have values for, besides those of `AgentLogEntry`. Default: none.
   * One that the table lacks is a fault of the schema (`ERR_FUSION_SCHEMA`).
   */
  columns?: readonly string[] | undefined
  /**
   * Make the table `agentLogEntries` (`AGENT_LOG_SCHEMA`), with the first entry, where it is missing. Default
   * `false`: only in a database that never had a schema. A table that this process's log has met, and
   * that is gone, is not made again.
   */
  createTable?: boolean | undefined
  /** Frames not yet in the database that make a checkpoint due. Default 100. */
  checkpointFrames?: number | undefined
  /**
   * When the file is checked. `quick`, `full`: in the constructor, before anything is written.
   * `background`: off this thread, once it is open. `off`: not at all. Default: `quick` where the file is
   * small (up to 16 MiB), or up to 64 MiB and its last user did not close it; else
   * `background`. A file that this process has open and has checked is not checked again; without
   * the option, neither is one that is unchanged since a check found it sound (Linux; a
   * note in `<file>-schema`, which counts for a day).
   */
  startupCheck?: 'quick' | 'full' | 'background' | 'off' | undefined
  /**
   * What is done about damage. `recover`: it is repaired where that is possible, else as `throw`; a
   * repair that lacks something which SQLite can read of the damaged file is not written, and the
   * error has the `comparison`. Damage that is found later is repaired by the writer, while entries wait. A file's first
   * handle decides.
   * `throw`: the constructor throws `ERR_FUSION_DAMAGED`; damage that is found later stops the
   * writer and is reported by the event `corrupt`. `report`: the same, but the constructor opens the
   * file if SQLite can. Default `recover`.
   */
  onCorruption?: 'recover' | 'throw' | 'report' | undefined
  /** Time without a commit after which the WAL is truncated. Default 2000. */
  checkpointIdle?: number | undefined
  /** The WAL is truncated at the latest this long after the last time. Default 300000. */
  checkpointInterval?: number | undefined
  /** How long `close()`, `closeAsync()` and `flushAgentLogsSync()` wait for the writer. Default 5000. */
  closeTimeout?: number | undefined
  /**
   * How many of the newest copies of a kind (`.damaged-`, `.before-restore-`, `-wal.stale-`) are kept,
   * from 1 on; the older ones are removed after a repair or a restore, but only those whose names end with `-spare`: the
   * database has all that they hold. Default 3.
   *
   * @throws `ERR_INVALID_ARG_TYPE`, `ERR_OUT_OF_RANGE`
   */
  keepCopies?: number | undefined
  /**
   * Makes backups while the database is open, one schedule for each file in the process.
   * Default: none. Reported by the events `backup` and `error`; keeps no process alive.
   */
  backups?: BackupSchedule | undefined
}

export interface HardenedDatabaseEvents {
  /** Writing or a checkpoint failed; entries are kept and it is tried again. */
  error: [error: FusionSqliteError]
  /**
   * The file is damaged and is not repaired: writing has stopped, entries are kept. `comparison`
   * says what a repair would have lost, if that is why there was none.
   */
  corrupt: [error: FusionSqliteError]
  /**
   * The file is damaged and is about to be repaired, by its writer or before it was opened.
   * Entries go on being accepted.
   */
  recovering: [health: Health]
  /**
   * That is over, and writing goes on. `outcome` is `healthy` where another process had repaired
   * it first.
   */
  recovered: [report: RecoveryReport]
  /** The path leads to another file, or none: writing has stopped, entries are kept. */
  replaced: [error: FusionSqliteError]
  /**
   * Connections were wedged on an intact file, failing with `error`, and work again. `indexRebuilt`:
   * another program had damaged the WAL index (`-shm`), which was rebuilt. `reopened`: `-wal` or
   * `-shm` had been deleted, and every connection of this process was reopened; nothing is lost.
   * `lost`: the same, but another program had used the file without its WAL, so that what was committed
   * last is lost; an `error` with code `ERR_FUSION_WAL_LOST` comes first.
   */
  healed: [error: FusionSqliteError, remedy: 'indexRebuilt' | 'reopened' | 'lost']
  /** The WAL was reset, or a checkpoint was prevented (at most one event a second). */
  checkpoint: [result: CheckpointResult]
  /** A row of `appendAgentLog` was rejected; rows of `appendAgentLogs` are in its receipt. */
  rejected: [error: FusionSqliteError, entry: PendingAgentLogEntry]
  /**
   * A check of the startup is over: one in the background, or one of the constructor that found
   * something.
   */
  check: [health: Health]
  /** The queue refused an append (`true`), or has room again (`false`). */
  backpressure: [full: boolean]
  /** A scheduled backup was made; see the option `backups`. */
  backup: [result: BackupResult]
}

export interface ReopenOptions {
  /** Make a file where the path leads to no file. Default false. */
  create?: boolean | undefined
}

/** A listener of the event `E`: of a known event with its arguments, of any other with what is emitted. */
type Listener<E extends string | symbol> = E extends keyof HardenedDatabaseEvents
  ? (...args: HardenedDatabaseEvents[E]) => void
  : (...args: any[]) => void

/**
 * A `DatabaseSync` with the hardened profile, and the log of its file.
 *
 * All handles of one file in one process, on whatever thread and through whatever path, share one
 * writer thread. The first decides the options of the log; a later one that asks for others
 * throws `ERR_FUSION_OPTIONS_CONFLICT`.
 *
 * Without a listener for them, `error`, `corrupt`, `replaced`, `recovered` and `rejected` become
 * process warnings. So does a setting that is changed by PRAGMA and in which the log's writer, a
 * connection of its own, does not follow (`FUSION_SETTING`, once a handle for each setting).
 *
 * It has all methods of Node's EventEmitter, and `events.once()`, `events.on()` and the others take it for
 * one. `this` in listeners, `newListener`, `captureRejections` and `events.errorMonitor` are as there, and
 * other names of events are the program's own. A program that emits `error` itself, without a listener,
 * gets it thrown.
 */
export class HardenedDatabase extends DatabaseSync {
  /**
   * Opens `path`, looks at it before anything is written, and puts it into WAL mode (see
   * `journalMode`). A relative path is of the directory that is current at each `open()`. A file
   * that this process has not opened before is made if it is missing, with its directory, unless
   * `mustExist` is set.
   *
   * @throws `ERR_FUSION_MISSING`, `ERR_FUSION_NOT_WAL`, `ERR_FUSION_PROFILE`, `ERR_FUSION_HARD_LINKS`, `ERR_FUSION_FILE_MOUNT`,
   * `ERR_FUSION_NETWORK_FS`, `ERR_FUSION_OPTIONS_CONFLICT`, `ERR_FUSION_DAMAGED`,
   * `ERR_SQLITE_ERROR`; TypeError and RangeError for options
   */
  constructor(path: string | Uint8Array | URL, options?: HardenedDatabaseOptions)
  /**
   * Checks the file off this thread, however large it is, and repairs it if `onCorruption` says
   * so; then opens it. `startupCheck` `background` and `off` are as for the constructor.
   */
  static open(path: string | Uint8Array | URL, options?: HardenedDatabaseOptions): Promise<HardenedDatabase>
  /**
   * Checks the file on a connection of its own, off this thread, without writing. Checks of one file are
   * shared by the whole process: a caller that asks while one of the same kind, or a full one,
   * runs gets its result. Rejects when the database is closed meanwhile. The process waits
   * for it only if a caller awaits the promise.
   */
  check(options?: CheckOptions): Promise<Health>
  /**
   * Appends `entries`, in order, after all that this thread appended before. Resolves once they
   * are committed. Costs this thread well under a microsecond an entry and waits for nothing.
   *
   * Rejects with a TypeError, `ERR_FUSION_QUEUE_FULL`, `ERR_FUSION_TOO_LARGE` or the error that
   * stopped the writer, and has taken nothing; or, after `retryDeadline`, with the error that
   * lasts, and with `ERR_FUSION_SCHEMA` within a second: then the entries are kept and written as
   * soon as that is possible, unless `takePending` takes them back. The same after `busyTimeout`
   * with `ERR_FUSION_OWN_TRANSACTION`, where another connection of this thread has a write
   * transaction open on the file for as long; for entries without a promise one `error` event a
   * transaction reports it.
   */
  appendAgentLogs<Columns extends string = never>(
    entries: readonly AgentLogEntryWith<NoInfer<Columns>>[],
  ): Promise<AppendReceipt>
  /**
   * Appends one entry and reports no commit; a refused row is the `rejected` event. Until then, for up
   * to `linger`, no SELECT sees it, unless `flushAgentLogs()` was awaited before, or the handle has
   * `flushBeforeReads`.
   *
   * @returns false if the queue is full: nothing was taken
   * @throws TypeError for what is not an entry
   */
  appendAgentLog<Columns extends string = never>(entry: AgentLogEntryWith<NoInfer<Columns>>): boolean
  /**
   * Resolves once everything appended so far, by any code of this process, is committed. Inside a
   * write transaction of this database it is written in that transaction, at once.
   */
  flushAgentLogs(): Promise<void>
  /**
   * The same, and waits for the disk. Call it before deleting a task whose entries may be pending.
   *
   * @param timeoutMs default `closeTimeout`
   * @throws `ERR_FUSION_FLUSH_TIMEOUT` (`errcode` is that of the failure that lasts, if one does);
   * `ERR_FUSION_OWN_TRANSACTION`, at once, where entries are pending and another connection of this
   * thread, of either class, has a write transaction open on the file, or an iteration of a
   * statement that writes. The entries are kept.
   */
  flushAgentLogsSync(timeoutMs?: number): void
  /**
   * Returns, in order, the entries that were accepted through any handle and are not committed.
   * They are no longer written. Calls that wait for them reject with `ERR_FUSION_TAKEN_BACK`.
   */
  takePending(): PendingAgentLogEntry[]
  /**
   * Flushes and closes; the file's last handle checkpoints and removes the WAL. Waits for the
   * disk for up to `closeTimeout`.
   *
   * @throws `ERR_FUSION_FLUSH_TIMEOUT`, `ERR_FUSION_OWN_TRANSACTION` (see `flushAgentLogsSync`); the
   * database stays open, the entries are kept
   */
  close(): void
  /** The same without waiting on this thread; rejects where `close()` throws. */
  closeAsync(): Promise<void>
  /**
   * Increases the change counter under `key` in `__meta`, on this connection and inside its
   * transaction if one is open: to the time in milliseconds, or by one where that is more. One
   * statement, so that it never meets the writer's in between.
   *
   * @param key default the option `changeCounter`, or `lastModified` where that is null
   * @returns the new value
   * @throws `ERR_SQLITE_ERROR`: there is no `__meta` with a unique `key`, or the write failed
   */
  bumpChangeCounter(key?: string): number
  /**
   * Opens the file that is at the path now, after it was replaced or deleted under this handle, and
   * moves what the log accepted and has not committed to that file's log, in order, with the promises
   * that wait for it. Rolls an open transaction back. Listeners, functions, aggregates, the authorizer,
   * limits and settings stay; statements are prepared again when they are next used; an iterator in
   * the middle of its rows throws; sessions, temporary tables, attached databases and loaded extensions
   * go. The old file's `-wal` is put aside if it is at the path. Does nothing where the path leads to the
   * open file and the log has not stopped. Each handle reopens by a call of its own. Waits for the disk.
   *
   * @returns this
   * @throws `ERR_FUSION_UNLINKED`: there is no file, and `create` is not set; `ERR_FUSION_REPLACED`:
   * another connection uses the new file with the old `-wal`, for longer than `busyTimeout`;
   * `ERR_INVALID_STATE`: a statement runs, a backup is under way, the database is closed or in memory;
   * those of the constructor. The entries are kept, and it can be called again
   */
  reopen(options?: ReopenOptions): this
  /** Checkpoints the WAL on the writer thread. Default mode `passive`. */
  checkpoint(mode?: CheckpointMode): Promise<CheckpointResult>
  /** Figures of the file's log. */
  stats(): DatabaseStats
  /**
   * Copies the database to `path` (default `<file>.backup`) while it is in use, on a thread of its
   * own: what is committed when it begins, in one file, checked. What was at `path` becomes
   * `<path>.1`, what was there `<path>.2`, up to `keep`.
   *
   * Rejects with `ERR_FUSION_BACKUP_DAMAGED`, the error's `health` saying what is wrong, if the
   * database is damaged; `ERR_FUSION_BACKUP_IN_USE`, `ERR_FUSION_BACKUP_TARGET`,
   * `ERR_FUSION_SAME_FILE`, `ERR_SQLITE_ERROR`. The older backups are then as they were.
   */
  backup(path?: string | Uint8Array | URL, options?: DatabaseBackupOptions): Promise<BackupResult>
  /**
   * Writes pending entries, then puts the content of the database at `from` in place of this one's,
   * in one transaction of the same file, which every process that has it open sees as a commit. What
   * it was is kept in `<file>.before-restore-<UTC time>`, with `-spare` at the end if it is the same.
   *
   * Rejects with `ERR_FUSION_BACKUP_DAMAGED` (with `health`), `ERR_FUSION_RESTORE_EMPTY`,
   * `ERR_FUSION_RESTORE_ENCODING`, `ERR_FUSION_SAME_FILE`, `ERR_INVALID_STATE` in a transaction of
   * this database, `ERR_FUSION_OWN_TRANSACTION` in one of another connection of this thread,
   * `ERR_SQLITE_ERROR` or, with entries pending, `ERR_FUSION_FLUSH_TIMEOUT` (`errcode` 5: another
   * one's lasted longer than `busyTimeout`); nothing was changed.
   */
  restore(from: string | Uint8Array | URL, options?: RestoreOptions): Promise<RestoreResult>
  /**
   * Repairs the file, off this thread, as far as it needs it: `recover(path)` of the module. A
   * writer that damage had stopped goes on. Rejects with `ERR_INVALID_STATE` in a transaction of
   * this database, `ERR_FUSION_OWN_TRANSACTION` in one of another connection of this thread.
   */
  recover(options?: RecoverOptions): Promise<RecoveryReport>
  on<E extends string | symbol>(event: E, listener: Listener<E>): this
  once<E extends string | symbol>(event: E, listener: Listener<E>): this
  off<E extends string | symbol>(event: E, listener: Listener<E>): this
  addListener<E extends string | symbol>(event: E, listener: Listener<E>): this
  removeListener<E extends string | symbol>(event: E, listener: Listener<E>): this
  prependListener<E extends string | symbol>(event: E, listener: Listener<E>): this
  prependOnceListener<E extends string | symbol>(event: E, listener: Listener<E>): this
  removeAllListeners(event?: string | symbol): this
  emit(event: string | symbol, ...args: any[]): boolean
  eventNames(): (string | symbol)[]
  listeners(event: string | symbol): Function[]
  rawListeners(event: string | symbol): Function[]
  listenerCount(event: string | symbol, listener?: Function): number
  getMaxListeners(): number
  setMaxListeners(n: number): this
  [Symbol.asyncDispose](): Promise<void>
}

/** Options of the log alone: those that mean something without a handle. */
export type AgentLogOptions = Omit<
  HardenedDatabaseOptions,
  | 'open'
  | 'readOnly'
  | 'mustExist'
  | 'flushBeforeReads'
  | 'defensive'
  | 'allowExtension'
  | 'limits'
  | 'closeTimeout'
  | 'foreignHandles'
  | 'backups'
  | 'startupCheck'
  | keyof StatementOptions
>

/**
 * The SQL that makes `agentLogEntries` and its indexes, where they are missing: Fusion's, without
 * the reference to `tasks`.
 */
export const AGENT_LOG_SCHEMA: string

/**
 * Appends to the database at `path`, a file named by its path, as text or bytes, or by a `file:` URL,
 * without a handle on it. A file that this process has not opened before is made if it is missing,
 * with its directory. Its log stays open for five seconds after the last append. Everything else as
 * `HardenedDatabase.appendAgentLogs`; `options` count for the first append. What a handle would emit
 * as `error`, `corrupt`, `replaced` or `recovered` is a process warning.
 */
export function appendAgentLogs<Columns extends string = never>(
  path: string | Uint8Array | URL,
  entries: readonly AgentLogEntryWith<NoInfer<Columns>>[],
  options?: AgentLogOptions,
): Promise<AppendReceipt>

/**
 * Repairs the database at `path`, which may be open in any process: rebuilds what is made of
 * tables if that is all that is damaged, else salvages every table and writes the result into the
 * file as one transaction. Each repair passes a full check before it is kept; the damaged original
 * stays next to the file as `<file>.damaged-<UTC time>`, with `-spare` at the end once the database has
 * all that it holds. Does nothing to a sound file.
 *
 * With `to` everything that can be read is put into a new database there, and `path` is left as it
 * is, which may be in a place where nothing can be written; into its table `lost_and_found` where the schema is gone that says of which tables the rows
 * are, and there is no backup.
 *
 * Before a repair is written into the file it is compared with what SQLite itself can read of the
 * damaged one: see `RecoveryComparison` and `allowLoss`.
 *
 * Rejects with `ERR_FUSION_LOSS` (with `comparison`: the repair lacks something that SQLite can
 * read), `ERR_FUSION_UNRECOVERABLE` (nothing in it is of a database, and there is no backup),
 * `ERR_FUSION_REPLACED`, `ERR_FUSION_NOT_A_FILE` (a FIFO, a socket, a device or a directory is where a
 * file is to be read), `ERR_SQLITE_ERROR` (5: in use for five minutes, or written to while it was read; 13: the disk is
 * too full, the message says how much is needed), the signal's reason; nothing was changed.
 */
export function recover(
  path: string | Uint8Array | URL,
  options?: RecoverOptions & { to?: string | Uint8Array | URL | undefined },
): Promise<RecoveryReport>

/**
 * Puts the content of the database at `from` in place of that of the database at `path`, which may
 * be open in any process, or not be there at all. As `HardenedDatabase.restore` otherwise.
 */
export function restore(
  path: string | Uint8Array | URL,
  from: string | Uint8Array | URL,
  options?: RestoreOptions,
): Promise<RestoreResult>

/**
 * Checks the database at `path` without a handle on it, as `HardenedDatabase.check`. It is not made
 * if it is not there, and nothing is written, checkpointed or put aside.
 *
 * @throws `SQLITE_CANTOPEN` and other `ERR_SQLITE_ERROR`s where there is nothing to be checked;
 * `ERR_FUSION_DEADLINE`; the signal's reason
 */
export function check(path: string | Uint8Array | URL, options?: CheckOptions): Promise<Health>

/**
 * Makes a verified backup of the database at `path`, as `HardenedDatabase.backup` does, without a
 * handle on it. Default of `to`: `<path>.backup`.
 */
export function backupFile(
  path: string | Uint8Array | URL,
  to?: string | Uint8Array | URL,
  options?: DatabaseBackupOptions,
): Promise<BackupResult>

/** Which of a database's files. */
export type DatabaseFileRole = 'database' | 'wal' | 'shm' | 'journal'

/**
 * Which processes have a database open. Null where the system does not report it: processes on Windows, locks
 * everywhere but on Linux. `command` is the command line, on macOS the path of the program.
 */
export interface FileHolders {
  processes: { pid: number; command: string; thisProcess: boolean; files: DatabaseFileRole[] }[] | null
  /**
   * Locks. `standsFor` is in SQLite's terms: `shared`, `reserved`, `pending` or `exclusive` on the
   * database; `write`, `checkpoint`, `recover`, `read` or `open` on the `-shm`.
   */
  locks:
    | {
        /** Null where the system does not report the owner. */
        pid: number | null
        file: DatabaseFileRole
        kind: 'ofd' | 'posix'
        exclusive: boolean
        standsFor: string[]
      }[]
    | null
  /** Why the answer may be incomplete. */
  unknown: string | null
}

/** What is known of a database file. Sizes are in bytes, times in milliseconds since 1970. */
export interface FileInfo {
  /** Symbolic links resolved. */
  path: string
  bytes: number
  modified: number | null
  /** Names of the file: more than one is dangerous. */
  hardLinks: number
  /** Whether the file itself is a mount's root (`docker -v a.db:/data/a.db`): each side has its own `-wal`. Linux only. */
  fileMount: boolean
  fileSystem: { name: string; network: boolean } | null
  /** How this process locks it. */
  lockKind: 'ofd' | 'posix' | 'windows'
  holders: FileHolders
  /** Null: there is no WAL. `frames` are in use, `checkpointed` of them are in the database as well. */
  wal: { bytes: number; frames: number | null; checkpointed: number | null } | null
  shmBytes: number | null
  journalBytes: number | null
  /** Null where SQLite could not read it. */
  database: {
    journalMode: string
    pageSize: number
    pages: number
    freePages: number
    encoding: 'UTF-8' | 'UTF-16le' | 'UTF-16be'
    autoVacuum: 'none' | 'full' | 'incremental'
    userVersion: number
    applicationId: number
    /** How often the schema was changed. */
    schemaVersion: number
    /** The SQLite that wrote to it last. */
    lastWriter: string | null
  } | null
  /** Why SQLite could not read it. */
  error: { code: string; errcode: number; message: string } | null
  /** This process's. */
  sqliteVersion: string
  /**
   * Backups, the saved copy of the schema, and copies that were kept of replaced files.
   * `removable`: the next repair or restore removes it.
   */
  sidecars: {
    path: string
    kind: 'backup' | 'snapshot' | 'preserved'
    bytes: number
    modified: number | null
    removable: boolean
  }[]
}

/**
 * What can be said of the database at `path` without changing it. A file that cannot be read as a
 * database is no error. `keepCopies`, by which `removable` is meant: see `HardenedDatabaseOptions`.
 *
 * @throws `SQLITE_CANTOPEN` where there is no such file; `ERR_FUSION_NOT_A_FILE`
 */
export function fileInfo(
  path: string | Uint8Array | URL,
  options?: TaskOptions & { keepCopies?: number | undefined },
): Promise<FileInfo>

/** What a page is. `orphan`: nothing leads to it; `missing`: the file ends before it. */
export type PageRole =
  'interior' | 'leaf' | 'overflow' | 'freeTrunk' | 'freeLeaf' | 'pointerMap' | 'lockByte' | 'orphan' | 'missing'

export interface PageMapOptions extends TaskOptions {
  /** The result of a check: the pages that it names are marked as damaged, too. */
  health?: Health | undefined
  /** Into how many cells the file is divided at most; a cell is as the worst of its pages. Default 50000. */
  resolution?: number | undefined
}

/** What each page of a database file is and belongs to. */
export interface PageMap {
  path: string
  pageSize: number
  /** Missing ones included. */
  pages: number
  /** Pages that a cell stands for. */
  pagesPerCell: number
  fileBytes: number
  pagesFromWal: number
  /**
   * What names the b-trees: the file's own schema; with it, because it is damaged, the one that was
   * saved next to it; or nothing, so that they go by their first pages.
   */
  namesFrom: 'schema' | 'known' | 'nothing'
  owners: {
    name: string
    type: 'table' | 'index'
    table: string
    root: number
    pages: number
    interiorPages: number
    overflowPages: number
    damagedPages: number
    /** Pages that the b-tree refers to and that are behind the end of the file. Not in `pages`. */
    missingPages: number
  }[]
  /** How many pages have each role. */
  roles: { [Role in PageRole]?: number }
  /** The file from its first page to its last. `owner` is a place in `owners`. */
  runs: { first: number; pages: number; owner: number | null; role: PageRole; damaged: boolean }[]
  damagedPages: number
  /** The first 10,000 of them. */
  damaged: { page: number; owner: number | null; reason: string }[]
}

/**
 * Maps the database at `path`, whatever is left of it. It may be in use: readers and writers go on.
 *
 * @throws `SQLITE_BUSY`, `SQLITE_CANTOPEN`; `SQLITE_NOTADB` where not even its page size is known
 */
export function pageMap(path: string | Uint8Array | URL, options?: PageMapOptions): Promise<PageMap>

/** A page map as a picture: the text of an SVG file. `title` is the file's name unless given. */
export function pageMapSvg(map: PageMap, options?: { title?: string; date?: Date }): string

/**
 * Gives Node's own SQLite, behind node:sqlite, the locks of this package: locks that no other code
 * in the process can drop. For the whole process, at once and for good; calling it again does
 * nothing. Files that are open when it is called stay on POSIX locks: call it before node:sqlite
 * opens any. `fusion-sqlite/register` calls it.
 *
 * @returns whether it is protected, and if not, why; `engineInfo()` reports it, too. Always
 * protected on Windows, whose locks cannot be lost that way.
 */
export function protectNodeSqlite(): { protected: boolean; reason: string | null }

export { engineInfo, errorLog, type EngineInfo, type LoggedMessage } from './binding.js'
