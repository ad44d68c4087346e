//! The findings of a check, as data.

use std::fmt;
use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::engine::shown;

/// How thorough a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// `PRAGMA quick_check`: every page, every record's form; indexes are not compared with
    /// their tables.
    Quick,
    /// `PRAGMA integrity_check`, full-text indexes against their content, and
    /// `PRAGMA foreign_key_check`.
    Full,
}

/// The result of a check. Its JSON has [`Health::summary`] as an additional field `text`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The file.
    pub path: PathBuf,
    /// The kind of the check.
    pub kind: CheckKind,
    /// The check was carried out, and no finding is damage ([`Finding::is_damage`]).
    pub ok: bool,
    /// The findings; empty for a sound database.
    pub findings: Vec<Finding>,
    /// Pages of the database; 0 if unknown.
    pub pages: u64,
    /// Bytes per page; 0 if unknown.
    pub page_size: u32,
    /// Milliseconds that the check took.
    pub elapsed_ms: f64,
}

/// One finding, with SQLite's own lines about it (at most 100 for each finding).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Finding {
    /// An index does not match its table, or its own b-tree is damaged. REINDEX rebuilds it.
    IndexDamage {
        /// The index.
        index: String,
        /// Its table.
        table: String,
        /// REINDEX needs a function or a collation that only the application registers: the
        /// application has to run it.
        needs_application: bool,
        /// Damaged pages of its b-tree, if SQLite reports them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The index of a virtual table is damaged (`SQLITE_CORRUPT_VTAB`) and has to be rebuilt. The
    /// file is sound.
    FtsDamage {
        /// The virtual table.
        table: String,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. `None` if they were not or cannot be counted.
        left_out: Option<u64>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// A well-formed full-text index does not match its content: it has entries of rows that were
    /// deleted, or whose text has changed. Not damage of the file.
    FtsStale {
        /// The virtual table.
        table: String,
        /// Rows that have entries in the index and are not in its content.
        gone: u64,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. `None` if they cannot be counted.
        left_out: Option<u64>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// Rows whose parent row is missing. Not damage of the file.
    ForeignKeyViolations {
        /// The child table.
        table: String,
        /// The parent table.
        parent: String,
        /// How many rows.
        rows: u64,
        /// Some of their rowids.
        rowids: Vec<i64>,
    },
    /// Rows that violate a `CHECK`, a `NOT NULL` or a column type of their table. They are older
    /// than the constraint, or were written while it was off. Not damage of the file.
    ConstraintViolations {
        /// The table.
        table: String,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The freelist, or the pointer map of an auto-vacuum file, is damaged, or pages belong neither
    /// to a b-tree nor to the freelist.
    Freelist {
        /// Pages, if SQLite reports them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// A table's b-tree is damaged: rows are missing or wrong.
    TableDamage {
        /// The table, which may be `sqlite_schema`.
        table: String,
        /// Damaged pages, if SQLite reports them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The first page of the database, or the schema, is malformed.
    Header {
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The WAL next to the file belongs to another file. The file passes the check without the WAL
    /// and fails it with the WAL, and the two contradict each other.
    StaleWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// The proof, then SQLite's lines about the file together with the WAL.
        lines: Vec<String>,
    },
    /// The file passes the check without its WAL and fails it with the WAL, but nothing proves that
    /// the WAL belongs to another file. It may be the file's own, with commits that exist nowhere
    /// else. So it is left alone unless a user asks.
    UnclearWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// SQLite's, about the file together with the WAL.
        lines: Vec<String>,
    },
    /// Pages for which every read from the disk failed. Reported only by a repair that a user asked
    /// for: everywhere else a failed read is an error, not a finding.
    Unreadable {
        /// The pages.
        pages: Vec<u32>,
        /// The error.
        lines: Vec<String>,
    },
    /// The WAL was deleted, and with it commits that were not checkpointed. They are lost; the rest
    /// is not damaged by that. Reported once, because opening the file creates a new WAL.
    WalDeleted {
        /// Frames that were lost, if the `-shm` still held their number.
        frames: Option<u64>,
    },
    /// An interrupted transaction left its rollback journal (`-journal`), which the next connection
    /// that can write rolls back. Not damage: the check reads the database as it is after that.
    HotJournal {
        /// Bytes of the journal.
        bytes: u64,
        /// Pages that the rollback restores.
        changed_pages: u64,
    },
    /// This user may use the database, but not a file next to it: writes and locks fail. Not
    /// damage.
    RefusedFile {
        /// The `-wal`, `-shm` or `-journal`.
        file: PathBuf,
        /// Which access is refused to which user, and what to do.
        lines: Vec<String>,
    },
    /// The file is shorter than its page count, and the WAL does not hold the missing pages.
    Truncated {
        /// Pages that are neither in the file nor in the WAL.
        missing_pages: u64,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The path leads to another file than the one that this process has open.
    Replaced {
        /// What happened.
        lines: Vec<String>,
    },
    /// Not an SQLite database, or its first page was overwritten.
    NotADatabase {
        /// The file once was a database: a part of a header or a b-tree page is in it, or its
        /// `-wal`, its `-journal` or the copy of its schema is next to it. Only then can a repair
        /// find rows.
        was_database: bool,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// Another connection holds a lock on the file, so it was not checked. Never counts as damage.
    Locked {
        /// SQLite's.
        lines: Vec<String>,
    },
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut health = serializer.serialize_struct("Health", 8)?;
        health.serialize_field("path", &self.path)?;
        health.serialize_field("kind", &self.kind)?;
        health.serialize_field("ok", &self.ok)?;
        health.serialize_field("findings", &self.findings)?;
        health.serialize_field("pages", &self.pages)?;
        health.serialize_field("pageSize", &self.page_size)?;
        health.serialize_field("elapsedMs", &self.elapsed_ms)?;
        health.serialize_field("text", &self.summary())?;
        health.end()
    }
}

impl Health {
    /// Whether the check was not carried out, because the file was locked all the time.
    pub fn is_locked(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding, Finding::Locked { .. }))
    }

    /// The findings, one sentence each.
    pub fn summary(&self) -> String {
        let sentences: Vec<_> = self.findings.iter().map(ToString::to_string).collect();
        sentences.join("; ")
    }

    /// Sets [`Self::ok`] by the findings.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        self.ok = !self.is_locked() && !self.findings.iter().any(Finding::is_damage);
        self
    }
}

impl fmt::Display for Finding {
    /// A sentence for a user, with SQLite's first line. Names and lines are escaped by [`shown`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sentence = String::new();
        self.write(&mut sentence)?;
        f.write_str(&shown(&sentence))
    }
}

impl Finding {
    fn write(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let lines = match self {
            Self::IndexDamage { index, needs_application, lines, .. } => {
                write!(f, "the index {index} is damaged")?;
                if *needs_application {
                    write!(f, ", and only its application can rebuild it")?;
                }
                lines
            }
            Self::FtsStale { table, lines, .. } => {
                write!(f, "the full-text index {table} is not up to date with its content")?;
                lines
            }
            Self::FtsDamage { table, lines, .. } => {
                write!(f, "the full-text index {table} is damaged, the rows it is of are not")?;
                lines
            }
            Self::ForeignKeyViolations { table, parent, rows, .. } => {
                return write!(
                    f,
                    "{rows} rows of {table} refer to rows of {parent} that are not there"
                );
            }
            Self::ConstraintViolations { table, lines } => {
                write!(f, "{table} has rows that its own constraints forbid")?;
                lines
            }
            Self::Freelist { lines, .. } => {
                write!(f, "the list of free pages is damaged")?;
                lines
            }
            Self::TableDamage { table, pages, lines } => {
                write!(f, "the table {table} is damaged")?;
                match pages.len() {
                    0 => {}
                    1 => f.write_str(" on 1 page")?,
                    several => write!(f, " on {several} pages")?,
                }
                lines
            }
            Self::Header { lines } => {
                write!(f, "the database's header or schema makes no sense")?;
                lines
            }
            Self::StaleWal { lines, .. } => {
                write!(
                    f,
                    "the -wal next to the database is another one's; without it the database is \
                     sound"
                )?;
                lines
            }
            Self::UnclearWal { lines, .. } => {
                write!(
                    f,
                    "the database is sound without its -wal and damaged with it, and nothing proves \
                     that the -wal is another database's"
                )?;
                lines
            }
            Self::Unreadable { pages, lines } => {
                write!(f, "the disk failed every read of {} pages", pages.len())?;
                lines
            }
            Self::WalDeleted { frames: Some(frames) } => {
                return write!(f, "the -wal was deleted, and {frames} pages of commits with it");
            }
            Self::WalDeleted { frames: None } => {
                return write!(f, "the -wal was deleted, and the latest commits with it");
            }
            Self::HotJournal { changed_pages, .. } => {
                return write!(
                    f,
                    "a transaction was cut off and has changed up to {changed_pages} pages; the next \
                     connection that may write rolls it back"
                );
            }
            Self::Truncated { missing_pages, lines } => {
                write!(f, "the file was cut short: {missing_pages} pages are missing")?;
                lines
            }
            Self::Replaced { lines } | Self::Locked { lines } | Self::RefusedFile { lines, .. } => {
                return f.write_str(lines.first().map_or("", String::as_str));
            }
            Self::NotADatabase { was_database, lines } => {
                let what = if *was_database {
                    "the first page was overwritten"
                } else {
                    "it never was one"
                };
                write!(f, "the file is no SQLite database: {what}")?;
                lines
            }
        };
        match lines.first() {
            Some(line) => write!(f, " ({line})"),
            None => Ok(()),
        }
    }

    /// Whether the file, or an index in it, is damaged.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::ForeignKeyViolations { .. }
                | Self::ConstraintViolations { .. }
                | Self::FtsStale { .. }
                | Self::WalDeleted { .. }
                | Self::HotJournal { .. }
                | Self::RefusedFile { .. }
                | Self::Locked { .. }
        )
    }
}
