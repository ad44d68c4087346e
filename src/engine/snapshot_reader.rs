//! What one read transaction sees of a database, as bytes.
//!
//! A [`super::SqliteFile`] excludes writers while its bytes are read. A [`PageSnapshot`] lets them go on: it
//! has a read-only connection with an open read transaction, and reads the files through that
//! connection's handles. With a rollback journal the transaction's SHARED lock keeps the file
//! unchanged. In WAL mode the transaction has a read mark, and then:
//!
//! * A checkpoint copies no frame beyond the mark into the file, so that the file changes only in
//!   pages that have a frame up to the mark.
//! * While not all frames are checkpointed the WAL is not reset: its frames stay where they are.
//! * So the file, overlaid with the frames up to the number in the WAL's index, is one state of the
//!   database, at the transaction's beginning or after it. If all frames were checkpointed already,
//!   the file alone is that state. The WAL may then be reset at any time, and must not be read.
//!
//! A file whose header SQLite cannot read can be viewed, too, and a file with a hot journal,
//! through the journal. Such a view has no transaction: if another connection writes, reads may be
//! torn.
//!
//! Any thread, one at a time.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::read_connection::Instead;
use super::sqlite_file::{Handle, patiently};
use super::{Class, Error, PageSource, Progress, Reader, Result};

/// Bytes of a WAL's header, and of a frame's (<https://sqlite.org/fileformat2.html>, 4.1).
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// A database as a read transaction sees it. Ends with its drop; changes nothing.
pub struct PageSnapshot {
    // Owns what the handles point to.
    reader: Reader,
    database: Database,
    wal: Option<Prefix>,
    steady: bool,
}

/// The bytes of the database file.
enum Database {
    File(Handle),
    /// The bytes that are read in place of the file.
    Bytes(Rc<dyn PageSource>),
}

impl std::fmt::Debug for PageSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl PageSnapshot {
    /// Views the database at `path`, whatever it holds.
    ///
    /// # Errors
    /// `SQLITE_BUSY` where it is locked until `until`; SQLite's; `task`'s. Damage is not an error.
    pub fn open(path: &Path, until: Instant, task: &dyn Progress) -> Result<Self> {
        let reader = Reader::open(path, Duration::ZERO)?;
        let bytes: Option<Rc<dyn PageSource>> = match reader.instead() {
            Instead::No => None,
            Instead::RolledBack(rolled_back) => Some(Rc::clone(rolled_back) as _),
            Instead::Still(still) => Some(Rc::clone(still) as _),
        };
        if let Some(bytes) = bytes {
            let database = Database::Bytes(bytes);
            return Ok(Self { reader, database, wal: None, steady: false });
        }
        let connection = reader.connection();
        let begin = || {
            let sql = connection.sql()?;
            if sql.is_autocommit() {
                sql.execute_batch("BEGIN")?;
            }
            // The first read is what takes the lock, and the mark.
            sql.query_row("PRAGMA schema_version", [], |_| Ok(())).map_err(Error::from)
        };
        let steady = patiently(path, until, task, || match begin() {
            Ok(()) => Ok(Some(true)),
            Err(error) => match error.class() {
                Class::Transient => Ok(None),
                Class::Corrupt => Ok(Some(false)),
                _ => Err(error.at(path)),
            },
        })?;
        let database = Handle::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)?
            .ok_or_else(|| Error::fusion("ERR_INVALID_STATE", "the database has no file"))?;
        let wal = Handle::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
        let wal = if steady {
            wal.map(|wal| Self::frames(&reader, wal)).transpose()?.flatten()
        } else {
            wal.map(|handle| Prefix { handle, length: u64::MAX })
        };
        Ok(Self { reader, database: Database::File(database), wal, steady })
    }

    /// The part of the WAL that belongs to the view; `None` if all its frames are in the file.
    /// `reader` has its read mark.
    fn frames(reader: &Reader, handle: Handle) -> Result<Option<Prefix>> {
        let page: u64 = reader
            .connection()
            .sql()?
            .query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))
            .map(|size| u64::try_from(size).unwrap_or(0))?;
        // SQLite does not report the frames to a connection in a transaction. Where it does not
        // report them to another one either, the frames' own checksums decide.
        let (frames, checkpointed) = Reader::open(reader.connection().path(), Duration::ZERO)?
            .connection()
            .wal_frames()
            .unwrap_or((u64::MAX, 0));
        let length = frames.saturating_mul(FRAME_HEADER + page).saturating_add(WAL_HEADER);
        Ok((checkpointed < frames).then_some(Prefix { handle, length }))
    }

    /// The path as SQLite resolved it.
    pub fn path(&self) -> &Path {
        self.reader.connection().path()
    }

    /// The database file.
    pub fn database(&self) -> &dyn PageSource {
        match &self.database {
            Database::File(handle) => handle,
            Database::Bytes(bytes) => &**bytes,
        }
    }

    /// The part of the WAL that belongs to the view, if there is one.
    pub fn wal(&self) -> Option<&impl PageSource> {
        self.wal.as_ref()
    }

    /// Whether a read transaction keeps the view consistent. `false` if SQLite could not begin one:
    /// the file's header is not a database's, there is a hot journal, or this process may not
    /// write.
    pub fn is_consistent(&self) -> bool {
        self.steady
    }
}

/// The beginning of a WAL.
struct Prefix {
    handle: Handle,
    length: u64,
}

impl PageSource for Prefix {
    fn size(&self) -> Result<u64> {
        Ok(self.handle.size()?.min(self.length))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        match buffer.get_mut(..wanted) {
            Some(buffer) if wanted > 0 => self.handle.read_at(buffer, offset),
            _ => Ok(0),
        }
    }
}
