// A FIFO, a socket or a directory at any name that the package reads or makes: nothing waits for it, and
// it is there afterwards as it was.

import { execFileSync } from 'node:child_process'
import { lstatSync, mkdirSync, rmSync } from 'node:fs'
import { type Server, createServer } from 'node:net'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { backupFile } from '../index.js'
import { operate } from './helpers/operate.ts'
import { database } from './support.ts'

type Make = (t: ExecutionContext, at: string) => Promise<void> | void

const KINDS: Record<string, Make> = {
  fifo: (_, at) => void execFileSync('mkfifo', [at]),
  directory: (_, at) => void mkdirSync(at),
  socket: async (t, at) => {
    const server: Server = createServer()
    // A socket's path has 100 bytes or so.
    const back = process.cwd()
    process.chdir(path.dirname(at))
    await new Promise<void>((resolve) => server.listen(path.basename(at), resolve))
    process.chdir(back)
    t.teardown(() => server.close())
  },
}

const STAMP = '20260101T000000Z'
/** Names next to a database `x`, and whether SQLite cannot do without it. */
const NAMES = [
  ['x-wal', true],
  ['x-shm', true],
  ['x-journal', true],
  ['x-schema', false],
  [`x.damaged-${STAMP}`, false],
  [`x.damaged-${STAMP}-wal`, false],
  [`x.before-restore-${STAMP}-spare`, false],
  [`x-wal.stale-${STAMP}`, false],
  ['x.backup.1', false],
  ['.x.backup.partial-2-0', false],
  ['.x.partial-2-0', false],
  ['.x-schema.partial-2-0', false],
] as const

const deadline = 20_000

if (process.platform !== 'win32') {
  for (const [kind, make] of Object.entries(KINDS)) {
    test.serial(`a ${kind} next to a database keeps nothing waiting, and stays`, async (t) => {
      for (const [name, isEssential] of NAMES) {
        // A folder that no operation is under way for is a folder of the package.
        if (kind === 'directory' && name.includes('.partial-')) continue
        const file = database(t)
        await backupFile(file)
        const odd = path.join(path.dirname(file), name.replace('x', path.basename(file)))
        rmSync(odd, { force: true })
        await make(t, odd)
        const before = lstatSync(odd)
        const answers = await operate(undefined, [
          ['check', file, { deadline }],
          ['log', file],
          ['fileInfo', file, { deadline }],
          ['backupFile', file, `${file}.backup`, { deadline }],
          ['restore', file, `${file}.backup`, { deadline }],
          ['recover', file, { deadline }],
          ['recover', file, { to: `${file}.to`, deadline }],
        ])
        const after = lstatSync(odd)
        t.is(after.ino, before.ino, `${name} is there still`)
        t.is(after.mode, before.mode)
        for (const [index, { error }] of answers.entries()) {
          const message = `${kind} ${name}, operation ${index}: ${JSON.stringify(error)}`
          t.not(error?.code, 'ERR_FUSION_DEADLINE', message)
          // What is essential is named; what is not is in no way, but for a backup's next name.
          if (error !== undefined) t.is(error.code, 'ERR_FUSION_NOT_A_FILE', message)
          if (!isEssential && !name.includes('.backup.')) t.is(error, undefined, message)
        }
        if (isEssential) t.is(answers[0].error?.code, 'ERR_FUSION_NOT_A_FILE', `${kind} ${name}`)
      }
    })
  }

  test('a FIFO as the database, a backup or a target is named', async (t) => {
    const file = database(t)
    const fifo = `${file}.fifo`
    execFileSync('mkfifo', [fifo])
    const answers = await operate(undefined, [
      ['check', fifo, { deadline }],
      ['log', fifo],
      ['backupFile', fifo, `${file}.b`, { deadline }],
      ['backupFile', file, fifo, { deadline }],
      ['restore', file, fifo, { deadline }],
      ['restore', fifo, file, { deadline }],
      ['recover', fifo, { deadline }],
      ['recover', fifo, { to: `${file}.to`, deadline }],
    ])
    for (const [index, { error }] of answers.entries()) t.is(error?.code, 'ERR_FUSION_NOT_A_FILE', `${index}`)
    t.true(lstatSync(fifo).isFIFO())
    const [taken] = await operate(undefined, [['recover', file, { to: fifo, deadline }]])
    t.is(taken.error?.errcode, 14)
  })
}
