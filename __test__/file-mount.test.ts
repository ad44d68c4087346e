// One file with a path in two folders, as a container has it that a single file is mounted into.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test from 'ava'
import { database, folder } from './support.ts'

const require = createRequire(import.meta.url)

test('a database that is mounted as a single file is refused, unless hard links are allowed', (t) => {
  const file = database(t)
  const other = path.join(folder(t), 'other.db')
  writeFileSync(other, '')
  const program = `
    const { HardenedDatabase, fileInfo } = require(${JSON.stringify(require.resolve('../index.js'))})
    let code
    try { new HardenedDatabase(${JSON.stringify(other)}).close() } catch (error) { code = error.code }
    const db = new HardenedDatabase(${JSON.stringify(other)}, { allowHardLinks: true })
    db.close()
    fileInfo(${JSON.stringify(other)}).then(({ fileMount }) => console.log(JSON.stringify({ code, fileMount })))`
  // A mount namespace of its own: nothing of this one changes.
  const script = 'mount --bind "$1" "$2" 2>/dev/null || exit 77; exec "$3" -e "$4"'
  const args = ['-m', 'sh', '-c', script, 'sh', file, other, process.execPath, program]
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8' })
  if (error !== undefined || status === 77 || /unshare/.test(stderr)) {
    t.log(`not tried: this user may not mount (${error?.message ?? stderr.trim()})`)
    return t.pass()
  }
  t.is(status, 0, stderr)
  t.deepEqual(JSON.parse(stdout), { code: 'ERR_FUSION_FILE_MOUNT', fileMount: true })
})
