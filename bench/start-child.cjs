'use strict'

// One process of bench/start.mjs: from `require` to the first row. Prints what it took.

const first = {
  'fusion-sqlite': ({ DatabaseSync }) => new DatabaseSync(':memory:'),
  'fusion-sqlite, HardenedDatabase': ({ HardenedDatabase }) => new HardenedDatabase(':memory:'),
  'fusion-sqlite, from the sources': ({ DatabaseSync }) => new DatabaseSync(':memory:'),
  'node:sqlite': ({ DatabaseSync }) => new DatabaseSync(':memory:'),
  'better-sqlite3': (Database) => new Database(':memory:'),
  nothing: undefined,
}

const [contender, request] = process.argv.slice(2)
const open = first[contender]
const before = process.cpuUsage()
const started = performance.now()
if (open !== undefined) open(require(request)).prepare('SELECT 1 AS one').get()
const ms = performance.now() - started
const cpu = process.cpuUsage(before)
const { maxRSS } = process.resourceUsage()
process.stdout.write(JSON.stringify({ ms, cpuMs: (cpu.user + cpu.system) / 1000, memoryMb: maxRSS / 1024 }))
