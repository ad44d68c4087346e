'use strict'

// Findings of a check in plain words: what it is, what it means for the user's data, what a repair
// does about it. Findings of one kind are explained together.

const { bytes, counted, list, number, pageList } = require('./format.js')

const REBUILT =
  'Every row that can be read is taken into a new database, which then replaces the damaged content of the file; ' +
  'rows that are gone are looked for in the newest backup.'

/** What becomes of a full-text index that leaves out so many rows of its content; null if that is not known. */
function rebuiltText(leftOut) {
  if (leftOut === 0) return 'The index is rebuilt from its content.'
  return leftOut === null
    ? 'The index is rebuilt from all rows of its content, if it has content. Which of them it left out on purpose is not known.'
    : `The index is rebuilt from the rows that it holds. ${counted(leftOut, 'row')} that it leaves out stay out.`
}

/** How many rows the indexes of `findings` leave out; null if that is not known of one. */
function mostLeftOut(findings) {
  const counts = findings.map(({ leftOut }) => leftOut)
  return counts.includes(null) ? null : counts.reduce((sum, count) => sum + count, 0)
}

/** `only` for a single finding, else `all` of them in a sentence. */
function title(findings, only, all) {
  return findings.length === 1 ? only(findings[0]) : all
}

/** The schema is a table, but what its damage means is another matter. */
const SCHEMA = 'sqlite_schema'

