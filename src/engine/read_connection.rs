//! Opens a database file for reading, and leaves the file and its folder as they were.
//! [`Access::of`] decides for every reader of the package how:
//!
//! - No `-wal` and no journal: read-write. SQLite makes a `-wal` and a `-shm` in order to read a
//!   database in WAL mode, and only a read-write connection removes them again.
//! - A `-wal`, or the journal of a transaction under way: read-only. The close of a read-write
//!   connection would checkpoint the WAL.
//! - A file or a folder without write permission, in which SQLite would have to make a `-wal` or a
//!   `-shm`, and a `-wal` without a `-shm`: as bytes, overlaid with the WAL's frames
//!   ([`StillFile`]).
//! - A hot journal, of an interrupted transaction: read-only, through the journal ([`RolledBack`]).
//!   A read-write connection would roll it back.
//!
//! A connection that is to write opens the file read-write, and SQLite rolls a hot journal back at
//! the first read ([`roll_back`] does only that). [`Reader::without_wal`] reads the file without
//! its WAL.
//!
//! Any thread, one at a time.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::StillFile;
use super::rolled_back::{HotJournal, RolledBack, has_journal};
use super::sqlite_file::patiently;
use super::{
    Class, Connection, Error, PageSource, Progress, Result, Wal, check_files, storage_vfs,
};

/// How a file may be opened to be read. See the module.
#[derive(Debug)]
pub enum Access {
    /// Read-write: the close of the connection removes the files that SQLite made.
    Alone,
    /// Read-only: the sidecar files stay.
    ReadOnly,
    /// Through its hot journal.
    ThroughJournal(Rc<RolledBack>),
    /// As bytes, without a lock.
    Still(Rc<StillFile>),
}

impl Access {
    /// How the database at `path` may be opened to be read.
    ///
    /// # Errors
    /// As [`check_files`] and [`RolledBack::open`].
    pub fn of(path: &Path) -> Result<Self> {
        check_files(path)?;
        if let Some(rolled_back) = RolledBack::open(path)? {
            return Ok(Self::ThroughJournal(Rc::new(rolled_back)));
        }
        if let Some(still) = StillFile::open(path)? {
            return Ok(Self::Still(Rc::new(still)));
        }
        let is_alone = !Wal::path(path).exists() && !has_journal(path);
        Ok(if is_alone { Self::Alone } else { Self::ReadOnly })
    }
}

/// What a connection reads in place of a file.
#[derive(Debug, Clone)]
pub(super) enum Instead {
    /// It reads the file.
    No,
    RolledBack(Rc<RolledBack>),
    Still(Rc<StillFile>),
}

/// An open connection that is used only for reading. It never checkpoints, not even when it is
/// dropped.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    /// The close of the connection removes the files that SQLite made.
    clean: bool,
    /// What the connection reads in place of the file.
    instead: Instead,
}

impl Reader {
    /// Opens the database at `path`. A lock is waited for as long as `busy_timeout`.
    ///
    /// # Errors
    /// As [`Connection::open`] and [`Access::of`].
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let (connection, clean, instead) = match Access::of(path)? {
            Access::Alone => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
                (Connection::open(path, flags, busy_timeout)?, true, Instead::No)
            }
            Access::ReadOnly => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                (Connection::open(path, flags, busy_timeout)?, false, Instead::No)
            }
            Access::ThroughJournal(rolled_back) => {
                let bytes: Rc<dyn PageSource> = Rc::clone(&rolled_back) as _;
                let connection = storage_vfs::open(bytes, rolled_back.path())?;
                (connection, false, Instead::RolledBack(rolled_back))
            }
            Access::Still(still) => {
                let bytes: Rc<dyn PageSource> = Rc::clone(&still) as _;
                (storage_vfs::open(bytes, still.path())?, false, Instead::Still(still))
            }
        };
        connection.checkpoint_on_close(false);
        // With memory-mapped reads a truncated file is a SIGBUS and not an error.
        connection.sql()?.execute_batch("PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self { connection, clean, instead })
    }

    /// Opens the database at `path` without its WAL and its journal. No lock is taken: a write of
    /// another connection meanwhile may look like damage.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn without_wal(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open(&immutable(path), flags, busy_timeout)?;
        connection.checkpoint_on_close(false);
        connection.sql()?.execute_batch("PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self { connection, clean: false, instead: Instead::No })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The hot journal through which the database is read; `None` without a hot journal.
    pub fn hot_journal(&self) -> Option<HotJournal> {
        match &self.instead {
            Instead::RolledBack(rolled_back) => Some(rolled_back.hot_journal()),
            Instead::No | Instead::Still(_) => None,
        }
    }

    /// Whether it takes locks, so that it reads one state of the database. If not, check
    /// [`Self::is_current`] after reading.
    pub fn takes_locks(&self) -> bool {
        matches!(self.instead, Instead::No)
    }

    /// What the connection reads in place of the file.
    pub(super) fn instead(&self) -> &Instead {
        &self.instead
    }

    /// Whether everything read so far is of one state of the database. `false` only if no lock was
    /// taken and another connection has written meanwhile.
    pub fn is_current(&self) -> bool {
        match &self.instead {
            Instead::No => true,
            Instead::RolledBack(rolled_back) => rolled_back.is_current(),
            Instead::Still(still) => still.is_current(),
        }
    }
}

