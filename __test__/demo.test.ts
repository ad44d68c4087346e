// The demo's promises to a shell: what it prints and how it ends.

import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const script = fileURLToPath(new URL('../demo/demo.mjs', import.meta.url))

function demo(...args: string[]): Promise<{ code: number | string; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...args], { timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? 'killed') : 0, output: stdout + stderr })
    })
  })
}

async function fileOf(t: import('ava').ExecutionContext, text: string): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'fusion-sqlite-demo-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = path.join(folder, 'entries.jsonl')
  await writeFile(file, text)
  return file
}

test('every row of the excerpt is stored and the database is sound', async (t) => {
  const { code, output } = await demo()
  t.is(code, 0, output)
  t.regex(output, /integrity check +ok/)
  t.regex(output, /rows counted +3,173 of 3,173, by another process/)
  // The picture: a bar for each way, of the main thread's time and of the WAL.
  for (const unit of ['µs', 'bytes']) {
    for (const way of ['node:sqlite', 'fusion-sqlite'])
      t.regex(output, new RegExp(`^ +${way} +[█▏▎▍▌▋▊▉]+ [\\d,.]+ ${unit}$`, 'm'))
  }
})

test('other writers and a copy of the live files do no harm', async (t) => {
  const { code, output } = await demo('--disturb')
  t.is(code, 0, output)
  t.regex(output, /rows counted +3,573 of 3,573/)
})

test('a missing input is a usage error', async (t) => {
  const { code, output } = await demo('--input', 'no-such-file.jsonl')
  t.is(code, 64)
  t.regex(output, /no-such-file\.jsonl: no such file/)
})

test('a broken line is named by file and line', async (t) => {
  const entry = JSON.stringify({ taskId: 'T', text: 'x', type: 'text', timestamp: '2026-01-01T00:00:00.000Z' })
  const broken = await demo('--input', await fileOf(t, `${entry}\n{"taskId":\n`))
  t.is(broken.code, 1)
  t.regex(broken.output, /entries\.jsonl:2: not JSON/)

  const incomplete = await demo('--input', await fileOf(t, `${entry}\n{"taskId":"T"}\n`))
  t.is(incomplete.code, 1)
  t.regex(incomplete.output, /entries\.jsonl:2: .*text, type must be a string/)
})

test('options out of range are usage errors', async (t) => {
  for (const args of [['--agents', '0'], ['--agents', 'x'], ['--rate', '-1'], ['--unknown']]) {
    const { code, output } = await demo(...args)
    t.is(code, 64, args.join(' '))
    t.regex(output, /Usage: npm run demo/)
  }
})

test('--help prints the options', async (t) => {
  const { code, output } = await demo('--help')
  t.is(code, 0)
  t.regex(output, /--keep/)
})
