// Opens a database with backups that are made by themselves, and has nothing more to do.

import { HardenedDatabase } from '../../index.js'

const [, , file, target] = process.argv
new HardenedDatabase(file, { backups: { interval: 3_600_000, path: target } })
