// The first program of docs/log.md, in an empty folder: as it stands there, under another name of the package.
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const [, , home] = process.argv
const root = new URL('../../', import.meta.url)
const [, program] = /^# The log\n[^]*?```js\n([^]*?)```/m.exec(readFileSync(new URL('docs/log.md', root), 'utf8'))
process.chdir(home)
const script = path.join(home, 'use.mjs')
writeFileSync(script, program.replace("'fusion-sqlite'", JSON.stringify(new URL('index.mjs', root).href)))
await import(script)
