// Loads the package many times in one thread, and uses each copy.
const { cpSync, mkdirSync, readdirSync, symlinkSync } = require('node:fs')
const path = require('node:path')

const [, , folder, way] = process.argv
const root = path.join(__dirname, '../..')
process.on('warning', (warning) => console.log(`Warning: ${warning.stack}`))

async function use(fusion, name) {
  const { DatabaseSync, HardenedDatabase, check } = fusion
  const file = path.join(folder, name)
  const db = new HardenedDatabase(file)
  db.exec('CREATE TABLE t(v)')
  const { changes, lastInsertRowid } = db.prepare('INSERT INTO t VALUES (1)').run()
  if (changes !== 1 || lastInsertRowid !== 1) throw new Error('run() did not report')
  await db.flushAgentLogs()
  if (!(await check(file)).ok) throw new Error('check')
  if (!(await db.check()).ok) throw new Error('db.check')
  db.close()
  const plain = new DatabaseSync(file)
  if (plain.prepare('SELECT v FROM t').get().v !== 1) throw new Error('get')
  plain.close()
}

async function main() {
  if (way === 'two-copies') {
    const made = path.join(folder, 'bundles')
    mkdirSync(made)
    cpSync(path.join(root, 'lib'), path.join(made, 'lib'), { recursive: true })
    cpSync(path.join(root, 'lib'), path.join(made, 'copy/lib'), { recursive: true })
    cpSync(path.join(root, 'binding.js'), path.join(made, 'binding.js'))
    cpSync(path.join(root, 'native'), path.join(made, 'native'), { recursive: true })
    cpSync(path.join(root, 'native'), path.join(made, 'copy/native'), { recursive: true })
    cpSync(path.join(root, 'package.json'), path.join(made, 'package.json'))
    cpSync(path.join(root, 'index.js'), path.join(made, 'index.js'))
    for (const name of readdirSync(root)) {
      if (name.endsWith('.node')) symlinkSync(path.join(root, name), path.join(made, name))
    }
    for (const name of ['binding.js', 'package.json', 'index.js']) {
      cpSync(path.join(root, name), path.join(made, 'copy', name))
    }
    for (const name of readdirSync(root)) {
      if (name.endsWith('.node')) symlinkSync(path.join(root, name), path.join(made, 'copy', name))
    }
    const copies = [require(made), require(path.join(made, 'copy'))]
    if (copies[0].HardenedDatabase === copies[1].HardenedDatabase) throw new Error('not two copies')
    await Promise.all(copies.map((fusion, i) => use(fusion, `${i}.db`)))
    await use(copies[0], 'again.db')
  } else {
    for (let i = 0; i < 15; i++) {
      await use(require(root), `${i}.db`)
      for (const key of Object.keys(require.cache)) {
        if (key.startsWith(root) && key !== __filename && (way === 'addon-too' || !key.endsWith('.node'))) {
          delete require.cache[key]
        }
      }
    }
  }
  console.log('ok')
}

main()
