// The lines of `npm run bench -- sqlite`. Each makes, of a contender that `open` gives a database,
// the function that is timed; its first result must be the same for all contenders.

const INSERT = 'INSERT INTO log (taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)'
const ENTRY = [
  'FN-042',
  '2026-11-23T12:00:00.000Z',
  'Read src/store.ts and found three callers of the function that has to change.',
  'text',
  null,
  'executor',
]
const ROWS = 2000
const ONE = 'SELECT id, taskId, timestamp, type FROM log WHERE id = ?'
const LOG = 'SELECT * FROM log WHERE id > ? ORDER BY id LIMIT ?'

/** What `all` reads: columns of a table of ROWS rows. */
const tables = {
  'narrow: integer, text': 'SELECT id, type FROM log WHERE id > ? ORDER BY id LIMIT ?',
  'log: 7 columns': LOG,
  'wide: 20 columns': 'SELECT * FROM wide WHERE id > ? ORDER BY id LIMIT ?',
  'text: 4 columns': 'SELECT a, b, c, d FROM texts WHERE id > ? ORDER BY id LIMIT ?',
  'integers: 4 columns': 'SELECT a, b, c, d FROM integers WHERE id > ? ORDER BY id LIMIT ?',
  'blobs: 2 columns': 'SELECT a, b FROM blobs WHERE id > ? ORDER BY id LIMIT ?',
}

