// Starts a check and has nothing else to do. Arguments: the file; how: `background`, `unawaited`,
// `handle`, `path`, or `exit` (which exits in the middle of it). Tells of the check if it is over.

import { HardenedDatabase, check } from '../../index.mjs'
import { tell } from './lines.mjs'

const [file, how] = process.argv.slice(2)
const done = (health) => tell('checked', { ok: health.ok })
const db = new HardenedDatabase(file, { startupCheck: how === 'background' ? 'background' : 'off' })
db.on('check', done)
tell('started')
if (how === 'unawaited') void [db.check(), check(file)]
if (how === 'handle') done(await db.check())
if (how === 'path') done(await check(file))
if (how === 'exit') await db.check({ progress: () => process.exit(7) })
