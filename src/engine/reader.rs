//! A connection that reads a database and leaves its folder as it was.
//!
//! Beside a database in WAL mode that was closed cleanly SQLite makes a `-wal` and a `-shm` in
//! order to read it, and only a connection that may write takes them away again. Where something
//! is there that such a connection would act on (frames, a hot journal), it may not write.
//!
//! Any thread, one at a time.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;

use super::{Connection, Result, Wal, beside};

/// An open connection that writes nothing and does not checkpoint, not even when it is dropped.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    /// There was nothing beside the database.
    clean: bool,
}

impl Reader {
    /// Opens the database at `path`. A lock is waited for as long as `busy_timeout`.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let clean = ["-wal", "-shm", "-journal"].iter().all(|end| !beside(path, end).exists());
        let flags = if clean {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        let connection = Connection::open(path, flags, busy_timeout)?;
        connection.checkpoint_on_close(false);
        // With memory-mapped reads a file that is cut short is a SIGBUS and no error.
        connection.sql()?.execute_batch("PRAGMA query_only = 1; PRAGMA mmap_size = 0")?;
        Ok(Self { connection, clean })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let wal = std::fs::metadata(Wal::path(self.connection.path()));
        if self.clean && wal.is_ok_and(|wal| wal.len() == 0) {
            // There is nothing to checkpoint: closing takes the empty WAL away.
            self.connection.checkpoint_on_close(true);
        }
    }
}
