//! Copying a database through SQLite, some pages at a time
//! (<https://sqlite.org/c3ref/backup_finish.html>).
//!
//! A backup works on two connections. It owns the destination and borrows the source. It stays
//! attached to the source between its steps, too: SQLite writes each page that the source
//! connection writes meanwhile to the destination at once. So the owner of the source must not use
//! it while the backup does.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::{Class, Connection, Error, Result, errstr};

/// A backup that was begun. Dropping it ends it; an unfinished copy is rolled back.
#[derive(Debug)]
pub struct Backup {
    raw: NonNull<ffi::sqlite3_backup>,
    /// Closed once the backup has ended; `None` if the caller owns it.
    _destination: Option<Connection>,
}

/// How far a backup is, as of its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupProgress {
    /// Pages of the source.
    pub total: c_int,
    /// Pages that are still to be copied.
    pub remaining: c_int,
    /// The copy is complete and committed.
    pub done: bool,
}

// SAFETY: a backup is not bound to a thread; the contracts of its methods keep two threads from
// using one of its connections at once.
unsafe impl Send for Backup {}

impl Backup {
    /// Begins to copy the database `name` of the connection `source` into the database `target`
    /// of `destination`.
    ///
    /// # Safety
    /// `source` is open and stays open until the backup was dropped; during this call and
    /// [`Self::step`], and while it is dropped, no other thread uses `source`.
    ///
    /// # Errors
    /// SQLite's, where no database has such a name.
    pub unsafe fn begin(
        source: *mut ffi::sqlite3,
        name: &CStr,
        destination: Connection,
        target: &CStr,
    ) -> Result<Self> {
        // SAFETY: the caller's; the destination lives as long as the backup.
        let mut backup = unsafe { Self::begin_into(source, name, &destination, target) }?;
        backup._destination = Some(destination);
        Ok(backup)
    }

    /// The same into a connection that stays the caller's.
    ///
    /// # Safety
    /// As [`Self::begin`], and the same of `destination`.
    unsafe fn begin_into(
        source: *mut ffi::sqlite3,
        name: &CStr,
        destination: &Connection,
        target: &CStr,
    ) -> Result<Self> {
        // SAFETY: both connections are open, and the names NUL-terminated; the rest is the
        // caller's.
        let raw = unsafe {
            ffi::sqlite3_backup_init(destination.raw(), target.as_ptr(), source, name.as_ptr())
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, _destination: None }),
            // SAFETY: the destination is open and this thread's.
            None => Err(unsafe { Error::last(destination.raw()) }),
        }
    }

    /// Copies up to `pages` pages.
    ///
    /// # Safety
    /// As [`Self::begin`].
    ///
    /// # Errors
    /// SQLite's. Where the source or the destination is locked the step may be tried again.
    pub unsafe fn step(&mut self, pages: c_int) -> Result<BackupProgress> {
        // SAFETY: the backup was begun and not ended, by this type's invariant; the rest is the
        // caller's.
        let (code, total, remaining) = unsafe {
            let raw = self.raw.as_ptr();
            (
                ffi::sqlite3_backup_step(raw, pages),
                ffi::sqlite3_backup_pagecount(raw),
                ffi::sqlite3_backup_remaining(raw),
            )
        };
        match code {
            ffi::SQLITE_OK | ffi::SQLITE_DONE => {
                Ok(BackupProgress { total, remaining, done: code == ffi::SQLITE_DONE })
            }
            _ => Err(Error::reported(code, errstr(code))),
        }
    }
}

/// How often a copy may begin again before it keeps writers out.
const RESTARTS: u32 = 3;

/// Whether a step may succeed a moment later. A connection that only reads takes the journal of a
/// writer that began between two of its looks (`hasHotJournal`: is there a journal, has a process
/// reserved the file, is the journal empty) for one that was left behind.
fn passes(error: &Error) -> bool {
    error.class() == Class::Transient || error.errcode == ffi::SQLITE_READONLY_ROLLBACK
}

/// The pause before a lock of another connection is tried for again.
const BRIEFLY: Duration = Duration::from_millis(1);

