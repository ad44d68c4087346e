//! The findings of a check, as data.

use std::fmt;
use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::engine::shown;

/// How thorough a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// `PRAGMA quick_check`: every page, every record's form; indexes are not compared with
    /// their tables.
    Quick,
    /// `PRAGMA integrity_check`, full-text indexes against their content, and
    /// `PRAGMA foreign_key_check`.
    Full,
}

/// The result of a check. As JSON it also has its [`Health::summary`], as `text`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The file.
    pub path: PathBuf,
    /// How thorough the check was.
    pub kind: Kind,
    /// The check ran to its end, and no finding is damage ([`Finding::is_damage`]).
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

/// One fault, with SQLite's own lines about it (at most 100 lines per finding).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Finding {
    /// An index does not agree with its table, or its own b-tree is damaged: REINDEX.
    IndexDamage {
        /// The index.
        index: String,
        /// Its table.
        table: String,
        /// REINDEX needs a function or a collation that only the application has: the application
        /// has to run it. This package cannot rebuild the index.
        needs_application: bool,
        /// Damaged pages of its b-tree, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// A virtual table's own index is damaged (`SQLITE_CORRUPT_VTAB`): rebuild it. The file is
    /// sound.
    FtsDamage {
        /// The virtual table.
        table: String,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. `None` if they were not or cannot be counted.
        left_out: Option<u64>,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// A full-text index is sound but stale: it has entries of deleted rows, or of an earlier text
    /// of a row. Not damage of the file.
    FtsStale {
        /// The virtual table.
        table: String,
        /// Rows with entries in the index that are not in its content.
        gone: u64,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. `None` if they cannot be counted.
        left_out: Option<u64>,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// Rows whose foreign key refers to a missing row. Not damage of the file.
    ForeignKeyViolations {
        /// The referring table.
        table: String,
        /// The table referred to.
        parent: String,
        /// Number of these rows.
        rows: u64,
        /// Some of their rowids.
        rowids: Vec<i64>,
    },
    /// Rows that violate a `CHECK`, `NOT NULL` or type of their own table: they are older than the
    /// constraint, or were written while it was off. Not damage of the file.
    ConstraintViolations {
        /// The table.
        table: String,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// The freelist, or the pointer map of an auto-vacuum file, is damaged, or pages are neither
    /// used nor in the freelist.
    Freelist {
        /// Pages, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// A table's b-tree is damaged: rows are missing or wrong.
    TableDamage {
        /// The table; `sqlite_schema` is one.
        table: String,
        /// Damaged pages, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// The header or the schema is not valid.
    Header {
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// The WAL next to the file is another file's: the file passes the check only without the WAL,
    /// and the WAL contradicts the file.
    StaleWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// The proof, then SQLite's lines about the file together with the WAL.
        lines: Vec<String>,
    },
    /// The file passes the check only without its WAL, without a proof that the WAL is another
    /// file's. The WAL may be the file's own and have the only copy of commits, so it stays
    /// unless a person asks to put it aside.
    UnclearWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// SQLite's lines about the file together with the WAL.
        lines: Vec<String>,
    },
    /// Pages of which the disk failed every read. Only a repair that a person asked for reports
    /// this: everywhere else a failed read is an error, not a finding.
    Unreadable {
        /// The pages.
        pages: Vec<u32>,
        /// The error.
        lines: Vec<String>,
    },
    /// The WAL was deleted by hand, with commits that were not checkpointed. They are lost; the
    /// rest is not damaged by it. Reported once, because opening the file creates a new WAL.
    WalDeleted {
        /// Frames that were lost, if the `-shm` still counts them.
        frames: Option<u64>,
    },
    /// An interrupted transaction left a hot rollback journal (`-journal`), which the next
    /// connection that may write rolls back. Not damage: the check reads the database as after the
    /// rollback.
    HotJournal {
        /// Bytes of the journal.
        bytes: u64,
        /// Pages that a rollback puts back.
        changed_pages: u64,
    },
    /// This user may use the database, but not one of its sidecar files: it cannot write or lock.
    /// Not damage.
    RefusedFile {
        /// The `-wal`, `-shm` or `-journal`.
        file: PathBuf,
        /// Which access is refused to which user, and what to do.
        lines: Vec<String>,
    },
    /// The file is shorter than its page count, and the WAL does not make up for it.
    Truncated {
        /// Pages that are neither in the file nor in the WAL.
        missing_pages: u64,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// The path leads to another file than the one that this process has open.
    Replaced {
        /// A sentence about it.
        lines: Vec<String>,
    },
    /// The file is not an SQLite database, or its first page was overwritten.
    NotADatabase {
        /// The file or a sidecar file has a trace of SQLite (a part of the header, a b-tree page, a
        /// `-wal`, a `-journal`, the copy of the schema): it was a database. Without a trace there
        /// is nothing to repair.
        was_database: bool,
        /// SQLite's lines about it.
        lines: Vec<String>,
    },
    /// Another connection held a lock on the file, so that it could not be checked. Never counted
    /// as damage.
    Locked {
        /// SQLite's lines about it.
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
    /// Whether the file could not be checked, because another connection held a lock on it.
    pub fn is_locked(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding, Finding::Locked { .. }))
    }

    /// The findings, in a sentence each.
    pub fn summary(&self) -> String {
        let sentences: Vec<_> = self.findings.iter().map(ToString::to_string).collect();
        sentences.join("; ")
    }

    /// Sets [`Self::ok`] from the findings.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        self.ok = !self.is_locked() && !self.findings.iter().any(Finding::is_damage);
        self
    }
}

impl fmt::Display for Finding {
    /// For a person, SQLite's first line included. Names and lines are [`shown`].
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
                write!(f, "the full-text index {table} is damaged, its content is not")?;
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
                write!(f, "the database's header or schema is not valid")?;
                lines
            }
            Self::StaleWal { lines, .. } => {
                write!(
                    f,
                    "the -wal next to the database belongs to another database; without it the \
                     database is sound"
                )?;
                lines
            }
            Self::UnclearWal { lines, .. } => {
                write!(
                    f,
                    "the database is sound without its -wal and damaged with it, and nothing \
                     proves that the -wal is another database's"
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
                    "a transaction was interrupted and has changed up to {changed_pages} pages; \
                     the next connection that may write rolls it back"
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
