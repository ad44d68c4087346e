// A small store written the way Fusion's is: one synchronous connection, a statement prepared for
// each call and never used again, deferred transactions with savepoints inside, JSON in text
// columns, and a counter in `__meta` that other processes poll. It takes its SQLite as a parameter.

import { readFileSync } from 'node:fs'
import type { SQLInputValue } from 'node:sqlite'

/** What Fusion uses of a database: a subset of node:sqlite, of this package, and of its hardened kind. */
export interface Database {
  exec(sql: string): void
  prepare(sql: string): {
    all(...parameters: SQLInputValue[]): unknown[]
    get(...parameters: SQLInputValue[]): unknown
    run(...parameters: SQLInputValue[]): { changes: number | bigint; lastInsertRowid: number | bigint }
  }
  close(): void
}

export type Open = new (path: string) => Database

export interface Comment {
  author: string
  text: string
}

export interface Task {
  id: string
  title: string | null
  description: string
  column: string
  comments: Comment[]
  createdAt: string
  updatedAt: string
  deletedAt: string | null
}

interface TaskRow extends Omit<Task, 'comments'> {
  comments: string
}

const schema = readFileSync(new URL('../../examples/fusion-schema.sql', import.meta.url), 'utf8')

function fromJson<T>(text: string | null, otherwise: T): T {
  if (text === null || text === '') return otherwise
  try {
    return JSON.parse(text) as T
  } catch {
    return otherwise
  }
}

export class FusionStore {
  readonly db: Database
  #depth = 0
  #clock = 0
  #lastSeen = 0

  constructor(DatabaseSync: Open, path: string) {
    this.db = new DatabaseSync(path)
    this.db.exec('PRAGMA journal_mode = WAL')
    this.db.exec('PRAGMA busy_timeout = 5000')
    this.db.exec('PRAGMA foreign_keys = ON')
    this.db.exec(schema)
    this.#lastSeen = this.lastModified()
  }

