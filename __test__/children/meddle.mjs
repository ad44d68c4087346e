// A process that meddles with the files beside a database that another process has open.

import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'

const [what, file] = process.argv.slice(2)
if (what === 'overwrite-index') {
  // The tables of the index's first region; its header stays in order.
  const fd = openSync(`${file}-shm`, 'r+')
  writeSync(fd, Buffer.alloc(16384, 0xff), 0, 16384, 16384)
  closeSync(fd)
} else {
  // The workaround from a forum.
  unlinkSync(`${file}-wal`)
  unlinkSync(`${file}-shm`)
}
