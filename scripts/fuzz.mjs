// `npm run fuzz [-- SECONDS]`: fuzzes the salvager, as fuzz/README.md describes, for 600 seconds by default.
// Inputs that find something new are kept in target/fuzz-corpus.

import { cpSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { SetupError, main, root, run } from './bootstrap.mjs'

await main(() => {
  const seconds = Number(process.argv[2] ?? 600)
  if (!Number.isInteger(seconds) || seconds < 1) throw new SetupError('name whole seconds: npm run fuzz -- 600')
  const corpus = path.join(root, 'target', 'fuzz-corpus')
  mkdirSync(corpus, { recursive: true })
  cpSync(path.join(root, 'fuzz', 'corpus', 'salvage'), corpus, { recursive: true, force: false })
  const code = run('cargo', ['fuzz', 'build', '-s', 'address', 'salvage'], { env: { RUSTC_BOOTSTRAP: '1' } })
  if (code !== 0) throw new SetupError('cargo fuzz failed: cargo install cargo-fuzz, and see fuzz/README.md')
  const built = path.join(root, 'fuzz', 'target')
  const binary = readdirSync(built)
    .map((target) => path.join(built, target, 'release', 'salvage'))
    .find(existsSync)
  if (binary === undefined) throw new SetupError('cargo fuzz built no fuzz/target/*/release/salvage')
  const limits = ['-max_len=16384', '-timeout=30', '-rss_limit_mb=2048', `-max_total_time=${seconds}`]
  return run(binary, [...limits, '-dict=fuzz/salvage.dict', corpus])
})
