// Runs operations as another user: node operate.mjs UID JSON. Prints a line of JSON for each.
import { createRequire } from 'node:module'

// Before the user changes: it may not be able to read the package.
const lib = createRequire(import.meta.url)('../../index.js')
lib.engineInfo()
for (const name of ['check', 'recover', 'backupFile', 'fileInfo', 'restore', 'HardenedDatabase']) void lib[name]
const [uid, given] = process.argv.slice(2)
// The tasks' code is loaded at their first call.
await lib.check('/nowhere', {}).catch(() => {})
await lib.recover('/nowhere', { to: '/nowhere/to' }).catch(() => {})
await lib.backupFile('/nowhere', '/nowhere/to').catch(() => {})
await lib.restore('/nowhere', '/nowhere/from').catch(() => {})
await lib.fileInfo('/nowhere').catch(() => {})
const run = {
  async log(file) {
    const db = new lib.HardenedDatabase(file)
    try {
      await db.appendAgentLogs([{ taskId: 'T', text: 'a', type: 'text' }])
    } finally {
      await db.closeAsync()
    }
  },
}
if (uid !== '-') {
  process.setgroups?.([])
  process.setgid?.(Number(uid))
  process.setuid?.(Number(uid))
}
process.umask(0o022)
for (const [operation, ...args] of JSON.parse(given)) {
  const result = await (run[operation] ?? lib[operation])(...args).then(
    (value) => ({ value: value === undefined ? null : value }),
    ({ code, errcode, message }) => ({ error: { code, errcode, message } }),
  )
  process.stdout.write(`${JSON.stringify(result)}\n`)
}
