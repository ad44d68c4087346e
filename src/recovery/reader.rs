//! Opens a connection that reads a database which may be in use, and leaves its files as they were.
//! It neither checkpoints nor removes an existing WAL, and it removes a WAL that it made. It reads
//! the database as a hot journal's rollback would leave it, without rolling it back.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::{
    Class, Connection, Error, Progress, Reader, Result, WAITING, refused_side_file,
};

/// The pause between two attempts at a lock.
const PAUSE: Duration = Duration::from_millis(5);

/// The number of pauses after which the task is in stage [`WAITING`].
const PAUSES_UNREPORTED: u32 = 10;

/// The header fields of a database that backup and restore need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes a page.
    pub page_size: u32,
    /// The text encoding; `None` if the schema cannot be read.
    pub encoding: Option<Encoding>,
    /// The database has no page, and so no header.
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

    /// The number in the file's header.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Utf8 => 1,
            Self::Utf16le => 2,
            Self::Utf16be => 3,
        }
    }

    /// SQLite's name of the encoding.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16le => "UTF-16le",
            Self::Utf16be => "UTF-16be",
        }
    }
}

/// Repeats `attempt` while another connection's lock blocks it, at most until `until`.
///
/// # Errors
/// `attempt`'s, `SQLITE_BUSY` only after `until`; `task`'s.
pub(super) fn patiently<T>(
    until: Instant,
    task: &dyn Progress,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut pauses = 0_u32;
    loop {
        task.check_cancelled()?;
        match attempt() {
            Err(error) if error.class() == Class::Transient && Instant::now() < until => {
                pauses = pauses.saturating_add(1);
                if pauses == 1
                    && let Some(path) = &error.path
                    && let Some(refusal) = refused_side_file(path)
                {
                    return Err(refusal.error(path));
                }
                if pauses == PAUSES_UNREPORTED {
                    task.stage(WAITING);
                }
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Opens the database at `path` for reading and begins a read transaction, so that all later reads
/// see one snapshot. In WAL mode the transaction blocks no writer.
///
/// # Errors
/// SQLite's (`SQLITE_CANTOPEN`, `SQLITE_NOTADB`, …; `SQLITE_BUSY` after `until`); `task`'s.
pub(super) fn open(path: &Path, until: Instant, task: &dyn Progress) -> Result<Reader> {
    let connection = Reader::open(path, Duration::ZERO)?;
    let run = |sql: &str| {
        connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    };
    run("BEGIN")?;
    // The first read takes the lock. This one reads only the header.
    patiently(until, task, || {
        let version = connection.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()));
        version.map_err(|error| Error::from(error).at(path))
    })?;
    Ok(connection)
}

/// Checks that all reads saw one snapshot. Reads through a hot journal take no lock, so they may
/// not have.
///
/// # Errors
/// `SQLITE_BUSY`: another connection has rolled the journal back and written since.
pub(super) fn check_current(reader: &Reader) -> Result<()> {
    if reader.is_current() {
        return Ok(());
    }
    let message = "another connection wrote to the database while it was read. Try again";
    Err(Error::sqlite(rusqlite::ffi::SQLITE_BUSY, message).at(reader.path()))
}

/// The header of the database that `connection` has open.
///
/// # Errors
/// SQLite's. A damaged schema is not an error.
pub(super) fn header(connection: &Connection) -> Result<Header> {
    let sql = connection.sql()?;
    let page_size = sql
        .query_row("PRAGMA page_size", [], |row| row.get(0))
        .map_err(|error| Error::from(error).at(connection.path()))?;
    let encoding = sql.query_row("PRAGMA encoding", [], |row| row.get::<_, String>(0));
    // This PRAGMA reads the schema first. If the schema is damaged, the database is not empty.
    let pages = sql.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0));
    Ok(Header {
        page_size,
        encoding: encoding.ok().and_then(|name| Encoding::named(&name)),
        is_empty: pages == Ok(0),
    })
}
