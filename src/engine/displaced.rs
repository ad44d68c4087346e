//! The `-wal` and `-shm` that a database file has left at its path, after another file took its place
//! there, or none did.
//!
//! SQLite finds both by the path, so that it would use them with the new file: the WAL's frames are
//! pages of another database, and connections of this process that have the old file open share the
//! index, and its locks. So they go before the new file is opened: the WAL, which may hold commits
//! that are nowhere else, is renamed; the index is a cache, and is removed. Connections that have the
//! old file open keep what they have open.
//!
//! That they are the old file's is no guess: they are the very files, by device and inode, that its
//! connections opened. They may be another's as well by now, if a process has opened the new file
//! with them; so it is done only while none has the new file open. Any thread.

use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::file_id::Presence;
use super::wedge::shm_path;
use super::{Connection, DatabaseFile, Error, KeptKind, Result, Wal, put_wal_aside, wal_index};

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

impl DatabaseFile {
    /// Clears the path of this file's `-wal` and `-shm`, where it leads elsewhere by now. Waits up
    /// to `patience` for connections to the new file to be closed.
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
                || self.members.has_left(path).is_none_or(|left| left == (false, false))
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

    /// The same at once, or not at all, for who closes this file and will go on with the one that took
    /// its place. Where none did the WAL stays: this file may be put back.
    pub fn leave_path(&self) {
        if self.id.presence(&self.path).is_ok_and(|now| now == Presence::Replaced) {
            // A connection that uses them with the new file is in the way: it is too late then.
            drop(self.clear_path(Duration::ZERO));
        }
    }

    /// Whether a `-wal` or `-shm` at this file's path may be one that its connections have open.
    pub fn may_have_left(&self) -> bool {
        match self.members.has_left(&self.path) {
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
        let (has_wal, has_shm) = self.members.has_left(&self.path).unwrap_or_default();
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