impl Connection {
    /// Copies the main database into `destination`, `pages` at a time; `each` gets the progress of
    /// every step.
    ///
    /// If this connection is in a read transaction, the copy is a snapshot of that transaction.
    /// With `release` it is in no transaction. On a file with a rollback journal it then releases
    /// its lock between two steps, for as long as the step took, so that other connections commit.
    /// A commit restarts the copy. After three restarts the copy is made in one transaction, for
    /// which other connections wait. `release` is how long a lock of another connection is waited
    /// for.
    ///
    /// # Errors
    /// SQLite's; those of `each`.
    pub fn copy_to(
        &self,
        destination: &Self,
        pages: c_int,
        release: Option<Duration>,
        each: &mut dyn FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: both connections are borrowed until the backup is dropped, and used by no other
        // thread, since a `Connection` is not `Sync`.
        let mut backup = unsafe { Backup::begin_into(self.raw(), c"main", destination, c"main") }?;
        let (mut copied, mut restarts) = (0, 0);
        let mut last = BackupProgress { total: 0, remaining: 0, done: false };
        let mut waits_since: Option<Instant> = None;
        let mut snapshot = None;
        loop {
            let started = Instant::now();
            // SAFETY: as above.
            let progress = match unsafe { backup.step(pages) } {
                Err(error) if passes(&error) => {
                    let waited = waits_since.get_or_insert(started).elapsed();
                    if release.is_none_or(|patience| waited >= patience) {
                        return Err(error);
                    }
                    each(last)?;
                    std::thread::sleep(BRIEFLY);
                    continue;
                }
                other => other?,
            };
            waits_since = None;
            last = progress;
            each(progress)?;
            if progress.done {
                return Ok(());
            }
            let now = progress.total.saturating_sub(progress.remaining);
            if now <= copied {
                restarts += 1;
            }
            copied = now;
            if release.is_some() && snapshot.is_none() {
                if restarts < RESTARTS {
                    std::thread::sleep(started.elapsed().max(BRIEFLY));
                } else {
                    snapshot = Some(self.sql()?.unchecked_transaction()?);
                }
            }
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        // SAFETY: ended once, before the destination is closed; the caller of `begin` keeps
        // others from using the source meanwhile.
        unsafe { ffi::sqlite3_backup_finish(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::OpenFlags;

    use super::*;

    fn memory() -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Connection::open(Path::new(":memory:"), flags, Duration::ZERO).unwrap()
    }

    fn filled() -> Connection {
        let source = memory();
        source
            .sql()
            .unwrap()
            .execute_batch(
                "CREATE TABLE t (a); WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 \
                 FROM c WHERE x < 50) INSERT INTO t SELECT zeroblob(4000) FROM c",
            )
            .unwrap();
        source
    }

    #[test]
    fn what_the_source_connection_writes_meanwhile_is_copied_too() {
        let source = filled();
        // SAFETY: one thread, and `source` outlives the backup.
        let mut backup =
            unsafe { Backup::begin(source.raw(), c"main", memory(), c"main").unwrap() };
        // SAFETY: as above.
        let first = unsafe { backup.step(10) }.unwrap();
        assert!(!first.done);
        assert_eq!(first.total - first.remaining, 10);
        source.sql().unwrap().execute_batch("UPDATE t SET a = 'new'").unwrap();
        // SAFETY: as above.
        while !unsafe { backup.step(10) }.unwrap().done {}
        let news = backup._destination.as_ref().unwrap().sql().unwrap().query_row(
            "SELECT count(*) FROM t WHERE a = 'new'",
            [],
            |row| row.get::<_, i64>(0),
        );
        assert_eq!(news.unwrap(), 50);
    }

    #[test]
    fn a_name_that_is_none_is_an_error() {
        let source = filled();
        // SAFETY: one thread.
        let error = unsafe { Backup::begin(source.raw(), c"nope", memory(), c"main") }.unwrap_err();
        assert_eq!((error.errcode, error.message.as_str()), (1, "unknown database nope"));
    }
}
