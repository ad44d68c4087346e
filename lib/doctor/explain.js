'use strict'

// Findings of a check in plain words: what it is, what it means for the user's data, what a repair
// does about it.

const { bytes, counted, number, pageList } = require('./wording.js')

const REBUILT =
  'Every row that can be read is taken into a new database, which then replaces the damaged content of the file; ' +
  'rows that are gone are looked for in the newest backup.'

const explanations = {
  indexDamage: ({ index, table }) => ({
    title: `Index ${index} of table ${table} is damaged`,
    means:
      'The rows themselves are in their table. Queries that go through the index may miss rows or find wrong ones, ' +
      'and a UNIQUE index may let duplicates in.',
    remedy: 'The index is built anew from its table (REINDEX). No row is touched.',
  }),

  ftsDamage: ({ table }) => ({
    title: `Full-text index ${table} does not agree with its content`,
    means: 'The file is sound and no row is lost. Searches may miss rows, find wrong ones, or fail as "malformed".',
    remedy: 'The index is built anew from its content.',
  }),

  foreignKeyViolations: ({ table, parent, rows }) => ({
    title: `${counted(rows, 'row')} of table ${table} refer to rows of ${parent} that do not exist`,
    means: 'This is no damage of the file: something wrote with foreign keys off, or deleted the rows referred to.',
    remedy: 'Nothing is changed; whether these rows are wanted is for the application to decide.',
  }),

  constraintViolations: ({ table }) => ({
    title: `Table ${table} has rows that its own constraints forbid`,
    means:
      'This is no damage of the file: the rows are older than the CHECK, NOT NULL or type that forbids them, or were ' +
      'written while it was off.',
    remedy: 'Nothing is changed; the application has to mend or delete these rows.',
  }),

  freelist: () => ({
    title: 'Pages belong to nothing, or the list of free pages is damaged',
    means:
      'Beside a damaged table these are pages that it no longer leads to. By itself it costs no row, but space, and a ' +
      'page that is in use and counts as free would be overwritten by a later write.',
    remedy: REBUILT,
  }),

  tableDamage: ({ table }) =>
    table === 'sqlite_schema'
      ? {
          title: 'The schema is damaged',
          means:
            'SQLite no longer knows all tables and indexes, or where they begin. The rows are still in the file, but ' +
            'no query reaches those of a table that is unknown.',
          remedy: `The pages are read one by one and told apart by what they hold. ${REBUILT}`,
        }
      : {
          title: `Table ${table} is damaged`,
          means:
            'Rows on the damaged pages cannot be read, or are wrong; so may be rows that are reached through them. ' +
            'Rows on other pages are sound.',
          remedy: REBUILT,
        },

  header: () => ({
    title: 'The first page of the file, or its schema, cannot be made sense of',
    means:
      'SQLite cannot open the database at all. That does not mean that the rows are gone: as a rule nearly all of ' +
      'them are still in the file.',
    remedy: `The pages are read one by one, without the first one. ${REBUILT}`,
  }),

  staleWal: ({ bytes: length }) => ({
    title: `The -wal file (${bytes(length)}) does not belong to this database`,
    means:
      'The database is sound without it, and damaged with it: the file was replaced (by a restore, a git checkout, a ' +
      'sync tool) while its old -wal stayed behind. A checkpoint would make the damage permanent.',
    remedy: 'The -wal is put aside under a dated name. It is not applied and not deleted.',
  }),

  walDeleted: ({ frames }) => ({
    title: 'The -wal file was deleted by hand',
    means:
      `${frames === null ? 'Commits' : `${counted(frames, 'page')} of commits`} that were in it and not yet in the ` +
      'database may be gone: what is in the file may be older than what was last committed. The file itself is sound.',
    remedy: 'Nothing can be done here; a backup may have what is gone. Never delete a -wal: it holds commits.',
  }),

  hotJournal: ({ pages }) => ({
    title: 'A transaction was cut off',
    means:
      'A process ended in the middle of it and left its rollback journal (-journal), which holds ' +
      `${counted(pages, 'page')} as they were before. Nothing that was committed is lost: the database was checked as it ` +
      'was before that transaction. The file and its journal were not changed. Never delete the journal.',
    remedy: 'The transaction is rolled back, as it is by the next program that opens the database for writing.',
  }),

  truncated: ({ missingPages }) => ({
    title: `The end of the file is missing: ${counted(missingPages, 'page')}`,
    means: 'The file was cut off, by a full disk or an incomplete copy, say. Rows on the missing pages are gone.',
    remedy: REBUILT,
  }),

  replaced: () => ({
    title: 'Another file was put in the place of the one that is open',
    means:
      'What is written to the old one is lost with its last connection, and the -wal beside the new one may not be ' +
      'its own.',
    remedy: 'Close the database in every process first, then run this again.',
  }),

  notADatabase: () => ({
    title: 'The file is not an SQLite database, or its first page was overwritten',
    means:
      'SQLite refuses to open it. If it once was a database, the rows behind its first page are still in the file, as ' +
      'a rule.',
    remedy: `If it was a database: the pages are read one by one, without the first one. ${REBUILT}`,
  }),

  locked: () => ({
    title: 'Somebody else has locked the database',
    means: 'Nothing is known of its health: it could not be read. This is no sign of damage.',
    remedy: 'Try again when the other process is done, or close it.',
  }),
}

/**
 * A finding as `{ title, where, means, remedy, lines }`; `where` are pages in words, `lines` SQLite's own.
 * @param finding of `Health.findings`
 */
function explain(finding) {
  const explanation = explanations[finding.type]?.(finding) ?? {
    title: `A problem of the kind ${finding.type}`,
    means: 'This version of the doctor has no words for it.',
    remedy: REBUILT,
  }
  const where = finding.pages?.length > 0 ? pageList(finding.pages) : undefined
  return { ...explanation, where, lines: finding.lines ?? [] }
}

/** Findings that are no damage of the file (src/health/finding.rs). */
const HARMLESS = new Set(['constraintViolations', 'foreignKeyViolations', 'hotJournal', 'locked', 'walDeleted'])

/** Whether a finding is damage. */
function isDamage({ type }) {
  return !HARMLESS.has(type)
}

/** What a check did, in a sentence. */
function extent({ kind, pages, pageSize }) {
  const what = pages > 0 ? `${number(pages)} pages of ${bytes(pageSize)}` : 'the file'
  return kind === 'quick' ? `${what}, without comparing indexes with their tables` : what
}

module.exports = { explain, extent, isDamage }