const explanations = {
  indexDamage: (findings) => ({
    title: title(
      findings,
      ({ index, table }) => `Index ${index} of table ${table} is damaged`,
      `${counted(findings.length, 'index')} are damaged: ${list(findings.map(({ index, table }) => `${index} of ${table}`))}`,
    ),
    means:
      'The rows themselves are in their table. Queries that go through a damaged index may miss rows or find wrong ' +
      'ones, and a UNIQUE index may let duplicates in.',
    remedy: findings.some(({ needsApplication }) => needsApplication)
      ? 'An index needs a function or a collation that only the application has: have the application run REINDEX. ' +
        'A repair makes the database new without that index, and says how it was declared.'
      : 'The index is rebuilt from its table (REINDEX). No row is touched.',
  }),

  ftsDamage: (findings) => ({
    title: title(
      findings,
      ({ table }) => `Full-text index ${table} is damaged`,
      `${counted(findings.length, 'full-text index')} are damaged: ${list(findings.map(({ table }) => table))}`,
    ),
    means: 'The file is sound and no row is lost. Searches may miss rows, find wrong ones, or fail as "malformed".',
    remedy: rebuiltText(mostLeftOut(findings)),
  }),

  ftsStale: (findings) => ({
    title: title(
      findings,
      ({ table }) => `Full-text index ${table} is not up to date with its content`,
      `${counted(findings.length, 'full-text index')} are not up to date with their content: ${list(findings.map(({ table }) => table))}`,
    ),
    means:
      'This is no damage: rows were deleted or changed without the index. Searches may find rows that are gone, which ' +
      'SQLite reports as "malformed", or rows by words that they had once.',
    remedy: rebuiltText(mostLeftOut(findings)),
  }),

  foreignKeyViolations: (findings) => ({
    title: title(
      findings,
      ({ table, parent, rows }) =>
        `${counted(rows, 'row')} of table ${table} refer to rows of ${parent} that do not exist`,
      `Rows refer to rows that do not exist: ${list(findings.map(({ table, parent, rows }) => `${number(rows)} of ${table} to ${parent}`))}`,
    ),
    means: 'This is no damage of the file: something wrote with foreign keys off, or deleted the rows referred to.',
    remedy: 'Nothing is changed; whether these rows are wanted is for the application to decide.',
  }),

  constraintViolations: (findings) => ({
    title: title(
      findings,
      ({ table }) => `Table ${table} has rows that its own constraints forbid`,
      `${counted(findings.length, 'table')} have rows that their own constraints forbid: ${list(findings.map(({ table }) => table))}`,
    ),
    means:
      'This is no damage of the file: the rows are older than the CHECK, NOT NULL or type that forbids them, or were ' +
      'written while it was off.',
    remedy: 'Nothing is changed; the application has to mend or delete these rows.',
  }),

  freelist: () => ({
    title: 'Pages belong to nothing, or the list of free pages is damaged',
    means:
      'Where a table is damaged as well, these are pages that it no longer leads to. Alone it costs no row, but space, ' +
      'and a page that is in use and counts as free would be overwritten by a later write.',
    remedy: REBUILT,
  }),

  schemaDamage: () => ({
    title: 'The schema is damaged',
    means:
      'SQLite no longer knows all tables and indexes, or where they begin. The rows are still in the file, but ' +
      'no query reaches those of a table that is unknown.',
    remedy: `The pages are read one by one and assigned to tables by what they hold. ${REBUILT}`,
  }),

  tableDamage: (findings) => ({
    title: title(
      findings,
      ({ table }) => `Table ${table} is damaged`,
      `${counted(findings.length, 'table')} are damaged: ${list(findings.map(({ table }) => table))}`,
    ),
    means:
      'Rows on the damaged pages cannot be read, or are wrong; so may be rows that are reached through them. ' +
      'Rows on other pages are sound.',
    remedy: REBUILT,
  }),

  header: () => ({
    title: 'The first page of the file, or its schema, cannot be made sense of',
    means:
      'SQLite cannot open the database at all. That does not mean that the rows are gone: as a rule nearly all of ' +
      'them are still in the file.',
    remedy: `The pages are read one by one, without the first one. ${REBUILT}`,
  }),

  staleWal: ([{ bytes: length }]) => ({
    title: `The -wal file (${bytes(length)}) does not belong to this database`,
    means:
      'The database is sound without it, and damaged with it: the file was replaced (by a restore, a git checkout, a ' +
      'sync tool) while its old -wal stayed behind. A checkpoint would make the damage permanent.',
    remedy: 'The -wal is put aside under a dated name. It is not applied and not deleted.',
  }),

  unclearWal: ([{ bytes: length }]) => ({
    title: `The database is damaged with its -wal file (${bytes(length)}), and sound without it`,
    means:
      'Either the -wal is another database’s, because the file was replaced, or it is the database’s own, and a page ' +
      'in it was damaged before it was written. Nothing proves which. If it is the database’s own, the commits in it ' +
      'are nowhere else.',
    remedy:
      'The -wal is put aside under a dated name. It is not applied and not deleted; the rows in it can be looked for ' +
      'afterwards.',
  }),

  unreadable: ([{ pages }]) => ({
    title: `The disk failed every read of ${counted(pages.length, 'page')}`,
    means: 'What is on them cannot be read now. The disk may be failing: look at the system’s log.',
    remedy: `Copy what is left to another disk first. ${REBUILT}`,
  }),

  walDeleted: ([{ frames }]) => ({
    title: 'The -wal file was deleted by hand',
    means:
      `${frames === null ? 'Commits' : `${counted(frames, 'page')} of commits`} that were in it and not yet in the ` +
      'database may be gone: what is in the file may be older than what was last committed. The file itself is sound.',
    remedy: 'Nothing can be done here; a backup may have what is gone. Never delete a -wal: it holds commits.',
  }),

  hotJournal: ([{ changedPages }]) => ({
    title: 'A transaction was cut off',
    means:
      'A process ended in the middle of it and left its rollback journal (-journal), which holds ' +
      `${counted(changedPages, 'page')} as they were before. Nothing that was committed is lost: the database was checked as it ` +
      'was before that transaction. The file and its journal were not changed. Never delete the journal.',
    remedy: 'The transaction is rolled back, as it is by the next program that opens the database for writing.',
  }),

  refusedFile: (findings) => ({
    title: title(
      findings,
      ({ file }) => `This user may not write to ${file}`,
      `This user may not write to ${list(findings.map(({ file }) => file))}`,
    ),
    means:
      'Nothing can be written to the database by this user, and no lock taken, although the database itself may be ' +
      'written to. No row is in danger.',
    remedy: `Nothing: ${findings.flatMap(({ lines }) => lines).join('. ')}.`,
    lines: [],
  }),

  truncated: ([{ missingPages }]) => ({
    title: `The end of the file is missing: ${counted(missingPages, 'page')}`,
    means: 'The file was cut off, by a full disk or an incomplete copy, say. Rows on the missing pages are gone.',
    remedy: REBUILT,
  }),

  replaced: () => ({
    title: 'Another file was put in the place of the one that is open',
    means:
      'What is written to the old one is lost with its last connection, and the -wal next to the new one may not be ' +
      'its own.',
    remedy: 'Close the database in every process first, then run this again.',
  }),

  notADatabase: ([{ wasDatabase }]) =>
    wasDatabase
      ? {
          title: 'The first page of the database was overwritten',
          means:
            'SQLite refuses to open it, but something of a database is in the file or next to it: the rows behind its ' +
            'first page are still in the file, as a rule.',
          remedy: `The pages are read one by one, without the first one. ${REBUILT}`,
        }
      : {
          title: 'The file is not an SQLite database',
          means: 'Nothing of a database is in it, and nothing next to it says that it was one.',
          remedy: 'Nothing: there is nothing to repair.',
        },

  locked: () => ({
    title: 'Another process has locked the database',
    means: 'Nothing is known of its health: it could not be read. This is no sign of damage.',
    remedy: 'Try again when the other process is done, or close it.',
  }),
}