impl Deref for Reader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let wal = std::fs::metadata(Wal::path(self.connection.path()));
        if self.clean && wal.is_ok_and(|wal| wal.len() == 0) {
            // There is nothing to checkpoint: the close deletes the empty WAL.
            self.connection.checkpoint_on_close(true);
        }
    }
}

/// Makes SQLite roll back the hot journal of the database at `path`, if there is one, and returns
/// what it was. A damaged database is not an error.
///
/// # Errors
/// `SQLITE_BUSY` where other connections have a lock until `until`; `SQLITE_READONLY_ROLLBACK`
/// where this user may not write; SQLite's; `task`'s.
pub fn roll_back(path: &Path, until: Instant, task: &dyn Progress) -> Result<Option<HotJournal>> {
    let Some(rolled_back) = RolledBack::open(path)? else { return Ok(None) };
    let hot = rolled_back.hot_journal();
    drop(rolled_back);
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    patiently(path, until, task, || {
        let read = connection
            .sql()?
            .query_row("PRAGMA schema_version", [], |_| Ok(()))
            .map_err(|error| Error::from(error).at(path));
        match read {
            Err(error) if error.class() == Class::Transient => Ok(None),
            Err(error) if error.class() == Class::Corrupt => Ok(Some(())),
            other => other.map(Some),
        }
    })?;
    Ok(Some(hot))
}

/// `path` as a URI with `immutable=1` (<https://sqlite.org/uri.html>).
fn immutable(path: &Path) -> PathBuf {
    immutable_uri(path.as_os_str().as_encoded_bytes(), cfg!(windows))
}

/// The same of a path's bytes. On Windows, as `winFullPathname` reads it: `file:///C:/a.db`,
/// `file:////server/share/a.db`, and with the backslashes of a path that begins with `\\?\`.
fn immutable_uri(path: &[u8], is_windows: bool) -> PathBuf {
    let is_plain = path.starts_with(br"\\?\");
    let mut uri = String::from("file:");
    if is_windows {
        uri.push_str(if path.starts_with(br"\\") && !is_plain { "//" } else { "///" });
    }
    for byte in path {
        let byte = if is_windows && !is_plain && *byte == b'\\' { &b'/' } else { byte };
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    PathBuf::from(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_immutable_file_has_a_uri_that_sqlite_reads_as_its_path() {
        for (path, is_windows, uri) in [
            ("/data/my a.db", false, "file:/data/my%20a.db"),
            (r"/data/a\b?.db", false, "file:/data/a%5Cb%3F.db"),
            (r"C:\data\a.db", true, "file:///C%3A/data/a.db"),
            (r"\\server\share\a.db", true, "file:////server/share/a.db"),
            (r"\\?\C:\data\a.db", true, "file:///%5C%5C%3F%5CC%3A%5Cdata%5Ca.db"),
        ] {
            let expected = PathBuf::from(format!("{uri}?immutable=1"));
            assert_eq!(immutable_uri(path.as_bytes(), is_windows), expected);
        }
    }
}
