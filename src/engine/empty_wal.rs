//! Makes SQLite open an existing empty WAL.
//!
//! SQLite opens a database's `-wal` if page 1 says WAL mode, or if the `-wal` is not empty. The
//! `-wal` of an idle database is empty. If page 1 is destroyed as well, SQLite falls back to
//! rollback-journal locking. Those locks do not keep connections from committing that have the WAL
//! open, and cannot be taken while there are such connections.
//!
//! [`materialize`] writes one zero byte to such a `-wal`. The byte does not count as content: SQLite
//! ignores a WAL whose header is not whole, connections that have it open read the number of its
//! frames from the WAL index, and the next commit overwrites the WAL from its beginning
//! (<https://sqlite.org/walformat.html>). The next checkpoint that truncates the WAL removes the
//! byte. After a loss of power the byte may be there or not, which makes no difference. But now
//! every connection opens the WAL, and uses the WAL's locks.
//!
//! The byte is written through SQLite's VFS, under the WAL's write and checkpoint locks: no
//! connection writes to the WAL or truncates it meanwhile. The thread is the connection's.

use std::path::Path;
use std::ptr;

use rusqlite::ffi;

use super::sqlite_file::Handle;
use super::{Connection, Error, PageSource, Result, Wal, errstr};

/// The `-wal` of a database, if the connection has no WAL open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HiddenWal {
    /// No WAL has to be opened.
    None,
    /// It is empty, so that SQLite does not look for it: see [`materialize`].
    Empty,
    /// It is no longer empty: another connection has revealed it, or has committed since this
    /// connection read the file. The next read opens it. Until then this connection's locks exclude
    /// no other connection.
    Filled,
}

/// The state of the WAL that `connection`, which has read the file or tried to, did not open.
pub(super) fn unseen(connection: &Connection) -> Result<HiddenWal> {
    if Handle::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?.is_some() {
        return Ok(HiddenWal::None);
    }
    let size = |path: &Path| {
        std::fs::metadata(path).ok().filter(|file| file.is_file()).map(|file| file.len())
    };
    Ok(match size(&Wal::path(connection.path())) {
        None => HiddenWal::None,
        Some(0) => HiddenWal::Empty,
        // SQLite does not open the WAL of an empty file: it deletes it.
        Some(_) if size(connection.path()) == Some(0) => HiddenWal::None,
        Some(_) => HiddenWal::Filled,
    })
}

/// Makes the next read of `connection`, whose WAL is [`HiddenWal::Empty`], open it. `false`: another
/// connection has a lock.
///
/// # Errors
/// SQLite's: `SQLITE_READONLY` where WAL or index cannot be written to.
pub(super) fn materialize(connection: &Connection, database: &Handle) -> Result<bool> {
    // SQLite deletes a WAL only under an EXCLUSIVE lock on the file, which SHARED prevents.
    if !database.lock(ffi::SQLITE_LOCK_SHARED)? {
        return Ok(false);
    }
    let revealed = match database.map_shm() {
        Ok(true) => locked(connection, database),
        other => other,
    };
    database.unmap_shm();
    database.unlock_all();
    revealed
}

fn locked(connection: &Connection, database: &Handle) -> Result<bool> {
    if !database.lock_wal()? {
        return Ok(false);
    }
    let written = write(connection, database);
    database.unlock_wal();
    written.map(|()| true)
}

/// Makes later connections open a WAL that was truncated to zero bytes while it is open. Under the
/// WAL's write and checkpoint locks.
///
/// # Errors
/// SQLite's; `ERR_FUSION_WAL_LOST`.
pub(super) fn keep_revealed(database: &Handle, wal: &Handle) -> Result<()> {
    if wal.size()? > 0 {
        return Ok(());
    }
    check_unused(database)?;
    wal.write_at(&[0], 0)
}

/// Checks that the WAL index counts no frame of the WAL, which is empty.
fn check_unused(database: &Handle) -> Result<()> {
    match database.wal_generation()?.frames() {
        0 => Ok(()),
        frames => Err(Error::fusion(
            "ERR_FUSION_WAL_LOST",
            format!(
                "the first page is destroyed, and the -wal is empty although {frames} frames of \
                 it were in use: it was cut short while the database was open"
            ),
        )),
    }
}

/// A file that SQLite's VFS has opened.
struct Opened {
    handle: Handle,
    /// What the handle points to, aligned as SQLite allocates it.
    _memory: Vec<u64>,
}