/** Which explanation a finding has. */
function kindOf({ type, table }) {
  return type === 'tableDamage' && table === SCHEMA ? 'schemaDamage' : type
}

/** Findings by their kind, in the order of the first of each. */
function grouped(findings) {
  return [...Map.groupBy(findings, kindOf).values()]
}

/**
 * Findings of one kind as `{ title, where, means, remedy, lines }`; `where` are pages in words,
 * `lines` SQLite's own.
 * @param findings of `Health.findings`, at least one
 */
function explain(findings) {
  const kind = kindOf(findings[0])
  const explanation = explanations[kind]?.(findings) ?? {
    title: `A problem of the kind ${kind}`,
    means: 'This version of the doctor has no words for it.',
    remedy: REBUILT,
  }
  const pages = findings.flatMap((finding) => finding.pages ?? [])
  const where = pages.length > 0 ? pageList(pages) : undefined
  return { lines: findings.flatMap((finding) => finding.lines ?? []), ...explanation, where }
}

/** Findings that are no damage of the file (src/health/finding.rs). */
const HARMLESS = new Set([
  'constraintViolations',
  'foreignKeyViolations',
  'ftsStale',
  'hotJournal',
  'locked',
  'refusedFile',
  'walDeleted',
])

/** Whether a finding is damage. */
function isDamage({ type }) {
  return !HARMLESS.has(type)
}

/** What is damaged, by kind, for a sentence. */
const PARTS = {
  header: () => 'the first page',
  schemaDamage: () => 'the schema',
  tableDamage: (count) => counted(count, 'table'),
  indexDamage: (count) => counted(count, 'index'),
  ftsDamage: (count) => counted(count, 'full-text index'),
  freelist: () => 'the list of free pages',
}

/** All that is damaged, in a sentence; undefined where a title says it. */
function summary({ findings }) {
  const groups = grouped(findings.filter(isDamage))
  const counts = groups.map((group) => [kindOf(group[0]), group.length])
  if (counts.length === 0 || counts.some(([kind]) => !(kind in PARTS))) return undefined
  const parts = counts.map(([kind, count]) => PARTS[kind](count))
  const pages = new Set(findings.flatMap((finding) => finding.pages ?? [])).size
  const where = pages > 0 ? `, on ${counted(pages, 'page')}` : ''
  const verb = parts.length > 1 || counts[0][1] > 1 ? 'are' : 'is'
  const costs = counts.every(([kind]) => kind === 'indexDamage' || kind === 'ftsDamage')
    ? 'No row is in danger.'
    : 'Rows may be lost.'
  const last = parts.pop()
  const what = parts.length > 0 ? `${parts.join(', ')} and ${last}` : last
  return `In all: ${what} ${verb} damaged${where}. ${costs}`
}

/** What a check did, in a sentence. */
function extent({ kind, pages, pageSize }) {
  const what = pages > 0 ? `${number(pages)} pages of ${bytes(pageSize)}` : 'the file'
  return kind === 'quick' ? `${what}, without comparing indexes with their tables` : what
}

module.exports = { explain, extent, grouped, isDamage, summary }
