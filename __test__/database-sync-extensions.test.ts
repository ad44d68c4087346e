// Loadable extensions, and defensive mode, as node:sqlite has them.

import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, realpathSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { same } from './helpers/differential.ts'

const any = (value: unknown) => value as never

const SOURCE = `
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1
static void answer(sqlite3_context *c, int n, sqlite3_value **v) { sqlite3_result_int(c, 42); }
int sqlite3_ext_init(sqlite3 *db, char **e, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api); return sqlite3_create_function(db, "answer", 0, SQLITE_UTF8, 0, answer, 0, 0);
}
int other(sqlite3 *db, char **e, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api); return sqlite3_create_function(db, "other", 0, SQLITE_UTF8, 0, answer, 0, 0);
}
int failing(sqlite3 *db, char **e, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api); *e = sqlite3_mprintf("it said no"); return 1;
}`

/** An extension that was just compiled, or null where there is no compiler or header. */
function build(): string | null {
  const cargo = process.env['CARGO_HOME'] ?? path.join(homedir(), '.cargo')
  const [header] = globSync(path.join(cargo, 'registry/src/*/libsqlite3-sys-*/sqlite3/sqlite3ext.h'))
  if (header === undefined || process.platform === 'win32') return null
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'fusion-sqlite-extension-')))
  const source = path.join(directory, 'ext.c')
  const library = path.join(directory, process.platform === 'darwin' ? 'ext.dylib' : 'ext.so')
  writeFileSync(source, SOURCE)
  spawnSync(process.env['CC'] ?? 'cc', ['-shared', '-fPIC', '-I', path.dirname(header), '-o', library, source])
  return existsSync(library) ? library : null
}

const library = build()
if (library === null) test.skip('an extension: no compiler, or no header of SQLite', () => {})

same('permission to load extensions', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  look('load', () => db.loadExtension('./none'))
  look('load, wrong', () => db.loadExtension(any(1)))
  for (const value of [true, false, undefined, 1, null]) look(`${value}`, () => db.enableLoadExtension(any(value)))
  look('SQL', () => db.prepare("SELECT load_extension('./none')").get())
  for (const value of [1, null, 'a']) {
    look(`option ${value}`, () => new DatabaseSync(':memory:', { allowExtension: any(value) }))
  }
  db.close()
  look('closed', () => db.loadExtension('./none'))
  look('closed', () => db.enableLoadExtension(any(1)))
})

same('loading extensions', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:', { allowExtension: true })
  for (const value of [undefined, 1, null, {}]) look(`path ${value}`, () => db.loadExtension(any(value)))
  look('SQL', () => db.prepare("SELECT load_extension('./none')").get())
  for (const file of ['./none', '/tmp/none.so', '', 'a\0b', '/']) look(`file ${file}`, () => db.loadExtension(file))
  if (library === null) return
  const load = db.loadExtension as (...args: unknown[]) => void
  look('load', () => [load.call(db, library), db.prepare('SELECT answer() v').get()])
  look('no other', () => db.prepare('SELECT other() v').get())
  look('other', () => [load.call(db, library, 'other'), db.prepare('SELECT other() v').get()])
  look('failing', () => load.call(db, library, 'failing'))
  for (const entry of ['none', '', undefined, 1, null, {}]) look(`entry ${entry}`, () => load.call(db, library, entry))
  look('forbid', () => db.enableLoadExtension(false))
  look('forbidden', () => load.call(db, library))
  db.close()
  db.open()
  look('still forbidden', () => load.call(db, library))
  look('permit', () => db.enableLoadExtension(true))
  look('permitted', () => [load.call(db, library), db.prepare('SELECT answer() v').get()])
  db.function('inside', () => (load.call(db, library, 'other'), 1))
  look('inside', () => db.prepare('SELECT inside() v').get())
  db.setAuthorizer(() => 1)
  look('with an authorizer', () => load.call(db, library))
})

same('enableDefensive()', ({ DatabaseSync }, look) => {
  const db = new DatabaseSync(':memory:')
  db.exec('CREATE TABLE t (a)')
  const damage = () => db.exec('PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = name')
  for (const value of [undefined, 1, null, 'a']) look(`${value}`, () => db.enableDefensive(any(value)))
  look('on', damage)
  look('off', () => [db.enableDefensive(false), damage()])
  look('on again', () => [db.enableDefensive(true), damage()])
  db.enableDefensive(false)
  db.close()
  db.open()
  db.exec('CREATE TABLE t (a)')
  look('reopened', damage)
  db.close()
  look('closed', () => db.enableDefensive(any(1)))
})
