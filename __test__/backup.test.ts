// Backups off the event loop.

import { existsSync, mkdtempSync, realpathSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import type { DatabaseSync as NodeDatabase } from 'node:sqlite'
import * as ours from '../index.js'
import { run } from './helpers/child.ts'
import { sameAsync, type Api } from './helpers/differential.ts'

const any = (value: unknown) => value as never
const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'fusion-backup-')))
let files = 0
const file = () => path.join(directory, `${files++}.db`)

const FILL = (rows: number) => `
  CREATE TABLE t (a, b);
  WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < ${rows})
  INSERT INTO t SELECT x, zeroblob(1000) FROM c`

function filled(Database: Api['DatabaseSync'], rows = 500, name = ':memory:'): NodeDatabase {
  const db = new Database(name)
  db.exec(FILL(rows))
  return db
}

const count = (Database: Api['DatabaseSync'], name: string) => {
  const db = new Database(name)
  const row = db.prepare('SELECT count(*) AS c FROM t').get()
  db.close()
  return row
}

sameAsync('arguments of backup', async ({ DatabaseSync, backup }, look) => {
  const db = filled(DatabaseSync, 20)
  for (const source of [undefined, null, 1, 'x']) await look('source', () => backup(source as never, file()))
  const paths = [undefined, null, 1, {}, 'a\0b', Buffer.from('a\0b'), directory, path.join(directory, 'no', 'x.db')]
  paths.push(Buffer.from(file()), new URL(`file://${file()}`), new URL('http://a/b'), `file:${file()}`, '', ':memory:')
  paths.push({ href: `file://${file()}` })
  for (const [index, name] of paths.entries()) await look(`path ${index}`, () => backup(db, name as never))
  const options: unknown[] = [undefined, null, 1, 'a', () => {}, [], { rate: 'x', source: 1, progress: 1 }]
  for (const name of [1, null, undefined, '', 'nope', 'main', 'temp', 'main\0x']) {
    options.push({ source: name }, { target: name })
  }
  for (const rate of ['x', 1.5, NaN, 1n, null, undefined, {}, 2 ** 31, -(2 ** 31) - 1, 0, -0, -1, 1, 2 ** 31 - 1]) {
    options.push({ rate })
  }
  for (const progress of [1, null, undefined, () => {}]) options.push({ progress })
  options.push({ source: 1, target: 1 }, { target: 1, progress: 1 })
  for (const [index, option] of options.entries()) {
    await look(`options ${index}`, () => backup(db, file(), option as never))
  }
  const asked: string[] = []
  const values: Record<string, unknown> = { source: 'main', progress: () => {}, rate: 5, target: 'main' }
  const option = new Proxy({}, { get: (_, key) => (asked.push(String(key)), values[String(key)]) })
  await look('order', async () => [await backup(db, file(), option), asked])
  const throwing = {
    get rate() {
      throw any(null)
    },
  }
  await look('throwing', () => backup(db, file(), any(throwing)))
  db.close()
  await look('closed', () => backup(db, any(1)))
})

sameAsync('progress of backup', async ({ DatabaseSync, backup }, look) => {
  const db = filled(DatabaseSync)
  for (const rate of [1, 50, 5000, undefined]) {
    await look(`rate ${rate}`, async () => {
      const seen: unknown[] = []
      const target = file()
      const progress = function (this: unknown, ...args: unknown[]) {
        seen.push(this, args)
      }
      return [await backup(db, target, { rate, progress }), count(DatabaseSync, target), seen]
    })
  }
  for (const thrown of [new Error('mine'), null, undefined, 5]) {
    const target = file()
    const progress = () => {
      throw thrown
    }
    await look('thrown', () => backup(db, target, { rate: 50, progress }))
    await look('target', () => count(DatabaseSync, target))
  }
  await look('promise', () => backup(db, file(), { rate: 50, progress: (async () => {}) as never }))
  await look('written meanwhile', async () => {
    const seen: unknown[] = []
    const target = file()
    const progress = (info: object) => {
      seen.push(info)
      if (seen.length < 3) db.exec('INSERT INTO t SELECT * FROM t LIMIT 100')
    }
    return [await backup(db, target, { rate: 50, progress }), seen, count(DatabaseSync, target)]
  })
  await look('written by another connection', async () => {
    const name = file()
    const source = new DatabaseSync(name)
    source.exec('PRAGMA journal_mode = WAL')
    source.exec(FILL(500))
    const other = new DatabaseSync(name)
    const seen: unknown[] = []
    const progress = (info: object) => {
      if (seen.push(info) === 2) other.exec('INSERT INTO t VALUES (1, 2)')
    }
    const target = file()
    return [await backup(source, target, { rate: 50, progress }), seen, count(DatabaseSync, target)]
  })
  await look('closed meanwhile', async () => {
    const target = file()
    const progress = () => {
      if (db.isOpen) db.close()
    }
    return [await backup(db, target, { rate: 5, progress }), count(DatabaseSync, target)]
  })
  await look('closed at once', async () => {
    const source = filled(DatabaseSync)
    const target = file()
    const promise = backup(source, target, { rate: 5 })
    source.close()
    return [await promise, count(DatabaseSync, target)]
  })
  await look('closed and reopened', async () => {
    const source = filled(DatabaseSync)
    const target = file()
    let calls = 0
    const progress = () => {
      if (calls++ > 0) return
      source.close()
      source.open()
      source.exec('CREATE TABLE other (a)')
    }
    return [await backup(source, target, { rate: 20, progress }), calls, count(DatabaseSync, target)]
  })
  await look('replaced meanwhile', async () => {
    const source = filled(DatabaseSync)
    const bytes = source.serialize()
    return backup(source, file(), { rate: 7, progress: () => source.deserialize(bytes) })
  })
})

