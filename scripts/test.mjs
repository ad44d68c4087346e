// `npm test`: installs and builds what is missing, runs cargo's tests, every ava test under Node 24,
// and those of what stands in for node:sqlite under the newest Node, too. The last line adds all up.

import { stripVTControlCharacters } from 'node:util'
import { SetupError, ensureNewestNode, main, node24, prepare, runAndRead, tool } from './bootstrap.mjs'

const sum = (text, pattern) => [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0)

/**
 * What one runner reports. A runner that fails without a failed test (a crash, a compile error) counts one.
 * `names` are the failed tests' own lines: they are printed last, so that the end of a cut output has them.
 */
function counted(runner, code, passed, failed, names) {
  if (code !== 0 && names.length === 0) names = [`${runner} ended with ${code}; its output is above`]
  return { passed, failed: code === 0 ? failed : Math.max(failed, 1), names }
}

async function cargo() {
  const { code, output } = await runAndRead('cargo', ['test', '--locked', '--no-fail-fast'])
  const text = stripVTControlCharacters(output)
  const passed = sum(text, /^test result: .*?(\d+) passed;/gm)
  const names = text.match(/^test .* FAILED$/gm) ?? []
  return counted('cargo test', code, passed, sum(text, /^test result: .*? (\d+) failed;/gm), names)
}

/** The tests whose right answers are those of the Node that runs. */
const COMPARED = ['environment', 'database-sync-*', 'differential-random', 'register']

async function ava(args, node = node24, env = {}) {
  const { FUSION_SQLITE_AVA_TMPDIR: TMPDIR } = process.env
  const { code, output } = await runAndRead(node, [tool.ava, ...args], { env: { ...(TMPDIR && { TMPDIR }), ...env } })
  const text = stripVTControlCharacters(output)
  // The summary leaves the passed ones out when one failed; every passed test has a line.
  const passed = [...text.matchAll(/^ *[✔√] /gm)].length
  const failures = [
    /^ *(\d+) tests? failed\b/gm,
    /^ *(\d+) uncaught exceptions?\b/gm,
    /^ *(\d+) unhandled rejections?\b/gm,
  ]
  const names = text.match(/^ *[✘×] .*|^ *(?:Uncaught exception|Unhandled rejection) in .*/gm) ?? []
  return counted(
    'ava',
    code,
    passed,
    failures.reduce((total, pattern) => total + sum(text, pattern), 0),
    names.map((name) => name.trim()),
  )
}

await main(async () => {
  const totals = { passed: 0, failed: 0, names: [] }
  const add = ({ passed, failed, names }) => {
    totals.passed += passed
    totals.failed += failed
    totals.names.push(...names)
  }
  try {
    prepare()
    // Arguments select ava's files or tests; cargo's then stay out of the way.
    const args = process.argv.slice(2)
    if (args.length === 0) add(await cargo())
    add(await ava(args))
    if (args.length === 0) {
      const { node, major } = ensureNewestNode()
      console.log(`\n== what stands in for node:sqlite, under Node ${major}`)
      const files = COMPARED.map((name) => `__test__/${name}.test.ts`)
      add(await ava(files, node, { FUSION_SQLITE_NODE: major }))
    }
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    console.error(`error: ${error.message}`)
    totals.failed += 1
  }
  for (const name of totals.names) console.log(`failed: ${name}`)
  console.log(`${totals.passed} passed, ${totals.failed} failed`)
  return totals.failed === 0 && totals.passed > 0 ? 0 : 1
})
