//! The `-wal` and `-shm` of a database file that was replaced, or deleted, at its path.
//!
//! SQLite finds both by the path, so it would use them with the new file. But the WAL's frames are
//! pages of another database, and connections of this process that have the old file open share
//! the index and its locks. So both are removed from the path before the new file is opened. The
//! WAL is renamed, because it may have commits that are nowhere else; the index is a cache, and is
//! deleted. Connections that have the old file open keep both open.
//!
//! Only files are removed that have the device and inode of the files which the old file's
//! connections opened. A process may have opened the new file with them meanwhile. So they are
//! removed only while no connection has the new file open. Any thread.

use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::file_id::Presence;
use super::generation::shm_path;
use super::{Connection, DatabaseFile, Error, KeptKind, Result, Wal, put_wal_aside, wal_index};

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

impl DatabaseFile {
    /// Removes this file's `-wal` and `-shm` from the path, if the path no longer leads to this
    /// file. Waits up to `patience` for connections to the new file to be closed.
    ///
    /// # Errors
    /// `ERR_FUSION_REPLACED`: a connection to the new file uses them; SQLite's; the system's, as
    /// `SQLITE_IOERR`.
    pub fn clear_path(&self, patience: Duration) -> Result<()> {
        let path = &self.path;
        let deadline = Instant::now() + patience;
        loop {
            // Asked again after each pause: another process that had the old file open may have
            // cleared the path meanwhile, and has the new file open with files of its own.
            let presence = self.id.presence(path);
            if presence.as_ref().is_ok_and(|now| *now == Presence::Same)
                || self.connection_set.has_left(path).is_none_or(|left| left == (false, false))
            {
                return Ok(());
            }
            if matches!(presence, Ok(Presence::Unlinked)) {
                return self.remove_left();
            }
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let connection = Connection::open(path, flags, Duration::ZERO)?;
            connection.checkpoint_on_close(false);
            if let Some(done) = wal_index::while_alone(&connection, || self.remove_left())? {
                return done;
            }
            if Instant::now() >= deadline {
                return Err(in_use().at(path));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The same without waiting, for a caller that closes this file and goes on with the new file.
    /// If the path leads to no file, the WAL stays: this file may be put back.
    pub fn leave_path(&self) {
        if self.id.presence(&self.path).is_ok_and(|now| now == Presence::Replaced) {
            // Too late if a connection uses them with the new file.
            drop(self.clear_path(Duration::ZERO));
        }
    }

    /// Whether a `-wal` or `-shm` at this file's path may be one that its connections have open.
    pub fn may_have_left(&self) -> bool {
        match self.connection_set.has_left(&self.path) {
            Some(left) => left != (false, false),
            None => Wal::path(&self.path).exists() || shm_path(&self.path).exists(),
        }
    }

    fn remove_left(&self) -> Result<()> {
        let failed = |error: std::io::Error| {
            let message = format!(
                "the -wal and -shm of the file that was replaced could not be put aside: {error}"
            );
            Error::sqlite(ffi::SQLITE_IOERR, message).at(&self.path)
        };
        let (has_wal, has_shm) = self.connection_set.has_left(&self.path).unwrap_or_default();
        if has_wal {
            let wal = Wal::path(&self.path);
            let is_empty = std::fs::metadata(&wal).is_ok_and(|wal| wal.len() == 0);
            if is_empty {
                std::fs::remove_file(&wal).map_err(failed)?;
            } else {
                put_wal_aside(&self.path, &wal, KeptKind::StaleWal)?;
            }
        }
        if has_shm {
            std::fs::remove_file(shm_path(&self.path)).map_err(failed)?;
        }
        Ok(())
    }
}

fn in_use() -> Error {
    Error::fusion(
        "ERR_FUSION_REPLACED",
        "another file was put in the database's place while it was open, and a connection, of \
         another process or of this one, has opened it with the -wal of the old one. Close that \
         connection, then call reopen() again",
    )
}