sameAsync('sources and targets of backup', async ({ DatabaseSync, backup }, look) => {
  const db = filled(DatabaseSync, 50)
  const schema = (name: string) => new DatabaseSync(name).prepare('SELECT name FROM sqlite_schema').all()
  await look('itself', () => {
    const name = file()
    return backup(filled(DatabaseSync, 5, name), name)
  })
  await look('over another', async () => {
    const name = file()
    const other = new DatabaseSync(name)
    other.exec('CREATE TABLE old (a)')
    return [await backup(db, name), schema(name), other.prepare('SELECT count(*) AS c FROM t').get()]
  })
  for (const lock of ['BEGIN EXCLUSIVE', 'BEGIN IMMEDIATE', 'BEGIN; SELECT * FROM old']) {
    await look(lock, () => {
      const name = file()
      const other = new DatabaseSync(name)
      other.exec(`CREATE TABLE old (a); INSERT INTO old VALUES (1); ${lock}`)
      return backup(db, name)
    })
  }
  await look('no database', () => {
    const name = file()
    writeFileSync(name, 'hello world'.repeat(1000))
    return backup(db, name)
  })
  await look('other page size, WAL', () => {
    const name = file()
    new DatabaseSync(name).exec('PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE old (a)')
    return backup(db, name)
  })
  await look('WAL', async () => {
    const name = file()
    const source = new DatabaseSync(name)
    source.exec('PRAGMA journal_mode = WAL; CREATE TABLE t (a)')
    const target = file()
    return [await backup(source, target), new DatabaseSync(target).prepare('PRAGMA journal_mode').get()]
  })
  await look('locked source', () => {
    const name = file()
    const source = filled(DatabaseSync, 5, name)
    const other = new DatabaseSync(name)
    other.exec('BEGIN EXCLUSIVE')
    return backup(source, file())
  })
  await look('source in a write transaction', async () => {
    db.exec('BEGIN; INSERT INTO t VALUES (1, 2)')
    try {
      return await backup(db, file())
    } finally {
      db.exec('ROLLBACK')
    }
  })
  await look('attached', async () => {
    db.exec("ATTACH ':memory:' AS x; CREATE TABLE x.y (a)")
    const name = file()
    return [await backup(db, name, { source: 'x' }), schema(name)]
  })
  await look('empty', async () => {
    const seen: unknown[] = []
    return [await backup(new DatabaseSync(':memory:'), file(), { progress: (info) => seen.push(info) }), seen]
  })
  await look('two at once', () => Promise.all([backup(db, file(), { rate: 1 }), backup(db, file(), { rate: 2 })]))
  await look('in the middle of an iteration', async () => {
    const iterator = db.prepare('SELECT a FROM t').iterate()
    iterator.next()
    return [await backup(db, file(), { rate: 2 }), iterator.next()]
  })
})

