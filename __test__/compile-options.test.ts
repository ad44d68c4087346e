// SQL does here what it does on node:sqlite: both SQLites are built alike. Every difference is
// listed with its reason, here and in docs/differences.md.

import * as node from 'node:sqlite'
import test from 'ava'
import * as ours from '../index.js'

type Open = new (path: string) => {
  prepare(sql: string): { all(): unknown[] }
  close(): void
}

function rows(DatabaseSync: Open, sql: string): string[] {
  const db = new DatabaseSync(':memory:')
  try {
    return db
      .prepare(sql)
      .all()
      .map((row) => Object.values(row as object).join('|'))
      .toSorted()
  } finally {
    db.close()
  }
}

/** What one of the two says and the other does not. */
function difference(sql: string) {
  const [theirs, mine] = [rows(node.DatabaseSync, sql), rows(ours.DatabaseSync, sql)]
  return {
    missing: theirs.filter((row) => !mine.includes(row)),
    added: mine.filter((row) => !theirs.includes(row)),
  }
}

/** Differences that are wanted, or that nobody can help. */
const EXPECTED: Record<string, { missing: string[]; added: string[] }> = {
  'PRAGMA compile_options': {
    missing: [],
    added: [
      // Misuse of SQLite's interface becomes SQLITE_MISUSE in place of undefined behaviour.
      'ENABLE_API_ARMOR',
      // Told by 3.54 and not by 3.53; the limit is new and far away.
      'MAX_SCHEMA=10000000',
    ],
  },
  'PRAGMA function_list': {
    // 3.54 forbids sqlite_log() in views and triggers (SQLITE_DIRECTONLY); 3.53 does not.
    missing: ['sqlite_log|1|s|utf8|2|2099200'],
    added: ['sqlite_log|1|s|utf8|2|524288'],
  },
  'PRAGMA module_list': { missing: [], added: [] },
  'PRAGMA pragma_list': { missing: [], added: [] },
  'PRAGMA collation_list': { missing: [], added: [] },
}

/** The compiler and the platform are not SQLite's features. */
const INCIDENTAL = /^(COMPILER|ATOMIC_INTRINSICS|MUTEX_\w+|HAVE_\w+|SYSTEM_MALLOC)\b/

for (const [sql, expected] of Object.entries(EXPECTED)) {
  test(`as node:sqlite but for what is listed: ${sql}`, (t) => {
    const { missing, added } = difference(sql)
    const counts = (row: string) => sql !== 'PRAGMA compile_options' || !INCIDENTAL.test(row)
    t.deepEqual({ missing: missing.filter(counts), added: added.filter(counts) }, expected)
  })
}

/** PRAGMAs that act, want an argument, or tell of this process rather than of a setting. */
const NOT_ASKED = new Set([
  'compile_options',
  'function_list',
  'module_list',
  'pragma_list',
  'incremental_vacuum',
  'integrity_check',
  'quick_check',
  'optimize',
  'shrink_memory',
  'wal_checkpoint',
  // Counted from 1 by each SQLite of the process, whoever opened what before.
  'data_version',
])

test('a fresh connection has the same settings', (t) => {
  const pragmas = rows(node.DatabaseSync, 'PRAGMA pragma_list').filter((name) => !NOT_ASKED.has(name))
  t.true(pragmas.length > 40)
  const settings = (DatabaseSync: Open) => pragmas.map((name) => [name, rows(DatabaseSync, `PRAGMA ${name}`)])
  t.deepEqual(settings(ours.DatabaseSync), settings(node.DatabaseSync))
})
