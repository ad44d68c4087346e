//! What can be wrong with a database, as data.

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

/// What a check found. As JSON it has its [`Health::summary`], too, as `text`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The file.
    pub path: PathBuf,
    /// What was done.
    pub kind: Kind,
    /// Nothing was found that is damage ([`Finding::is_damage`]), and the check was carried out.
    pub ok: bool,
    /// What was found; empty for a database in order.
    pub findings: Vec<Finding>,
    /// Pages of the database, 0 where that is not known.
    pub pages: u64,
    /// Bytes a page, 0 where that is not known.
    pub page_size: u32,
    /// Milliseconds that the check took.
    pub elapsed_ms: f64,
}

/// One thing that is wrong, with SQLite's own lines about it (at most 100 a finding).
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
        /// has to run it. Nothing here can rebuild the index.
        needs_application: bool,
        /// Damaged pages of its b-tree, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// A virtual table's own index is damaged (`SQLITE_CORRUPT_VTAB`): rebuild it. The file is
    /// sound.
    FtsDamage {
        /// The virtual table.
        table: String,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. None where that was not counted or cannot be.
        left_out: Option<u64>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// A full-text index that is sound does not say what its content says: it has entries of rows
    /// that are gone, or whose text is another by now. Not damage of the file.
    FtsStale {
        /// The virtual table.
        table: String,
        /// Rows that it has entries of, and that are not in its content.
        gone: u64,
        /// Rows of its content that the index leaves out, perhaps on purpose: a rebuild would add
        /// them. None where that cannot be counted.
        left_out: Option<u64>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// Rows that refer to none. Not damage of the file.
    ForeignKeyViolations {
        /// The referring table.
        table: String,
        /// The table referred to.
        parent: String,
        /// How many rows.
        rows: u64,
        /// Some of their rowids.
        rowids: Vec<i64>,
    },
    /// Rows that a `CHECK`, `NOT NULL` or type of their own table forbids. They were there before
    /// the constraint, or were written with it off. Not damage of the file.
    ConstraintViolations {
        /// The table.
        table: String,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The list of free pages, or the pointer map of an auto-vacuum file, is damaged, or pages
    /// are lost to it.
    Freelist {
        /// Pages, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// A table's b-tree is damaged: rows are missing or wrong.
    TableDamage {
        /// The table; `sqlite_schema` is one.
        table: String,
        /// Damaged pages, where SQLite names them.
        pages: Vec<u32>,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The database's first page, or the schema, cannot be made sense of.
    Header {
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The WAL next to the file is another file's: the file passes without it, and not with it,
    /// and the two contradict each other.
    StaleWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// What proves it, then SQLite's lines about the file together with the WAL.
        lines: Vec<String>,
    },
    /// The file passes without its WAL, and not with it, and nothing proves that the WAL is another
    /// file's: it may be the file's own, and hold commits that are nowhere else. Nothing is done
    /// about it unasked.
    UnclearWal {
        /// Bytes of the WAL.
        bytes: u64,
        /// SQLite's, about the file together with the WAL.
        lines: Vec<String>,
    },
    /// Pages of which the disk failed every read. Found only by a repair that a person asked for:
    /// elsewhere a read that fails is an error, and no finding.
    Unreadable {
        /// The pages.
        pages: Vec<u32>,
        /// The error.
        lines: Vec<String>,
    },
    /// The WAL was deleted by hand, and commits with it that were not checkpointed. They are
    /// gone; what is left is not damaged by it. Told once: opening the file makes a new WAL.
    WalDeleted {
        /// Frames that were lost, where the `-shm` still told.
        frames: Option<u64>,
    },
    /// A transaction was cut off and left its rollback journal (`-journal`), which the next
    /// connection that may write rolls back. Not damage: the check is of the database as it is
    /// after that.
    HotJournal {
        /// Bytes of the journal.
        bytes: u64,
        /// Pages that a rollback puts back.
        changed_pages: u64,
    },
    /// A file next to the database may not be used by this user, although the database may: nothing
    /// can be written, and no lock taken. Not damage.
    RefusedFile {
        /// The `-wal`, `-shm` or `-journal`.
        file: PathBuf,
        /// What is refused to whom, and what to do.
        lines: Vec<String>,
    },
    /// The file is shorter than its page count, and the WAL does not make up for it.
    Truncated {
        /// Pages that are nowhere.
        missing_pages: u64,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// The path leads to another file than the one that this process has open.
    Replaced {
        /// What happened.
        lines: Vec<String>,
    },
    /// No SQLite database, or its first page was overwritten.
    NotADatabase {
        /// Something of SQLite is in it or next to it (a part of the header, a b-tree page, its
        /// `-wal`, its `-journal`, the copy of its schema): it was one. Nothing can be repaired
        /// where there is nothing.
        was_database: bool,
        /// SQLite's.
        lines: Vec<String>,
    },
    /// Somebody holds the file: nothing is known of it. Never counted as damage.
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
    /// Nobody can tell, because somebody held the file all the time.
    pub fn is_locked(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding, Finding::Locked { .. }))
    }

    /// What was found, in a sentence for each finding.
    pub fn summary(&self) -> String {
        let told: Vec<_> = self.findings.iter().map(ToString::to_string).collect();
        told.join("; ")
    }

    /// Sets [`Self::ok`] by the findings.
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