function empty(open, file) {
  const db = open(file)
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT);
    CREATE INDEX logTask ON log (taskId)`)
  return db
}

function filled(open) {
  const db = empty(open)
  const wide = Array.from({ length: 19 }, (_, i) => `c${i} ${['TEXT', 'INTEGER', 'REAL'][i % 3]}`)
  db.exec(`CREATE TABLE wide (id INTEGER PRIMARY KEY, ${wide.join(', ')});
    CREATE TABLE texts (id INTEGER PRIMARY KEY, a TEXT, b TEXT, c TEXT, d TEXT);
    CREATE TABLE integers (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, d INTEGER);
    CREATE TABLE blobs (id INTEGER PRIMARY KEY, a BLOB, b BLOB);
    BEGIN`)
  const log = db.prepare(INSERT)
  const wides = db.prepare(`INSERT INTO wide VALUES (NULL, ${wide.map(() => '?').join(', ')})`)
  const texts = db.prepare('INSERT INTO texts VALUES (NULL, ?, ?, ?, ?)')
  const integers = db.prepare('INSERT INTO integers VALUES (NULL, ?, ?, ?, ?)')
  const blobs = db.prepare('INSERT INTO blobs VALUES (NULL, ?, ?)')
  for (let i = 1; i <= ROWS; i++) {
    log.run(...ENTRY)
    wides.run(...wide.map((_, column) => [`value ${i} of ${column}`, i * column, i / 7][column % 3]))
    texts.run(`FN-${i}`, ENTRY[2], `Grüße an Nr. ${i}: ✓`, 'x'.repeat(200))
    integers.run(i, -i, i * 1e6, i * 2 ** 40)
    blobs.run(new Uint8Array(32).fill(i), new Uint8Array(256).fill(i))
  }
  db.exec('COMMIT')
  return db
}

let texts = 0
/** Where a statement goes, lest V8 sees that nobody uses it. */
export let kept = null

/** The share of node:sqlite's time that a line may take at most; 1 where nothing is said. */
export const PER_CALL = 0.33

/** Name, the function that makes the timed function, and its target if not 1. */
export const cases = [
  [
    'run: insert, autocommit, memory',
    (open) => {
      const insert = empty(open).prepare(INSERT)
      return () => insert.run(...ENTRY)
    },
  ],
  [
    'run: insert, autocommit, WAL file',
    (open, file) => {
      const insert = empty(open, file).prepare(INSERT)
      return () => insert.run(...ENTRY)
    },
  ],
  [
    'run: insert, in a transaction, WAL file',
    (open, file) => {
      const db = empty(open, file)
      db.exec('BEGIN')
      const insert = db.prepare(INSERT)
      return () => insert.run(...ENTRY)
    },
  ],
  [
    'run: update, named parameters',
    (open) => {
      const update = filled(open).prepare('UPDATE log SET detail = $detail WHERE id = $id')
      let id = 0
      return () => update.run({ detail: 'done', id: (id++ % ROWS) + 1 })
    },
  ],
  [
    'get: 1 column',
    (open) => {
      const select = filled(open).prepare('SELECT count(*) AS n FROM (SELECT 1)')
      return () => select.get()
    },
  ],
  [
    'get: 4 columns',
    (open) => {
      const select = filled(open).prepare(ONE)
      let id = 0
      return () => select.get((id++ % ROWS) + 1)
    },
  ],
  [
    'get: 20 columns',
    (open) => {
      const select = filled(open).prepare('SELECT * FROM wide WHERE id = ?')
      let id = 0
      return () => select.get((id++ % ROWS) + 1)
    },
  ],
  [
    'get: nothing found',
    (open) => {
      const select = filled(open).prepare(ONE)
      return () => select.get(-1)
    },
  ],
  [
    'get: named parameter',
    (open) => {
      const select = filled(open).prepare(ONE.replace('?', '$id'))
      let id = 0
      return () => select.get({ id: (id++ % ROWS) + 1 })
    },
  ],
  ...[10, 1000].flatMap((rows) =>
    Object.entries(tables).map(([name, sql]) => [
      `all: ${rows} rows, ${name}`,
      (open) => {
        const select = filled(open).prepare(sql)
        let after = 0
        return () => select.all(after++ % 500, rows)
      },
    ]),
  ),
  ...[10, 1000].map((limit) => [
    `iterate: ${limit} rows, log: 7 columns`,
    (open) => {
      const select = filled(open).prepare(LOG)
      let after = 0
      return () => {
        let length = 0
        for (const row of select.iterate(after++ % 500, limit)) length += row.text.length
        return length
      }
    },
  ]),
  [
    'prepare: a repeated text',
    (open) => {
      const db = filled(open)
      return () => {
        kept = db.prepare(ONE)
      }
    },
    PER_CALL,
  ],
  [
    'prepare: a text never seen before',
    (open) => {
      const db = filled(open)
      return () => {
        kept = db.prepare(`${ONE} -- ${texts++}`)
      }
    },
  ],
  [
    'prepare + run: insert',
    (open) => {
      const db = empty(open)
      return () => db.prepare(INSERT).run(...ENTRY)
    },
    PER_CALL,
  ],
  [
    'prepare + get: 4 columns',
    (open) => {
      const db = filled(open)
      let id = 0
      return () => db.prepare(ONE).get((id++ % ROWS) + 1)
    },
    PER_CALL,
  ],
  [
    'prepare + all: 10 rows, log: 7 columns',
    (open) => {
      const db = filled(open)
      let after = 0
      return () => db.prepare(LOG).all(after++ % 500, 10)
    },
    PER_CALL,
  ],
  ...[
    ['1,000 inserts, memory', false],
    ['1,000 inserts, WAL file', true],
  ].map(([name, onDisk]) => [
    `transaction: ${name}`,
    (open, file) => {
      const db = empty(open, onDisk ? file : undefined)
      const insert = db.prepare(INSERT)
      return () => {
        db.exec('BEGIN')
        for (let i = 0; i < 1000; i++) insert.run(...ENTRY)
        db.exec('COMMIT')
      }
    },
  ]),
  [
    'transaction: 1,000 inserts, prepare per call',
    (open) => {
      const db = empty(open)
      return () => {
        db.exec('BEGIN')
        for (let i = 0; i < 1000; i++) db.prepare(INSERT).run(...ENTRY)
        db.exec('COMMIT')
      }
    },
    PER_CALL,
  ],
  [
    'exec: BEGIN and COMMIT',
    (open) => {
      const db = empty(open)
      return () => {
        db.exec('BEGIN')
        db.exec('COMMIT')
      }
    },
  ],
  [
    'exec: one insert',
    (open) => {
      const db = empty(open)
      return () =>
        void db.exec("INSERT INTO log (taskId, timestamp, text, type) VALUES ('FN-1', 'now', 'hello', 'text')")
    },
  ],
  [
    'exec: a script of 4 statements',
    (open) => {
      const db = filled(open)
      return () =>
        void db.exec(`BEGIN; UPDATE log SET detail = 'a' WHERE id = 1;
          DELETE FROM log WHERE id = -1; COMMIT`)
    },
  ],
  [
    'function: 1,000 calls with an integer',
    (open) => {
      const db = filled(open)
      db.function('double_it', (value) => value * 2)
      const select = db.prepare('SELECT sum(double_it(a)) AS total FROM integers WHERE id <= 1000')
      return () => select.get()
    },
  ],
  [
    'function: 1,000 calls with a text',
    (open) => {
      const db = filled(open)
      db.function('shorten', (value) => value.slice(0, 8))
      const select = db.prepare('SELECT count(shorten(b)) AS total FROM texts WHERE id <= 1000')
      return () => select.get()
    },
  ],
]
