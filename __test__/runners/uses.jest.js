// What Jest runs many times, each in a realm of its own: copied to one.test.js and so on.

const { readFileSync } = require('node:fs')
const path = require('node:path')
const { DatabaseSync, HardenedDatabase, appendAgentLogs, check } = require('fusion-sqlite')

const file = path.join(process.env.FUSION_FOLDER, `${path.basename(__filename)}.db`)
const entry = (text, taskId = 'T') => ({ taskId, text, type: 'text' })
let db

beforeAll(() => {
  db = new HardenedDatabase(file)
  db.exec(readFileSync(process.env.FUSION_SCHEMA, 'utf8'))
  db.exec(`INSERT INTO tasks(id, createdAt, updatedAt) VALUES ('T', '', '')`)
})

test('receipts and results are objects of this realm', async () => {
  expect(await db.appendAgentLogs([entry('awaited')])).toStrictEqual({
    committed: 1,
    rejected: [],
    firstId: 1,
    lastId: 1,
  })
  const { rejected } = await db.appendAgentLogs([entry('no', 'missing')])
  expect(rejected).toStrictEqual([expect.objectContaining({ index: 0, errcode: 787 })])
  expect(await db.checkpoint()).toStrictEqual(expect.objectContaining({ mode: 'passive' }))
  expect(await check(file)).toStrictEqual(expect.objectContaining({ ok: true, findings: [] }))
})

test('errors are of this realm', async () => {
  expect(() => db.exec('no SQL')).toThrow(Error)
  expect(() => db.appendAgentLog(entry(1))).toThrow(TypeError)
  await expect(check(path.join(file, 'missing'))).rejects.toThrow(Error)
  await expect(db.appendAgentLogs([entry(1)])).rejects.toThrow(TypeError)
})

test('statements report what they did', () => {
  const memory = new DatabaseSync(':memory:')
  memory.exec('CREATE TABLE t(v)')
  memory.function('shared', () => new Uint8Array(2))
  expect(memory.prepare('INSERT INTO t VALUES (shared())').run()).toEqual({ changes: 1, lastInsertRowid: 1 })
  memory.close()
})

test('closing, both ways', async () => {
  const other = new HardenedDatabase(`${file}.other`)
  await other.check()
  await other.closeAsync()
  other.open()
  other.close()
})

test('entries without an await, and a database left open', () => {
  db.appendAgentLog(entry('left'))
  appendAgentLogs(file, [entry('by path')])
})
