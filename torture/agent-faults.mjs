// What a process of the torture does to its own database, and to itself, on command.

import {
  closeSync,
  cpSync,
  createReadStream,
  createWriteStream,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { cp } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { DatabaseSync, HardenedDatabase, backupFile, check, recover, restore } from '../index.mjs'

const FILES = ['', '-wal', '-shm']
const HELD = 62

/** better-sqlite3, where `npm run bench` or `npm run torture` has installed it. */
function betterSqlite() {
  try {
    return createRequire(new URL('../bench/package.json', import.meta.url))('better-sqlite3')
  } catch {
    return null
  }
}

/** Opens `file` with a library that is not the one that writes, reads a row count and closes. */
function readElsewhere({ job, nodeSqlite }) {
  const Better = betterSqlite()
  if (Better !== null) {
    const db = new Better(job.file)
    try {
      return db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n
    } finally {
      db.close()
    }
  }
  // The package's own SQLite is the second library of a process that writes with node:sqlite; it spares the locks of
  // others, which no other library does.
  const Second = job.kind === 'package' ? nodeSqlite.DatabaseSync : DatabaseSync
  const db = new Second(job.file)
  try {
    return db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n
  } finally {
    db.close()
  }
}

const ignoreMissing = (error) => {
  if (error.code !== 'ENOENT') throw error
}

export function faults({ job, nodeSqlite, note, send, libraries, epoch }) {
  const packaged = job.kind === 'package' || job.operates === 'package'
  let held = null
  let reader = null
  let visits = 0
  const stage = (name, facts = {}) => send({ stage: name, ...facts })
  const progress = ({ stage: name, done }) => stage(name, { done })
  const open = () =>
    packaged ? new HardenedDatabase(job.file) : new nodeSqlite.DatabaseSync(job.file, { timeout: 5000 })

  return {
    /** The WAL by streams: fs.cp runs without an end while a file is shorter than it was when the copy began (libuv). */
    async copy() {
      const to = (end) => `${job.notes}.copy${end}`
      await cp(job.file, to(''), { force: true }).catch(ignoreMissing)
      await pipeline(createReadStream(`${job.file}-wal`), createWriteStream(to('-wal'))).catch(ignoreMissing)
      await cp(`${job.file}-shm`, to('-shm'), { force: true }).catch(ignoreMissing)
    },

    rawOpen() {
      for (const end of FILES) {
        try {
          closeSync(openSync(job.file + end, 'r'))
        } catch (error) {
          ignoreMissing(error)
        }
      }
    },

    second: () => readElsewhere({ job, nodeSqlite }),
    hasBetterSqlite: () => betterSqlite() !== null,

    /** A short-lived connection that writes: open, `rows` rows, close. */
    visit({ rows }) {
      const began = epoch()
      const name = `${job.name}.${job.kind === 'package' ? 'p' : job.registered ? 'r' : 'n'}v${visits++}`
      const db =
        job.kind === 'package'
          ? new HardenedDatabase(job.file)
          : new nodeSqlite.DatabaseSync(job.file, { timeout: 5000 })
      try {
        const insert = db.prepare(
          "INSERT INTO agentLogEntries (taskId, timestamp, text, type) VALUES ('T-1', '2026-11-23', ?, 'text')",
        )
        for (let row = 0; row < rows; row++) {
          insert.run(`${name} ${row}`)
          note(name, row, 1, began)
        }
      } finally {
        db.close()
      }
    },

    /** 62 connections at once, each of which reads; then they are closed. */
    connections() {
      const all = []
      try {
        for (let index = 0; index < HELD; index++) all.push(open())
        for (const db of all) db.prepare('SELECT count(*) FROM tasks').get()
        return readdirSync('/proc/self/fd').length
      } finally {
        for (const db of all) db.close()
      }
    },

    /** Takes the write lock and keeps it. */
    hold() {
      held ??= packaged
        ? new DatabaseSync(job.file, { timeout: 10_000 })
        : new nodeSqlite.DatabaseSync(job.file, { timeout: 10_000 })
      held.exec('BEGIN IMMEDIATE')
    },
    release: () => void held.exec('COMMIT'),

    /** A read transaction that stays open. */
    startReading() {
      reader = packaged
        ? new DatabaseSync(job.file, { timeout: 10_000 })
        : new nodeSqlite.DatabaseSync(job.file, { timeout: 10_000 })
      reader.exec('BEGIN')
      return reader.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n
    },
    stopReading() {
      const { n } = reader.prepare('SELECT count(*) AS n FROM agentLogEntries').get()
      reader.exec('COMMIT')
      reader.close()
      return n
    },

    async checkpoint({ mode }) {
      if (job.kind === 'package') return await libraries[0].db.checkpoint(mode)
      const db = new nodeSqlite.DatabaseSync(job.file, { timeout: 5000 })
      try {
        const { busy } = db.prepare(`PRAGMA wal_checkpoint(${mode})`).get()
        return { busy: busy !== 0 }
      } finally {
        db.close()
      }
    },

    /** Checkpoints without an end, for a kill in one of them. */
    async checkpoints() {
      const modes = ['passive', 'full', 'restart', 'truncate']
      const db = open()
      for (let round = 0; ; round++) {
        const mode = modes[round % modes.length]
        stage('checkpoint')
        if (packaged) await db.checkpoint(mode).catch(() => {})
        else {
          db.prepare(`PRAGMA wal_checkpoint(${mode})`).get()
          await new Promise((resolve) => setImmediate(resolve))
        }
      }
    },

    recover: () => recover(job.file, { progress }).then(({ outcome }) => ({ outcome })),

    async restore({ from }) {
      if (packaged) return void (await restore(job.file, from, { progress }))
      const source = new nodeSqlite.DatabaseSync(from)
      try {
        await nodeSqlite.backup(source, job.file, { rate: 5, progress: () => stage('copy') })
      } finally {
        source.close()
      }
    },

    /** One backup, with the number of rows that were committed before it began. */
    async backup({ to }) {
      const db = open()
      try {
        const { n } = db.prepare('SELECT count(*) AS n FROM agentLogEntries').get()
        stage('begin', { rows: n })
        if (packaged) await backupFile(job.file, to, { keep: 3, rate: 20, progress })
        else {
          if (statSync(to, { throwIfNoEntry: false })) renameSync(to, `${to}.1`)
          await nodeSqlite.backup(db, to, { rate: 5, progress: () => stage('copy') })
        }
        return { rows: n }
      } finally {
        db.close()
      }
    },

    /** Whether a copy is sound, and how many rows it has. A private copy is read: the original stays as it is. */
    async inspect({ file }) {
      const copy = `${job.notes}.inspected`
      for (const end of ['', '-wal', '-journal', '-schema']) rmSync(copy + end, { force: true })
      cpSync(file, copy)
      const health = await check(copy)
      if (!health.ok) return { sound: false, rows: 0 }
      const db = new DatabaseSync(copy)
      try {
        return { sound: true, rows: db.prepare('SELECT count(*) AS n FROM agentLogEntries').get().n }
      } catch {
        // An empty database is sound, and no backup.
        return { sound: false, rows: 0 }
      } finally {
        db.close()
      }
    },

    /** The change counter, and this process's clock. */
    clock() {
      const db = new DatabaseSync(job.file, { timeout: 5000, readOnly: true })
      try {
        const { value } = db.prepare("SELECT value FROM __meta WHERE key = 'lastModified'").get()
        return { counter: Number(value), now: Date.now() }
      } finally {
        db.close()
      }
    },

    folder: () => path.dirname(job.file),
  }
}
