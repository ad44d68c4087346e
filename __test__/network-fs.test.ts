// A database on a network file system. The mount is one of this machine's, whose type /proc/self/mountinfo is
// made to say is another: that is the file that the package goes by.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { folder } from './support.ts'

const index = fileURLToPath(new URL('../index.js', import.meta.url))

/** What a process prints that finds two mounts, `one` and `two`, of this type; undefined where it may not mount. */
function among(t: ExecutionContext, type: string, program: string): any {
  const at = folder(t)
  const text = `
    const { DatabaseSync, HardenedDatabase } = require(${JSON.stringify(index)})
    const warnings = []
    process.on('warning', ({ name, code, path, message }) => warnings.push({ name, code, path, message }))
    const answer = (body) => { try { return body() } catch ({ code }) { return code } }
    const settled = () => new Promise(setImmediate)
    ;(async () => { ${program} })().then((value) => console.log(JSON.stringify(value)))`
  writeFileSync(path.join(at, 'program.cjs'), text)
  const script = `
    cd "$1" && mkdir one two &&
    mount -t tmpfs tmpfs one && mount -t tmpfs tmpfs two &&
    sed "s/ - tmpfs tmpfs / - $2 host:\\/x /" /proc/self/mountinfo > mounts &&
    mount --bind mounts /proc/$$/mountinfo || exit 77
    exec "$3" --no-warnings program.cjs`
  const args = ['-m', 'sh', '-c', script, 'sh', at, type, process.execPath]
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8', timeout: 60_000 })
  if (error !== undefined || status === 77 || stderr.startsWith('unshare')) {
    t.log(`not tried: this user may not mount: ${stderr.trim()}`)
    t.pass()
    return undefined
  }
  if (status !== 0) throw new Error(`${status}: ${stderr}`)
  return JSON.parse(stdout)
}

test('DatabaseSync warns once for each mount, and opens the database', (t) => {
  for (const type of ['nfs4', 'virtiofs', 'fuse.sshfs']) {
    const seen = among(
      t,
      type,
      `for (const name of ['one/a.db', 'one/a.db', 'one/b.db', 'two/a.db']) {
         const db = new DatabaseSync(name)
         db.exec('CREATE TABLE IF NOT EXISTS t (a); INSERT INTO t VALUES (1)')
         db.close()
       }
       const { Worker } = require('node:worker_threads')
       const body = 'new (require(process.argv[2]).DatabaseSync)("two/b.db").close()'
       await new Promise((resolve) => new Worker(body, { eval: true, argv: [${JSON.stringify(index)}] }).once('exit', resolve))
       await settled()
       return warnings`,
    )
    if (seen === undefined) return
    t.deepEqual(
      seen.map(({ name, code, path: file }: any) => [name, code, file.split('/').slice(-2).join('/')]),
      [
        ['FusionSqliteWarning', 'FUSION_NETWORK_FS', 'one/a.db'],
        ['FusionSqliteWarning', 'FUSION_NETWORK_FS', 'two/a.db'],
      ],
      type,
    )
    for (const { message } of seen) t.true(message.includes(`(${type})`) && /local disk/.test(message), message)
  }
})

test('HardenedDatabase refuses it, and does not warn where it is allowed', (t) => {
  const seen = among(
    t,
    'virtiofs',
    `const open = (options) => answer(() => new HardenedDatabase('one/a.db', options).close() ?? 'opened')
     const answers = [open(), open({ allowNetworkFileSystem: true })]
     await settled()
     return [...answers, warnings.length]`,
  )
  if (seen !== undefined) t.deepEqual(seen, ['ERR_FUSION_NETWORK_FS', 'opened', 0])
})

test('a local file system is not warned of, nor a database without a file', (t) => {
  const seen = among(
    t,
    'ext4',
    `for (const name of ['one/a.db', ':memory:', '']) new DatabaseSync(name).close()
     await settled()
     return warnings`,
  )
  if (seen !== undefined) t.deepEqual(seen, [])
})
