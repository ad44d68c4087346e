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
export type SQLOutputValue = null | number | bigint | string | Uint8Array

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

export interface DatabaseSyncOptions extends StatementOptions {
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
  /** Finalises every statement and closes. Throws `ERR_INVALID_STATE` if it is not open. */
  close(): void
  /** Runs every statement of `sql`, up to the first that fails, which is thrown. Rows are ignored. */
  exec(sql: string): void
  /**
   * Prepares the first statement of `sql`. Preparing the same text again is cheap: SQLite's
   * statements are kept, up to 128 for each connection.
   *
   * @throws TypeError `ERR_INVALID_ARG_VALUE` if there is no statement; SQLite's errors
   */
  prepare(sql: string, options?: StatementOptions): StatementSync
  /**
   * The path of the file behind the database `dbName` (`main` or an attached one's name), or null
   * if there is none. Default `main`.
   */
  location(dbName?: string): string | null
  /** Closes the database if it is open. */
  [Symbol.dispose](): void
}

/** What a column of a result is made of; null where it is not a table's column. */
export interface StatementColumn {
  column: string | null
  database: string | null
  name: string
  table: string | null
  type: string | null
}

export interface RunResult {
  /** Rows that the last INSERT, UPDATE or DELETE changed; a bigint where `readBigInts` is set. */
  changes: number | bigint
  /** Row id of the last INSERT; a bigint where `readBigInts` is set. */
  lastInsertRowid: number | bigint
}

/**
 * A prepared statement; made by `DatabaseSync.prepare` only. Values of a call are forgotten by the
 * next. After the database was closed every method throws `ERR_INVALID_STATE`.
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
  /** Runs to the end. */
  run(...parameters: SQLInputValue[]): RunResult
  run(named: NamedParameters, ...parameters: SQLInputValue[]): RunResult
  /** Rows one by one. Another call of this statement invalidates the iterator. */
  iterate(...parameters: SQLInputValue[]): IteratorObject<Row, null, undefined>
  iterate(named: NamedParameters, ...parameters: SQLInputValue[]): IteratorObject<Row, null, undefined>
  /** The columns of the result; none for a statement without one. */
  columns(): StatementColumn[]
  setAllowBareNamedParameters(enabled: boolean): void
  setAllowUnknownNamedParameters(enabled: boolean): void
  setReadBigInts(enabled: boolean): void
  setReturnArrays(enabled: boolean): void
}
