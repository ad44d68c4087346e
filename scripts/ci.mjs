// The checks of every change, as .ci/run calls them: formatters, linters, types, generated files,
// then `npm test`. A check that fails counts as one failure in the last line.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { SetupError, main, node24, prepare, root, run, runAndRead, tool } from './bootstrap.mjs'

const checks = [
  ['cargo fmt', () => run('cargo', ['fmt', '--check'])],
  ['cargo clippy', () => run('cargo', ['clippy', '--locked', '--all-targets', '--', '-D', 'warnings'])],
  ['prettier', () => run(node24, [tool.prettier, '--check', '.'])],
  ['oxlint', () => run(node24, [tool.oxlint])],
  ['tsc', () => run(node24, [tool.tsc, '--noEmit'])],
]

const generated = ['binding.js', 'binding.d.ts']
const read = (file) => readFileSync(path.join(root, file), 'utf8')

/** The build rewrites the generated files; the committed ones must be what it writes. */
async function generatedFilesUpToDate() {
  const { code, output } = await runAndRead('git', ['status', '--porcelain', '--', ...generated])
  return code === 0 && output === '' ? 0 : 1
}

await main(async () => {
  const failures = []
  const check = async (name, body) => {
    console.log(`\n== ${name}`)
    if ((await body()) !== 0) failures.push(name)
  }
  try {
    prepare()
    generated.forEach(read)
  } catch (error) {
    console.error(`error: ${error.message}`)
    console.log('0 passed, 1 failed')
    if (!(error instanceof SetupError) && error.code !== 'ENOENT') throw error
    return 1
  }
  await check('generated files', generatedFilesUpToDate)
  for (const [name, body] of checks) await check(name, body)

  console.log('\n== tests')
  const tests = await runAndRead(node24, ['scripts/test.mjs'])
  const [, passed = '0', failed = '1'] = /^(\d+) passed, (\d+) failed$/m.exec(tests.output) ?? []
  const ownFailures = Math.max(Number(failed), tests.code === 0 ? 0 : 1)

  console.log(failures.length === 0 ? 'checks: all passed' : `checks failed: ${failures.join(', ')}`)
  console.log(`${passed} passed, ${ownFailures + failures.length} failed`)
  return ownFailures + failures.length === 0 ? 0 : 1
})