impl Opened {
    /// Opens the WAL of `connection`, which must be there.
    fn wal_of(connection: &Connection) -> Result<Self> {
        let mut vfs: *mut ffi::sqlite3_vfs = ptr::null_mut();
        // SAFETY: the connection is open, and this file control writes one pointer.
        let rc = unsafe {
            ffi::sqlite3_file_control(
                connection.raw(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_VFS_POINTER,
                (&raw mut vfs).cast(),
            )
        };
        // SAFETY: null, or the VFS of the open connection, which is registered for good.
        let Some(methods) = (unsafe { vfs.as_ref() }).filter(|_| rc == ffi::SQLITE_OK) else {
            return Err(Error::sqlite(rc, errstr(rc)));
        };
        let Some(open) = methods.xOpen else {
            return Err(Error::sqlite(ffi::SQLITE_CANTOPEN, "the VFS opens no files"));
        };
        let size = usize::try_from(methods.szOsFile).unwrap_or(0);
        let mut memory = vec![0_u64; size.div_ceil(size_of::<u64>())];
        let file: *mut ffi::sqlite3_file = memory.as_mut_ptr().cast();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_WAL;
        // SAFETY: the connection is open and `main` is a file's, so that its name is one from
        // which SQLite makes the WAL's, valid while the connection is open, and `Opened` is not
        // kept for longer. The memory has the size that the VFS asks for, is zeroed, and stays
        // where it is when the vector is moved.
        let rc = unsafe {
            let database = ffi::sqlite3_db_filename(connection.raw(), c"main".as_ptr());
            open(vfs, ffi::sqlite3_filename_wal(database), file, flags, ptr::null_mut())
        };
        // SAFETY: the VFS has set the methods, or left them zeroed; where it has set them the file
        // is to be closed even after an error, which dropping `Opened` does.
        let opened = unsafe { Handle::from_open(file) };
        let opened = opened.map(|handle| Self { handle, _memory: memory });
        match opened {
            Some(opened) if rc == ffi::SQLITE_OK => Ok(opened),
            _ => Err(Error::sqlite(rc, errstr(rc))),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own, which is gone.
        unsafe { self.handle.close() };
    }
}

/// Under the locks.
fn write(connection: &Connection, database: &Handle) -> Result<()> {
    let path = Wal::path(connection.path());
    match Opened::wal_of(connection) {
        Ok(wal) if wal.handle.size()? == 0 => {
            check_unused(database)?;
            wal.handle.write_at(&[0], 0)
        }
        // Another connection has written to the WAL first.
        Ok(_) => Ok(()),
        Err(_) if !path.exists() => Ok(()),
        Err(error) => Err(error.at(&path)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::OpenFlags;

    use super::*;
    use crate::engine::Profile;

    fn read(connection: &Connection) -> rusqlite::Result<i64> {
        connection.sql().unwrap().query_row("PRAGMA schema_version", [], |row| row.get(0))
    }

    /// A connection that has tried to read an idle database without a first page.
    fn blind(path: &Path) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open(path, flags, Duration::ZERO).unwrap();
        connection.checkpoint_on_close(false);
        read(&connection).unwrap_err();
        connection
    }

    #[test]
    fn a_wal_that_somebody_else_reveals_meanwhile_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("idle.sqlite");
        let flags = OpenFlags::default();
        let open = Connection::open_hardened(&path, flags, &Profile::default()).unwrap();
        let run = |sql: &str| open.sql().unwrap().execute_batch(sql).unwrap();
        run("CREATE TABLE t (a); PRAGMA wal_checkpoint(TRUNCATE)");
        let first = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![0; first.len()]).unwrap();

        let (one, other) = (blind(&path), blind(&path));
        assert_eq!([unseen(&one).unwrap(), unseen(&other).unwrap()], [HiddenWal::Empty; 2]);
        let handle = |connection: &Connection| {
            Handle::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER).unwrap().unwrap()
        };
        assert!(materialize(&one, &handle(&one)).unwrap());
        assert_eq!(unseen(&other).unwrap(), HiddenWal::Filled);
        // It has been written to since it was found to be empty, which is no loss.
        run("INSERT INTO t VALUES (1)");
        assert!(materialize(&other, &handle(&other)).unwrap());
        for connection in [&one, &other] {
            drop(read(connection));
            assert_eq!(unseen(connection).unwrap(), HiddenWal::None);
        }
    }
}
