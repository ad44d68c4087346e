// The checks of every change, as .ci/run calls them: formatters, linters, types, documents, generated
// files, then `npm test`. A check that fails counts as one failure in the last line. `npm run check`
// (`--no-tests`) leaves out the tests and the installation of the package.

import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { rustDocs } from './doc-rust.mjs'
import { SetupError, main, node24, prepare, root, run, runAndRead, tool } from './bootstrap.mjs'

/** Nothing is linked, so that libFuzzer, which is C++, need not be built. */
function checkFuzzTarget() {
  const args = ['check', '--locked', '--manifest-path', 'fuzz/Cargo.toml', '--target-dir', 'target']
  return run('cargo', args, { env: { CUSTOM_LIBFUZZER_PATH: path.join(root, 'target', 'libfuzzer.a') } })
}

const checks = [
  ['cargo fmt', () => run('cargo', ['fmt', '--check'])],
  ['cargo clippy', () => run('cargo', ['clippy', '--locked', '--all-targets', '--', '-D', 'warnings'])],
  ['cargo fmt of the fuzz target', () => run('cargo', ['fmt', '--check', '--manifest-path', 'fuzz/Cargo.toml'])],
  ['cargo fmt of the shell', () => run('cargo', ['fmt', '--check', '--manifest-path', 'tests/shell/Cargo.toml'])],
  ['the fuzz target compiles', checkFuzzTarget],
  ['prettier', () => run(node24, [tool.prettier, '--check', '.'])],
  ['oxlint', () => run(node24, [tool.oxlint])],
  ['tsc', () => run(node24, [tool.tsc, '--noEmit'])],
  ['documentation of the Rust modules', rustDocs],
  ['docs/api.md', () => run(node24, ['scripts/docs.mjs', '--check'])],
  ['words', () => run(node24, ['scripts/words.mjs'])],
]

/** With the tests. */
const installed = [['the package, installed', () => run(node24, ['scripts/pack-try.mjs', '--host-only', '--quick'])]]

/** The build rewrites these; the committed ones must be what it writes. */
const generated = ['binding.d.ts']

function readGenerated() {
  return generated.map((name) => {
    const file = path.join(root, name)
    return existsSync(file) ? readFileSync(file, 'utf8') : null
  })
}

await main(async () => {
  const failures = []
  const check = async (name, body) => {
    console.log(`\n== ${name}`)
    if ((await body()) !== 0) failures.push(name)
  }
  const committed = readGenerated()
  try {
    prepare()
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    console.error(`error: ${error.message}`)
    console.log('0 passed, 1 failed')
    return 1
  }
  await check('generated files', () => {
    const built = readGenerated()
    const stale = generated.filter((_, index) => built[index] === null || built[index] !== committed[index])
    for (const name of stale) console.error(`${name} is not what the build writes: run npm run build and commit it`)
    return stale.length === 0 ? 0 : 1
  })
  const withTests = !process.argv.includes('--no-tests')
  for (const [name, body] of withTests ? [...checks, ...installed] : checks) await check(name, body)
  if (!withTests) {
    console.log(failures.length === 0 ? '\nchecks: all passed' : `\nchecks failed: ${failures.join(', ')}`)
    return failures.length === 0 ? 0 : 1
  }

  console.log('\n== tests')
  // The JavaScript tests as on macOS, where the temporary folder's path leads through a symbolic link.
  const folder = mkdtempSync(path.join(os.tmpdir(), 'fusion-sqlite-ci-'))
  const TMPDIR = path.join(folder, 'link')
  mkdirSync(path.join(folder, 'real'))
  // Some tests become another user, who has to get into it.
  for (const name of [folder, path.join(folder, 'real')]) chmodSync(name, 0o755)
  symlinkSync(path.join(folder, 'real'), TMPDIR, 'dir')
  const tests = await runAndRead(node24, ['scripts/test.mjs'], { env: { FUSION_SQLITE_AVA_TMPDIR: TMPDIR } })
  rmSync(folder, { recursive: true, force: true })
  const [, passed = '0', failed = '1'] = /^(\d+) passed, (\d+) failed$/m.exec(tests.output) ?? []
  const ownFailures = Math.max(Number(failed), tests.code === 0 ? 0 : 1)

  console.log(failures.length === 0 ? 'checks: all passed' : `checks failed: ${failures.join(', ')}`)
  console.log(`${passed} passed, ${ownFailures + failures.length} failed`)
  return ownFailures + failures.length === 0 ? 0 : 1
})
