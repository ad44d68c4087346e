//! The files that an open connection has: its database's and its WAL's, to be read as bytes.
//!
//! Nothing is opened, and no lock is taken: what is read may be torn, unless the connection's own
//! locks keep others from writing. The thread that owns the connection.

use rusqlite::ffi;

use super::sqlite_file::Handle;
use super::{Connection, PageSource, Result};

/// The files of a connection, which stays open meanwhile.
pub struct OpenFiles<'a> {
    database: Option<Handle>,
    wal: Option<Handle>,
    _connection: &'a Connection,
}

impl std::fmt::Debug for OpenFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFiles").field("has_wal", &self.wal.is_some()).finish_non_exhaustive()
    }
}

impl<'a> OpenFiles<'a> {
    /// Those of `connection`. SQLite opens the WAL at the first read.
    ///
    /// # Errors
    /// SQLite's.
    pub fn of(connection: &'a Connection) -> Result<Self> {
        Ok(Self {
            database: Handle::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)?,
            wal: Handle::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?,
            _connection: connection,
        })
    }

    /// The database file; none of a database without one.
    pub fn database(&self) -> Option<&impl PageSource> {
        self.database.as_ref()
    }

    /// Its WAL, where one is open.
    pub fn wal(&self) -> Option<&impl PageSource> {
        self.wal.as_ref()
    }
}
