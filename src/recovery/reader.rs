//! A connection that reads a database which may be in use, and leaves it as it was found: a WAL
//! that was there is neither checkpointed nor removed, one that was not is gone again, and a hot
//! journal is read through and not rolled back.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::{Class, Connection, Error, Reader, Result, Task, WAITING, refused_side_file};

/// The pause between two attempts at a lock.
const PAUSE: Duration = Duration::from_millis(5);

/// After so many of them the task is told.
const PAUSES_UNTOLD: u32 = 10;

/// What a database's header says, as far as copying asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes a page.
    pub page_size: u32,
    /// Its encoding's name; none where the schema cannot be read.
    pub encoding: Option<Encoding>,
    /// There is nothing at all in it, not even a header.
    pub is_empty: bool,
}

/// A database's text encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The most common.
    Utf8,
    /// Little-endian.
    Utf16le,
    /// Big-endian.
    Utf16be,
}

impl Encoding {
    fn named(name: &str) -> Option<Self> {
        match name {
            "UTF-8" => Some(Self::Utf8),
            "UTF-16le" => Some(Self::Utf16le),
            "UTF-16be" => Some(Self::Utf16be),
            _ => None,
        }
    }

    /// As the file's header has it.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Utf8 => 1,
            Self::Utf16le => 2,
            Self::Utf16be => 3,
        }
    }

    /// As SQLite calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16le => "UTF-16le",
            Self::Utf16be => "UTF-16be",
        }
    }
}

/// Carries `attempt` out until it meets no other connection's lock, or until `until`.
///
/// # Errors
/// `attempt`'s, contention only after `until`; `task`'s.
pub(super) fn patiently<T>(
    until: Instant,
    task: &dyn Task,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut pauses = 0_u32;
    loop {
        task.go_on()?;
        match attempt() {
            Err(error) if error.class() == Class::Transient && Instant::now() < until => {
                pauses = pauses.saturating_add(1);
                if pauses == 1
                    && let Some(path) = &error.path
                    && let Some(refusal) = refused_side_file(path)
                {
                    return Err(refusal.error(path));
                }
                if pauses == PAUSES_UNTOLD {
                    task.stage(WAITING);
                }
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Opens the database at `path` for reading and begins a read transaction, so that all that is read
/// from here on is of one moment. In WAL mode that keeps nobody from writing.
///
/// # Errors
/// SQLite's (`SQLITE_CANTOPEN`, `SQLITE_NOTADB`, …; `SQLITE_BUSY` after `until`); `task`'s.
pub(super) fn open(path: &Path, until: Instant, task: &dyn Task) -> Result<Reader> {
    let connection = Reader::open(path, Duration::ZERO)?;
    let run = |sql: &str| {
        connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    };
    run("BEGIN")?;
    // The first read takes the lock; this one reads nothing but the header.
    patiently(until, task, || {
        let version = connection.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()));
        version.map_err(|error| Error::from(error).at(path))
    })?;
    Ok(connection)
}

/// That what was read is of one moment. Only what is read through a hot journal may not be.
///
/// # Errors
/// `SQLITE_BUSY`: somebody has rolled the journal back and written since.
pub(super) fn check_current(reader: &Reader) -> Result<()> {
    if reader.is_current() {
        return Ok(());
    }
    let message = "somebody wrote to the database while it was read. Try again";
    Err(Error::sqlite(rusqlite::ffi::SQLITE_BUSY, message).at(reader.path()))
}

/// The header of the database that `connection` has open.
///
/// # Errors
/// SQLite's; a damaged schema is none.
pub(super) fn header(connection: &Connection) -> Result<Header> {
    let sql = connection.sql()?;
    let page_size = sql
        .query_row("PRAGMA page_size", [], |row| row.get(0))
        .map_err(|error| Error::from(error).at(connection.path()))?;
    let encoding = sql.query_row("PRAGMA encoding", [], |row| row.get::<_, String>(0));
    // It reads the schema first: where that is damaged there is something.
    let pages = sql.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0));
    Ok(Header {
        page_size,
        encoding: encoding.ok().and_then(|name| Encoding::named(&name)),
        is_empty: pages == Ok(0),
    })
}