test('a source that is no database is an error', (t) => {
  const db = new ours.DatabaseSync(':memory:')
  for (const source of [{}, () => {}, Object.create(db), new Proxy(db, {}), db.prepare('SELECT 1')]) {
    t.throws(() => ours.backup(source as never, file()), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  const closing = {
    get progress() {
      db.close()
      return () => {}
    },
  }
  t.throws(() => ours.backup(db, file(), closing), { code: 'ERR_INVALID_STATE', message: 'database is not open' })
})

test('the error of a locked database says so in its cause', async (t) => {
  const name = file()
  const other = new ours.DatabaseSync(name)
  other.exec('CREATE TABLE t (a); BEGIN EXCLUSIVE')
  const error = (await t.throwsAsync(ours.backup(new ours.DatabaseSync(':memory:'), name)))!
  t.like(error.cause, { code: 'ERR_SQLITE_ERROR', errcode: 5, message: 'database is locked' })
})

test('the connection can be used in the middle of backups', async (t) => {
  const db = filled(any(ours.DatabaseSync), 3000, file()) as unknown as ours.DatabaseSync
  db.exec('PRAGMA synchronous = OFF')
  const targets = [file(), file(), file()]
  const state = { done: false }
  const backups = Promise.all(targets.map((target, index) => ours.backup(db, target, { rate: 3 + index }))).finally(
    () => {
      state.done = true
    },
  )
  let turns = 0
  while (!state.done) {
    db.prepare('INSERT INTO t VALUES (?, zeroblob(500))').run(turns)
    db.prepare(`SELECT ${turns}, count(*) FROM t`).get()
    const iterator = db.prepare('SELECT a FROM t LIMIT 3').iterate()
    iterator.next()
    if (turns % 2 === 0) iterator.return!()
    if (turns % 10 === 0) db.createSession().close()
    turns++
    await new Promise((resolve) => setImmediate(resolve))
  }
  await backups
  t.true(turns > 10)
  for (const target of targets) {
    const copy = new ours.DatabaseSync(target)
    t.deepEqual({ ...copy.prepare('PRAGMA integrity_check').get() }, { integrity_check: 'ok' })
    t.true((copy.prepare('SELECT count(*) AS c FROM t').get() as { c: number }).c >= 3000)
    copy.close()
  }
  db.close()
})

test('a backup ends when its worker is terminated, and the process goes on', (t) => {
  const child = run(
    `
    const { Worker } = require('node:worker_threads');
    const index = ${JSON.stringify(path.resolve(import.meta.dirname, '../index.js'))};
    const source = 'const sqlite = require(' + JSON.stringify(index) + ');' + \`
      const { parentPort, workerData } = require('node:worker_threads');
      const db = new sqlite.DatabaseSync(':memory:');
      db.exec(\${JSON.stringify(${JSON.stringify(FILL(5000))})});
      for (let i = 0; i < 4; i++) sqlite.backup(db, workerData + i, { rate: i === 0 ? 2000 : 1, progress: i === 1 ? () => {} : undefined }).catch(() => {});
      if (workerData.endsWith('close')) db.close();
      parentPort.postMessage('ready');
      for (;;) if (db.isOpen) db.prepare('SELECT count(*) FROM t').get();
        else break;
    \`;
    (async () => {
      for (let i = 0; i < 10; i++) {
        const worker = new Worker(source, { eval: true, workerData: ${JSON.stringify(path.join(directory, 'worker'))} + i + (i % 2 ? 'close' : '') });
        await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
        await new Promise((resolve) => setTimeout(resolve, i * 5));
        await worker.terminate();
      }
      console.log('alive');
    })();
  `,
  )
  t.deepEqual([child.status, child.out], [0, 'alive'], child.err)
})

test('a forgotten source is backed up to the end, and the process then ends by itself', (t) => {
  const target = file()
  const child = run(
    `
    let db = new sqlite.DatabaseSync(':memory:');
    db.exec(${JSON.stringify(FILL(2000))});
    sqlite.backup(db, ${JSON.stringify(target)}, { rate: 5 }).then(console.log);
    db = null;
    const timer = setInterval(gc, 1);
    timer.unref();
  `,
    '--expose-gc',
  )
  t.is(child.status, 0, child.err)
  t.true(existsSync(target))
  t.deepEqual({ ...count(any(ours.DatabaseSync), target) }, { c: 2000 })
})

test('process.exit() in the middle of a backup', (t) => {
  const child = run(`
    const db = new sqlite.DatabaseSync(':memory:');
    db.exec(${JSON.stringify(FILL(5000))});
    sqlite.backup(db, ${JSON.stringify(file())}, { rate: 1 });
    setTimeout(() => process.exit(7), 20);
  `)
  t.is(child.status, 7, child.err)
})
