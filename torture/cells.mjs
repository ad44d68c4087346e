// The rows of the matrix: what is done to a database while agents write to it.
//
// | property            | meaning                                                                                 |
// | ------------------- | --------------------------------------------------------------------------------------- |
// | `fault(arena)`      | one fault; between two of them every process ends some more calls                        |
// | `before`, `after`   | what precedes the processes, and what follows the last fault                             |
// | `closesDescriptors` | a descriptor of the file is closed in the process, which drops POSIX locks               |
// | `movesFiles`        | what is at the path is `replaced`, or `-wal` and `-shm` are `deleted`                    |
// | `allows`            | failures and events that the documents announce for it                                   |
// | `announces`         | the same, by the messages of events, where a code has several                            |
// | `visited`           | a process opens, writes and closes all the while, which may take itself for the last one |
// | `startsItself`      | `fault` starts and ends the processes that write                                         |

import { execFile } from 'node:child_process'
import { closeSync, existsSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { promisify } from 'node:util'
import { compileClock, setClock } from './clock.mjs'
import { findShell } from './shell.mjs'

const run = promisify(execFile)

const inProcess = (name, title, command) => ({
  name,
  title,
  closesDescriptors: true,
  visited: true,
  async fault(arena) {
    // At the first fault, and at every other one by chance, someone opens, writes and closes while no agent writes: a
    // library whose locks are gone lets that one delete the WAL.
    const quiet = arena.guest === undefined || arena.random() < 0.5
    arena.guest ??= await arena.start('guest', arena.column.visitor, 0)
    if (quiet) await arena.each(arena.writing, 'pause')
    await arena.each(arena.faulty, command)
    if (!quiet) return
    await arena.guest.command('visit', { rows: 3 }).catch((error) => arena.remark(`a visit: ${error.message}`))
    await arena.each(arena.writing, 'resume')
  },
})

/** Every process with the package has to report `replaced`; then each of its handles reopens. */
async function replaceFile(arena, replace) {
  const seen = new Map(arena.packaged.map((process) => [process, process.events.length]))
  const held = arena.holdFiles()
  await replace()
  held.keep(await arena.mark())
  await Promise.all([...seen].map(([process, since]) => process.event('replaced', since)))
  await arena.each(arena.packaged, 'reopen')
}

const replaced = {
  movesFiles: 'replaced',
  allows: /ERR_FUSION_(REPLACED|UNLINKED)/,
}

const git = (folder, ...args) => {
  const identity = ['-c', 'user.name=Torture', '-c', 'user.email=torture@example.com', '-c', 'core.hooksPath=/dev/null']
  return run('git', ['-C', folder, ...identity, ...args])
}

/** Starts the process of a role again, as it was. */
function again(arena, { job }) {
  const { kind, inside, registered } = job
  return arena.start(job.name.replace(/\d+$/, ''), { kind, inside, registered })
}

/** Runs `command` in a process of its own and kills it at one of its stages, if it has not ended by then. */
async function killOperator(arena, command, args, low, high) {
  const operator = await arena.startOperator()
  const stages = arena.between(low, high)
  const done = operator.command(command, args).then(
    (value) => ({ value }),
    (error) => ({ error }),
  )
  const reached = operator.until(() => operator.stages.length >= stages, 'its stage').catch(() => {})
  const answer = await Promise.race([done, reached])
  await operator.kill()
  const { error } = await done
  if (error && !/has ended/.test(error.message)) arena.finding(`${command}: ${error.code ?? ''} ${error.message}`)
  if (answer?.value !== undefined) arena.remark(`a ${command} ended before its kill`)
  return { operator, value: (await done).value }
}

export const cells = [
  inProcess('copy', 'a copy of the database, -wal and -shm in the process (fs.cp)', 'copy'),
  inProcess('raw-open', 'open and close of the three files in the process', 'rawOpen'),
  inProcess('second-library', 'a second SQLite library in the process', 'second'),
  {
    name: 'shell',
    title: 'the sqlite3 shell next to it',
    prepare(arena) {
      arena.shell = findShell()
      arena.moreNotes = [path.join(arena.folder, 'notes', 'shell')]
      arena.shells = 0
      return arena.shell ? null : 'there is no sqlite3 shell'
    },
    async fault(arena) {
      const name = `shell.n${arena.shells++}`
      const rows = arena.between(1, 20)
      const sql = Array.from(
        { length: rows },
        (_, row) =>
          `INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', '2026-11-23', '${name} ${row}', 'text');`,
      )
      const checkpoint = arena.random() < 0.5 ? 'PRAGMA wal_checkpoint(TRUNCATE);' : ''
      try {
        await run(arena.shell, [
          '-batch',
          '-bail',
          arena.file,
          `PRAGMA busy_timeout=10000; ${sql.join(' ')} ${checkpoint}`,
        ])
        arena.noteFor(arena.moreNotes[0], name, rows)
      } catch (error) {
        arena.remark(`the shell: ${String(error.stderr).trim().split('\n')[0]}`)
      }
    },
  },
  {
    name: 'git-checkout',
    title: 'git checkout over the file',
    ...replaced,
    async before(arena) {
      arena.branch = 0
      await git(arena.disk, 'init', '--quiet', '--initial-branch=b0')
      for (const number of [0, 1]) {
        if (number > 0) await git(arena.disk, 'checkout', '--quiet', '-b', `b${number}`)
        const db = new DatabaseSync(arena.file)
        db.exec(
          `INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', '2026-11-23', 'seed.b${number} 0', 'text')`,
        )
        db.close()
        await git(arena.disk, 'add', 'fusion.db')
        await git(arena.disk, 'commit', '--quiet', `--message=b${number}`)
      }
    },
    fault(arena) {
      arena.branch = 1 - arena.branch
      return replaceFile(arena, () => git(arena.disk, 'checkout', '--quiet', '--force', `b${arena.branch}`))
    },
  },
  {
    name: 'rename-over',
    title: 'another database renamed over the file',
    ...replaced,
    fault(arena) {
      const other = arena.anotherDatabase('other.db')
      return replaceFile(arena, () => renameSync(other, arena.file))
    },
  },
  {
    name: 'rm-wal',
    title: 'rm of -wal and -shm under the processes',
    movesFiles: 'deleted',
    // A process whose COMMIT failed half way, and one that waits for the others to close.
    allows: /ERR_FUSION_(WEDGED|COMMIT_UNKNOWN)/,
    // That commits are lost is another message of ERR_FUSION_WAL_LOST.
    announces: /could not be saved so far/,
    async fault(arena) {
      const seen = arena.packaged.map((process) => [process, process.events.length])
      for (const end of ['-wal', '-shm']) rmSync(arena.file + end, { force: true })
      await Promise.all(seen.map(([process, since]) => process.event('healed', since)))
      // One that opens the file before all have left the deleted files would be the loss that is not promised.
      for (const [process] of seen) while (process.usesDeleted && process.end === null) await process.moves(1)
    },
  },
  {
    name: 'disk-full',
    title: 'a full disk (tmpfs of 128 MiB)',
    // The command mounts it at the folder of the run.
    tmpfs: '128m',
    allows: /ERR_SQLITE_ERROR (13|10|266|778|1034|4874)\b|^event error: ERR_SQLITE_ERROR/,
    async fault(arena) {
      const seen = arena.packaged.map((process) => [process, process.events.length])
      const ballast = path.join(arena.disk, 'ballast')
      const fd = openSync(ballast, 'w')
      try {
        for (const size of [1 << 20, 1 << 12, 1]) {
          try {
            for (;;) if (writeSync(fd, Buffer.alloc(size)) < size) break
          } catch (error) {
            if (error.code !== 'ENOSPC') throw error
          }
        }
        await Promise.all(seen.map(([process, since]) => process.event('error', since)))
        if (seen.length === 0) await arena.moves(5, 20)
      } finally {
        closeSync(fd)
        rmSync(ballast)
      }
    },
  },
  {
    name: 'stopped-holder',
    title: 'SIGSTOP of a process that holds the write lock',
    async fault(arena) {
      const holder = await arena.startOperator('holder')
      await holder.command('hold')
      holder.signal('SIGSTOP')
      const duration = new Promise((resolve) => setTimeout(resolve, arena.between(100, 1500)))
      // Their event loops go on: an append waits for no other process. A synchronous INSERT does.
      const quick = arena.packaged.filter(({ job }) => !job.inside)
      for (let ping = 0; ping < 20; ping++) await arena.each(quick, 'ping')
      const blocked = arena.writing
        .filter((process) => !quick.includes(process))
        .map((process) => process.command('ping'))
      if (blocked.length > 0 && (await Promise.race([Promise.all(blocked), duration])) === undefined) {
        arena.remark('an event loop stood still for as long')
      }
      await duration
      holder.signal('SIGCONT')
      await holder.command('release')
      await Promise.all(blocked)
      await holder.stop()
    },
  },
  {
    name: 'kill-commit',
    title: 'SIGKILL of a process that commits',
    async fault(arena) {
      const writing = arena.writing.filter(({ spared }) => !spared)
      const victim = writing[arena.between(0, writing.length - 1)]
      await victim.moves(arena.between(1, 40))
      await victim.kill()
      await again(arena, victim)
    },
  },
  {
    name: 'kill-checkpoint',
    title: 'SIGKILL in a checkpoint',
    async fault(arena) {
      await killOperator(arena, 'checkpoints', {}, 1, 60)
    },
  },
  {
    name: 'kill-repair',
    title: 'SIGKILL in a repair of a damaged index',
    startsItself: true,
    rows: 2000,
    async fault(arena) {
      if (arena.column.name === 'node') return
      damageIndex(arena)
      for (let kill = 0; kill < 2; kill++) await killOperator(arena, 'recover', {}, 1, 25)
      const started = await Promise.all(['first', 'second'].map((role) => arena.start(role, arena.column[role])))
      await arena.moves()
      await Promise.all(started.map((process) => process.stop()))
    },
    prepare: (arena) => (arena.column.name === 'node' ? 'node:sqlite has no repair' : null),
  },
  {
    name: 'kill-restore',
    title: 'SIGKILL in a restore',
    rows: 2000,
    async fault(arena) {
      const backup = path.join(arena.disk, 'backup.db')
      // What is acknowledged from here to the restore is there all together afterwards, or not at all.
      await arena.each(arena.writing, 'pause')
      for (const end of ['', '.1', '.2', '-wal', '-shm', '-schema']) rmSync(backup + end, { force: true })
      const operator = await arena.startOperator()
      await operator.command('backup', { to: backup })
      await operator.stop()
      await arena.mark()
      await arena.each(arena.writing, 'resume')
      await arena.moves(5, 30)
      await arena.each(arena.writing, 'pause')
      arena.optional.push(await arena.mark())
      await killOperator(arena, 'restore', { from: backup }, 1, 12)
      await arena.each(arena.writing, 'resume')
    },
  },
  {
    name: 'kill-backup',
    title: 'SIGKILL in a backup and its rotation',
    rows: 2000,
    async fault(arena) {
      const to = path.join(arena.disk, 'backup.db')
      arena.backedUp ??= 0
      const operator = await arena.startOperator()
      const { rows } = await operator.command('backup', { to })
      arena.backedUp = rows
      await operator.stop()
      const { value } = await killOperator(arena, 'backup', { to }, 1, 40)
      if (value) arena.backedUp = value.rows
      const judge = await arena.startOperator('judge')
      const found = []
      for (const end of ['', '.1', '.2']) {
        if (existsSync(to + end))
          found.push({ name: end || 'newest', ...(await judge.command('inspect', { file: to + end })) })
      }
      await judge.stop()
      const unsound = found.filter(({ sound }) => !sound).map(({ name }) => name)
      if (unsound.length > 0) arena.finding(`a backup was left damaged: ${unsound.join(', ')}`)
      if (!found.some(({ sound, rows: there }) => sound && there >= arena.backedUp)) {
        arena.finding(`no backup has the ${arena.backedUp} rows of the last complete one`)
      }
    },
  },
  {
    name: 'clock',
    title: 'jumps of the clock',
    prepare(arena) {
      const clock = compileClock(arena.folder)
      if (clock === null) return 'there is no C compiler'
      arena.env = clock.env
      arena.clock = clock
      arena.counter = 0
      return null
    },
    async fault(arena) {
      const days = [-3650, -1, -1 / 24, 1 / 24, 1, 3650][arena.between(0, 5)]
      setClock(arena.clock, days * 86_400)
      const [first] = arena.writing
      await arena.moves(20, 60)
      const { counter, now } = await first.command('clock')
      if (Math.abs(now - (Date.now() + days * 86_400_000)) > 3_600_000) arena.finding('the clock did not jump')
      // Who writes with node:sqlite does not increase it.
      if (arena.packaged.length > 0 && counter < arena.counter) arena.finding(`the change counter fell to ${counter}`)
      arena.counter = counter
    },
  },
  {
    name: 'connections',
    title: '62 connections of one process',
    bounds: { descriptors: 512 },
    async fault(arena) {
      const [first] = arena.writing
      const during = await first.command('connections')
      const after = first.sample()
      arena.peakDescriptors = Math.max(arena.peakDescriptors ?? 0, during)
      // SQLite keeps the descriptors of closed connections for the next ones, as long as one connection has a lock.
      arena.leftDescriptors ??= after?.descriptors
      if (after && after.descriptors > arena.leftDescriptors + 16) {
        arena.finding(
          `${arena.leftDescriptors} descriptors after 62 connections were closed, later ${after.descriptors}`,
        )
      }
    },
    after: (arena) => arena.remark(`${arena.peakDescriptors} descriptors at most`),
  },
  {
    name: 'endless-reader',
    title: 'a reader that does not end',
    async before(arena) {
      arena.bigWal = 0
    },
    async fault(arena) {
      if (arena.reader === undefined) {
        arena.reader = await arena.startOperator('reader')
        arena.readerRows = await arena.reader.command('startReading')
        const [first] = arena.packaged
        if (first) await first.event('checkpoint busy')
      }
      await arena.moves(50, 100)
      arena.bigWal = Math.max(arena.bigWal, arena.sizeOf('-wal'))
    },
    async after(arena) {
      if ((await arena.reader.command('stopReading')) !== arena.readerRows)
        arena.finding('the reader saw another snapshot')
      await arena.reader.stop()
      const [first] = arena.packaged
      if (!first) return
      // Agents that go on would write between the checkpoint and the look at the file.
      await arena.each(arena.writing, 'pause')
      // One checkpoint may meet the one that another process makes.
      for (let attempt = 0; attempt < 50; attempt++) {
        const result = await first.command('checkpoint', { mode: 'truncate' })
        if (result.busy) continue
        const bytes = arena.sizeOf('-wal')
        if (bytes > 0) arena.finding(`the -wal has ${bytes} bytes after a checkpoint: ${JSON.stringify(result)}`)
        arena.remark(`the -wal had ${(arena.bigWal / 2 ** 20).toFixed(1)} MiB at most`)
        return
      }
      arena.finding('no checkpoint completed after the reader had ended')
    },
  },
  {
    name: 'twenty-by-four',
    title: '20 agents in each of four processes',
    agents: 20,
    processes: 4,
    fault: (arena) => arena.moves(100, 200),
  },
]

/** Overwrites the root page of an index, in a closed file without a WAL: no row is damaged. */
function damageIndex(arena) {
  const db = new DatabaseSync(arena.file)
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  const { rootpage } = db
    .prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'idxAgentLogEntriesTaskIdType'")
    .get()
  const { page_size: size } = db.prepare('PRAGMA page_size').get()
  db.close()
  if (statSync(arena.file).size < rootpage * size) throw new Error('the index is not in the file')
  const fd = openSync(arena.file, 'r+')
  writeSync(fd, Buffer.alloc(size, 0xa5), 0, size, (rootpage - 1) * size)
  closeSync(fd)
}