  /** A clock that runs alike every time. */
  now(): string {
    return new Date(Date.UTC(2026, 6, 1) + this.#clock++ * 1000).toISOString()
  }

  /** BEGIN at the outside, a savepoint within. */
  transaction<T>(body: () => T): T {
    const name = `sp_${this.#depth}`
    this.db.exec(this.#depth === 0 ? 'BEGIN' : `SAVEPOINT ${name}`)
    this.#depth++
    try {
      const result = body()
      this.#depth--
      this.db.exec(this.#depth === 0 ? 'COMMIT' : `RELEASE ${name}`)
      return result
    } catch (error) {
      this.#depth = Math.min(this.#depth, Number(name.slice(3)))
      this.db.exec(this.#depth === 0 ? 'ROLLBACK' : `ROLLBACK TO ${name}`)
      if (this.#depth > 0) this.db.exec(`RELEASE ${name}`)
      throw error
    }
  }

  /** As Fusion counts: read, add, write. */
  bumpLastModified(): void {
    const row = this.db.prepare(`SELECT value FROM __meta WHERE key = 'lastModified'`).get() as { value: string }
    const next = String(Number(row.value) + 1)
    this.db
      .prepare(
        `INSERT INTO __meta(key, value) VALUES ('lastModified', ?)
         ON CONFLICT(key) DO UPDATE SET value = excluded.value`,
      )
      .run(next)
  }

  lastModified(): number {
    const row = this.db.prepare(`SELECT value FROM __meta WHERE key = 'lastModified'`).get() as { value: string }
    return Number(row.value)
  }

  /** Whether somebody has changed something since the last call. */
  poll(): boolean {
    const now = this.lastModified()
    const changed = now !== this.#lastSeen
    this.#lastSeen = now
    return changed
  }

  createTask(id: string, title: string | null, description: string, comments: Comment[] = []) {
    return this.transaction(() => {
      const now = this.now()
      const result = this.db
        .prepare(`INSERT INTO tasks(id, title, description, comments, createdAt, updatedAt) VALUES (?, ?, ?, ?, ?, ?)`)
        .run(id, title, description, JSON.stringify(comments), now, now)
      this.logActivity('task:created', id, { title })
      this.bumpLastModified()
      return result
    })
  }

  #task(row: TaskRow): Task {
    return { ...row, comments: fromJson<Comment[]>(row.comments, []) }
  }

  task(id: string): Task | undefined {
    const row = this.db.prepare('SELECT * FROM tasks WHERE id = ? AND deletedAt IS NULL').get(id)
    return row === undefined ? undefined : this.#task(row as TaskRow)
  }

  tasks(column?: string): Task[] {
    const rows =
      column === undefined
        ? this.db.prepare('SELECT * FROM tasks WHERE deletedAt IS NULL ORDER BY createdAt, id').all()
        : this.db
            .prepare('SELECT * FROM tasks WHERE deletedAt IS NULL AND "column" = ? ORDER BY createdAt, id')
            .all(column)
    return (rows as TaskRow[]).map((row) => this.#task(row))
  }

  moveTask(id: string, column: string) {
    return this.transaction(() => {
      const result = this.db
        .prepare('UPDATE tasks SET "column" = ?, updatedAt = ? WHERE id = ?')
        .run(column, this.now(), id)
      if (Number(result.changes) === 0) throw new Error(`Task ${id} not found`)
      this.logActivity('task:moved', id, { to: column })
      this.bumpLastModified()
      return result
    })
  }

  addComment(id: string, comment: Comment) {
    return this.transaction(() => {
      const row = this.db.prepare('SELECT comments FROM tasks WHERE id = ?').get(id) as { comments: string } | undefined
      if (row === undefined) throw new Error(`Task ${id} not found`)
      const comments = [...fromJson<Comment[]>(row.comments, []), comment]
      const result = this.db
        .prepare('UPDATE tasks SET comments = ?, updatedAt = ? WHERE id = ?')
        .run(JSON.stringify(comments), this.now(), id)
      this.bumpLastModified()
      return result
    })
  }

  softDelete(id: string) {
    const now = this.now()
    return this.db.prepare('UPDATE tasks SET deletedAt = ?, updatedAt = ? WHERE id = ?').run(now, now, id)
  }

  /** The log entries go with the task. */
  deleteTask(id: string) {
    return this.transaction(() => {
      const result = this.db.prepare('DELETE FROM tasks WHERE id = ?').run(id)
      this.bumpLastModified()
      return result
    })
  }

  appendLog(taskId: string, type: string, text: string, detail: string | null = null, agent: string | null = null) {
    const result = this.db
      .prepare(`INSERT INTO agentLogEntries(taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)`)
      .run(taskId, this.now(), text, type, detail, agent)
    this.bumpLastModified()
    return result
  }

  logs(taskId: string, limit = 100, offset = 0): unknown[] {
    return this.db
      .prepare('SELECT * FROM agentLogEntries WHERE taskId = ? ORDER BY timestamp DESC, id DESC LIMIT ? OFFSET ?')
      .all(taskId, limit, offset)
  }

  countLogs(): unknown {
    return this.db
      .prepare('SELECT taskId, type, count(*) AS n FROM agentLogEntries GROUP BY taskId, type ORDER BY taskId, type')
      .all()
  }

  logActivity(type: string, taskId: string | null, details: object) {
    const now = this.now()
    return this.db
      .prepare('INSERT INTO activityLog(id, timestamp, type, taskId, details) VALUES (?, ?, ?, ?, ?)')
      .run(`${now}-${type}-${taskId}`, now, type, taskId, JSON.stringify(details))
  }

  activity(): unknown[] {
    return this.db
      .prepare(
        `SELECT id, type, taskId, json_extract(details, '$.to') AS moved, details FROM activityLog ORDER BY timestamp`,
      )
      .all()
  }

  search(query: string): unknown[] {
    return this.db
      .prepare(
        `SELECT t.id, t.title, snippet(tasks_fts, 2, '[', ']', '…', 6) AS found, round(bm25(tasks_fts), 6) AS rank
         FROM tasks_fts JOIN tasks t ON t.rowid = tasks_fts.rowid
         WHERE tasks_fts MATCH ? AND t.deletedAt IS NULL ORDER BY bm25(tasks_fts), t.id`,
      )
      .all(query)
  }

  rebuildSearch(): void {
    this.db.exec(`INSERT INTO tasks_fts(tasks_fts) VALUES ('rebuild')`)
  }

  checkSearch(): void {
    this.db.exec(`INSERT INTO tasks_fts(tasks_fts, rank) VALUES ('integrity-check', 1)`)
  }

  integrity(): unknown[] {
    return this.db.prepare('PRAGMA integrity_check').all()
  }

  close(): void {
    this.db.close()
  }
}

interface Failure extends Error {
  code?: string
  errcode?: number
  errstr?: string
}

/** Drives the store through everything it can do. Returns all that can be seen from outside. */
export function drive(DatabaseSync: Open, file: string): unknown[] {
  const seen: unknown[] = []
  const see = (label: string, look: () => unknown) => {
    try {
      const value = look()
      const prototype = Array.isArray(value) && value.length > 0 ? Object.getPrototypeOf(value[0]) : undefined
      seen.push([label, value, prototype === null ? 'null-prototype rows' : typeof value])
    } catch (error) {
      const { name, message, code, errcode, errstr } = error as Failure
      seen.push([label, { name, message, code, errcode, errstr }])
    }
  }
  let store = new FusionStore(DatabaseSync, file)
  const raw = (sql: string, ...parameters: SQLInputValue[]) => store.db.prepare(sql).all(...parameters)

  for (let i = 1; i <= 12; i++) {
    see(`create ${i}`, () =>
      store.createTask(
        `FN-${i}`,
        i % 3 === 0 ? null : `Task ${i} über Größe`,
        `Fix parser number ${i} in the lexer ${'x'.repeat(i)}`,
      ),
    )
  }
  see('twice', () => store.createTask('FN-1', 'again', ''))
  see('nothing of it stayed', () => store.activity().length)
  see('task', () => store.task('FN-2'))
  see('no such task', () => store.task('FN-99'))
  see('comment', () => store.addComment('FN-2', { author: 'Ann', text: 'Naïve "quotes" and 日本語 🦊\nnew line' }))
  see('another', () => store.addComment('FN-2', { author: 'Bob', text: 'looks good' }))
  see('comments', () => store.task('FN-2')?.comments)
  see('comment on nothing', () => store.addComment('FN-99', { author: '', text: '' }))
  see('move', () => store.moveTask('FN-3', 'in-progress'))
  see('move nothing', () => store.moveTask('FN-99', 'done'))
  see('column', () => store.tasks('in-progress').map((task) => task.id))

  for (let i = 0; i < 60; i++) {
    see(`log ${i}`, () =>
      store.appendLog(
        `FN-${1 + (i % 4)}`,
        ['text', 'tool', 'thinking'][i % 3] ?? '',
        `entry ${i}`,
        i % 2 ? null : `{"n":${i}}`,
        i % 5 ? 'executor' : null,
      ),
    )
  }
  see('log of no task', () => store.appendLog('FN-99', 'text', 'lost'))
  see('log without text', () => store.db.prepare('INSERT INTO agentLogEntries(taskId) VALUES (?)').run('FN-1'))
  see('logs', () => store.logs('FN-1'))
  see('page', () => store.logs('FN-2', 5, 3))
  see('counts', () => store.countLogs())

  // Savepoints: what fails inside is undone alone; what fails outside takes everything with it.
  see('nested', () =>
    store.transaction(() => {
      store.appendLog('FN-5', 'text', 'outside')
      try {
        store.transaction(() => {
          store.appendLog('FN-5', 'text', 'inside')
          store.transaction(() => store.appendLog('FN-99', 'text', 'refused'))
        })
      } catch (error) {
        store.appendLog('FN-5', 'text', `caught ${(error as Failure).errcode}`)
      }
      return store.logs('FN-5')
    }),
  )
  see('all undone', () =>
    store.transaction(() => {
      store.transaction(() => store.appendLog('FN-5', 'text', 'released'))
      throw new TypeError('the caller gave up')
    }),
  )
  see('after both', () => store.logs('FN-5'))
  see('BEGIN twice', () => store.transaction(() => store.db.exec('BEGIN')))
  see('COMMIT without', () => store.db.exec('COMMIT'))

  see('search', () => store.search('parser'))
  see('search in comments', () => store.search('comments: 日本語*'))
  see('search a phrase', () => store.search('"number 7"'))
  see('search wrongly', () => store.search('"unbalanced'))
  see('search no column', () => store.search('nowhere: x'))
  see('retitle', () => raw(`UPDATE tasks SET title = 'Tokenizer' WHERE id = ? RETURNING id, title`, 'FN-7'))
  see('search anew', () => store.search('tokenizer OR über'))
  see('search check', () => store.checkSearch())
  see('break search', () =>
    store.db.exec(`INSERT INTO tasks_fts(tasks_fts, rowid, id, title, description, comments)
                   VALUES ('delete', 1, 'FN-1', 'Task 1 über Größe', 'Fix parser', '[]')`),
  )
  see('search check fails', () => store.checkSearch())
  see('rebuild', () => store.rebuildSearch())
  see('search check after', () => store.checkSearch())
  see('search after', () => store.search('parser'))

  see('soft delete', () => store.softDelete('FN-6'))
  see('gone for search', () => store.search('"number 6"'))
  see('cascade', () => store.deleteTask('FN-1'))
  see('no logs left', () => store.logs('FN-1'))
  see('counts after', () => store.countLogs())
  see('delete nothing', () => store.deleteTask('FN-99'))
  see('delete many', () => raw(`DELETE FROM tasks WHERE id IN ('FN-11', 'FN-12') RETURNING id`))
  see('bad json', () => store.db.prepare(`UPDATE tasks SET comments = '{' WHERE id = 'FN-8'`).run())
  see('read as none', () => store.task('FN-8')?.comments)
  see('json error', () => raw(`SELECT json_extract(comments, '$[0]') FROM tasks WHERE id = 'FN-8'`))
  see('json', () =>
    raw(`SELECT t.id, j.value ->> 'author' AS author FROM tasks t, json_each(t.comments) j WHERE t.id = 'FN-2'`),
  )
  see('NUL', () => store.appendLog('FN-2', 'text', 'before\0after'))
  see('its length', () => raw(`SELECT length(CAST(text AS BLOB)) AS n FROM agentLogEntries ORDER BY id DESC LIMIT 1`))
  see('syntax', () => raw('SELEC 1'))
  see('no table', () => raw('SELECT * FROM missing'))
  see('too many parameters', () => raw('SELECT 1', 2))
  see('no value', () => store.db.prepare('SELECT ?').get(undefined as unknown as null))
  see('polled', () => [store.poll(), store.poll(), store.lastModified()])
  see('activity', () => store.activity())
  see('tasks', () => store.tasks())
  see('integrity', () => store.integrity())

  store.close()
  see('closed', () => store.tasks())
  see('closed twice', () => store.close())
  store = new FusionStore(DatabaseSync, file)
  see('reopened', () => [store.tasks().length, store.lastModified(), store.poll()])
  see('sequence', () => raw('SELECT * FROM sqlite_sequence'))
  see('schema', () => raw('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name'))
  see('foreign keys', () => raw('PRAGMA foreign_key_check'))
  see('integrity again', () => store.integrity())
  store.close()
  return seen
}
