//! Writes a sound database's content into a damaged file that may be in use, in one transaction.
//!
//! The backup API (<https://sqlite.org/backup.html>) overwrites the content of one database with
//! that of another, under the destination's locks. Every other connection to the file sees a
//! committed change with a new schema; handles, inode and name stay the same. The transaction is
//! synced in full: after a power loss at any moment the file has the old content or the new one.
//!
//! SQLite refuses to lock a database whose header it cannot read, with one exception: with
//! `SQLITE_DBCONFIG_RESET_DATABASE` a connection treats the file as an empty database, and still
//! honours locks and WAL frames (<https://sqlite.org/c3ref/c_dbconfig_defensive.html>). So no
//! damage of the content makes it necessary to replace the file. Even then SQLite reads the page
//! size from the header if the value is possible. If that is not the database's page size, the two
//! bytes are corrected first.

use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{OpenFlags, ffi};

use crate::engine::{
    Backup, Class, CommitLock, Connection, Error, Generation, PageSizePatch, Progress, Result,
    SqliteFile, Stage,
};

/// Pages copied between two calls of [`Progress::check_cancelled`].
const PAGES: i32 = 512;

/// The longest pause between two attempts at the write lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Settings with which a commit that has returned survives a power loss, and does not checkpoint. With a
/// rollback journal the deletion of the journal commits, and only EXTRA syncs its folder. With FULL a power
/// loss can bring the journal back, and with it the old content
/// (<https://sqlite.org/pragma.html#pragma_synchronous>).
pub(super) const SYNCED: &str =
    "PRAGMA synchronous = EXTRA; PRAGMA fullfsync = 1; PRAGMA wal_autocheckpoint = 0";

/// How the write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The file durably has the new database's content.
    Yes,
    /// Another connection committed between the end of the hold and the beginning of the
    /// transaction. Nothing was written, and the salvage is out of date.
    Overtaken,
}

/// Overwrites the held file with the content of the database at `source`, which no other connection
/// has open. Both have the same page size, or the file has no WAL.
///
/// # Errors
/// `SQLITE_BUSY` if a lock of another connection blocks it until `until`; `ERR_FUSION_PAGE_SIZE` if
/// the WAL has another page size; those of the disk; `task`'s. The file is then unchanged.
pub(super) fn write_back(
    source: &Path,
    hold: CommitLock<'_>,
    until: Instant,
    task: &dyn Progress,
) -> Result<Written> {
    let live = hold.file();
    let path = live.path();
    let expected = live.generation()?;
    let from = Connection::open(source, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    let page_size: u32 = from.sql()?.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    if expected.wal_page_size().is_some_and(|size| size != page_size) {
        return Err(Error::fusion(
            "ERR_FUSION_PAGE_SIZE",
            format!("the WAL's pages do not have the {page_size} bytes of the new database's"),
        )
        .at(path));
    }
    if let Some(to) = readable_destination(path, page_size)? {
        return copy(&from, to, hold, expected, until, task);
    }
    let lie = hold.set_page_size(page_size)?;
    // With the right page size SQLite may be able to read the header. It then also sees an empty
    // WAL, which it ignores while it treats the file as an empty database.
    let readable = match lie {
        Some(_) => readable_destination(path, page_size)?,
        None => None,
    };
    let is_readable = readable.is_some();
    let to = readable.map_or_else(|| destination(path), Ok)?;
    let written = copy(&from, to, hold, expected, until, task);
    match written {
        Ok(Written::Yes) if is_readable => {}
        Ok(Written::Yes) => change_cookie(path, until, task)?,
        _ => put_back(live, lie, expected, until, task),
    }
    written
}

/// Ends the hold, takes the write lock, and copies, unless another connection committed in between.
fn copy(
    from: &Connection,
    to: Connection,
    hold: CommitLock<'_>,
    expected: Generation,
    until: Instant,
    task: &dyn Progress,
) -> Result<Written> {
    let live = hold.file();
    let at = |error: Error| error.at(live.path());
    // SAFETY: the caller owns `from`, which outlives the backup and is used by it alone, on this
    // thread.
    let mut backup = unsafe { Backup::begin(from.raw(), c"main", to, c"main") }.map_err(at)?;
    drop(hold);
    if !lock(&mut backup, live, expected, until, task).map_err(at)?
        || live.generation()? != expected
    {
        return Ok(Written::Overtaken);
    }
    loop {
        task.check_cancelled()?;
        // SAFETY: as above.
        let progress = unsafe { backup.step(PAGES) }.map_err(at)?;
        let total = u64::try_from(progress.total).unwrap_or(0);
        let remaining = u64::try_from(progress.remaining).unwrap_or(0);
        task.stage(Stage { name: "writing back", done: total.saturating_sub(remaining), total });
        if progress.done {
            return Ok(Written::Yes);
        }
    }
}

/// Undoes [`CommitLock::set_page_size`] in a file that was not overwritten. If another connection has
/// written to it since, or that is unknown, the header stays as it is.
fn put_back(
    live: &SqliteFile,
    lie: Option<PageSizePatch>,
    expected: Generation,
    until: Instant,
    task: &dyn Progress,
) {
    let Some(lie) = lie else { return };
    if let Ok(hold) = live.hold(until, task)
        && live.generation().is_ok_and(|now| now == expected)
    {
        // After a failure the preserved copy still has the original bytes.
        drop(hold.restore_page_size(lie));
    }
}

/// A connection to the damaged file without `SQLITE_DBCONFIG_RESET_DATABASE`. `None` if SQLite
/// cannot begin a transaction on the file, or uses another page size.
fn readable_destination(path: &Path, page_size: u32) -> Result<Option<Connection>> {
    let to = destination(path)?;
    set_reset(&to, false);
    let read: Result<()> =
        to.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(())).map_err(Error::from);
    match read {
        Ok(()) => {
            let size: u32 = to.sql()?.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            Ok((size == page_size).then_some(to))
        }
        Err(error) if error.class() == Class::Corrupt => Ok(None),
        // Contention is handled when the transaction begins.
        Err(error) if error.class() == Class::Transient => Ok(Some(to)),
        Err(error) => Err(error.at(path)),
    }
}

/// A connection that treats the damaged file as an empty database, syncs its commits in full and
/// never checkpoints.
fn destination(path: &Path) -> Result<Connection> {
    let to = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    to.checkpoint_on_close(false);
    // Before the PRAGMAs, which read the schema.
    set_reset(&to, true);
    let sql = to.sql()?;
    sql.execute_batch(SYNCED)?;
    let synchronous: i64 = sql.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if synchronous != 3 {
        let message = "synchronous = EXTRA did not take";
        return Err(Error::fusion("ERR_FUSION_PROFILE", message).at(path));
    }
    Ok(to)
}

fn set_reset(connection: &Connection, yes: bool) {
    // SAFETY: the connection is open; the operation takes an int and a pointer that may be null.
    // It cannot fail.
    unsafe {
        ffi::sqlite3_db_config(
            connection.raw(),
            ffi::SQLITE_DBCONFIG_RESET_DATABASE,
            i32::from(yes),
            ptr::null_mut::<i32>(),
        );
    }
}

/// Begins the destination's transaction. `false`: another connection has committed, and may have
/// repaired the file, so that waiting is of no use.
fn lock(
    backup: &mut Backup,
    live: &SqliteFile,
    expected: Generation,
    until: Instant,
    task: &dyn Progress,
) -> Result<bool> {
    let mut pause = Duration::from_micros(50);
    loop {
        task.check_cancelled()?;
        // SAFETY: the backup's source is this module's, see `write_back`.
        match unsafe { backup.step(0) } {
            Ok(_) => return Ok(true),
            Err(error) if error.class() != Class::Transient || Instant::now() >= until => {
                return Err(error);
            }
            // The generation also differs while it is being written. The repair then starts over
            // for no reason, which does no harm.
            Err(_) if live.generation()? != expected => return Ok(false),
            Err(_) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sets a schema version that no connection has in its cache, after SQLite has treated the file as
/// an empty database.
///
/// The backup API increments the destination's schema version, here from 0 to 1. A connection that
/// has cached the schema of a database with version 1 would go on using it.
fn change_cookie(path: &Path, until: Instant, task: &dyn Progress) -> Result<()> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let cookie = (since.as_millis() & 0x3fff_ffff) | 0x4000_0000;
    loop {
        let changed = connection
            .sql()?
            .execute_batch(&format!("PRAGMA schema_version = {cookie}"))
            .map_err(|error| Error::from(error).at(path));
        match changed {
            Err(error) if error.class() == Class::Transient && Instant::now() < until => {
                task.check_cancelled()?;
                std::thread::sleep(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::PathBuf;

    use super::*;
    use crate::engine::{NoProgress, Profile, SqliteFile};

    fn open(path: &Path) -> Connection {
        Connection::open_hardened(path, OpenFlags::default(), &Profile::default()).unwrap()
    }

    fn run(connection: &Connection, sql: &str) {
        connection.sql().unwrap().execute_batch(sql).unwrap();
    }

    fn number(connection: &Connection, sql: &str) -> i64 {
        connection.sql().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// A database with 50 rows in its file, changes of 10 of them but not of page 1 in its WAL, and
    /// one with 7 rows to replace it.
    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("live.sqlite");
        let connection = open(&path);
        run(&connection, "CREATE TABLE old (a); CREATE TABLE t (a, b)");
        for _ in 0..50 {
            run(&connection, "INSERT INTO t VALUES (randomblob(3000), 'old')");
        }
        run(&connection, "PRAGMA wal_checkpoint(TRUNCATE)");
        for row in 1..=10 {
            run(&connection, &format!("UPDATE t SET b = 'OLD' WHERE rowid = {row}"));
        }
        let source = directory.path().join("new.sqlite");
        let new = Connection::open(&source, OpenFlags::default(), Duration::ZERO).unwrap();
        run(&new, "CREATE TABLE t (a, b); CREATE INDEX i ON t (b)");
        for _ in 0..7 {
            run(&new, "INSERT INTO t VALUES (randomblob(3000), 'new')");
        }
        (directory, path, source)
    }

    fn destroy(path: &Path, at: u64, bytes: &[u8]) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    fn until() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn write(source: &Path, path: &Path) -> Written {
        let live = SqliteFile::open(path, until(), &NoProgress).unwrap();
        let hold = live.hold(until(), &NoProgress).unwrap();
        write_back(source, hold, until(), &NoProgress).unwrap()
    }

    fn assert_new(connection: &Connection) {
        assert_eq!(number(connection, "SELECT count(*) FROM t WHERE b = 'new'"), 7);
        assert_eq!(number(connection, "SELECT count(*) FROM t"), 7);
        assert_eq!(number(connection, "SELECT count(*) FROM sqlite_schema"), 2);
        let check: String = connection
            .sql()
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        run(connection, "INSERT INTO t VALUES (1, 'after'); DELETE FROM t WHERE b = 'after'");
    }

    /// Damages the file while a connection has it open, writes back, and sees that the connection
    /// that was open goes on with the new content in the same inode.
    fn goes_on(damage: impl Fn(&Path)) {
        let (_directory, path, source) = files();
        let inode = std::fs::metadata(&path).unwrap().ino();
        let before = open(&path);
        assert_eq!(number(&before, "SELECT count(*) FROM t"), 50);
        let reader = open(&path);
        run(&reader, "BEGIN");
        assert_eq!(number(&reader, "SELECT count(*) FROM old"), 0);
        assert_eq!(number(&reader, "SELECT count(*) FROM t"), 50);
        damage(&path);
        assert_eq!(write(&source, &path), Written::Yes);
        // A transaction that was open still sees what it saw.
        assert_eq!(number(&reader, "SELECT count(*) FROM old"), 0);
        run(&reader, "COMMIT");
        assert_new(&before);
        assert_new(&reader);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(number(&before, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
        drop((before, reader));
        assert_new(&open(&path));
    }

    #[test]
    fn a_sound_file_gets_the_new_content() {
        goes_on(|_| ());
    }

    #[test]
    fn a_file_without_a_header_gets_the_new_content() {
        goes_on(|path| destroy(path, 0, &[0; 4096]));
        goes_on(|path| destroy(path, 0, &[0xa5; 4096]));
    }

    #[test]
    fn a_file_with_a_header_that_lies_gets_the_new_content() {
        // Page size, schema format, page count.
        goes_on(|path| destroy(path, 16, &[0x20, 0]));
        goes_on(|path| destroy(path, 44, &[0xff; 4]));
        goes_on(|path| destroy(path, 28, &[0x7f; 4]));
    }

    #[test]
    fn a_file_that_was_cut_short_gets_the_new_content() {
        goes_on(|path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(5 * 4096 + 100).unwrap();
        });
    }

    #[test]
    fn a_file_without_connections_gets_the_new_content_whatever_its_first_page() {
        for first in [[0; 4096], [0xff; 4096]] {
            let (_directory, path, source) = files();
            let connection = open(&path);
            run(&connection, "PRAGMA wal_checkpoint(TRUNCATE)");
            connection.checkpoint_on_close(true);
            drop(connection);
            assert!(!crate::engine::Wal::path(&path).exists());
            destroy(&path, 0, &first);
            assert_eq!(write(&source, &path), Written::Yes);
            assert_new(&open(&path));
        }
    }

    #[test]
    fn its_schema_version_is_in_no_connections_cache() {
        let (_directory, path, source) = files();
        destroy(&path, 0, &[0; 4096]);
        write(&source, &path);
        let first = number(&open(&path), "PRAGMA schema_version");
        assert!(first > 1 << 29, "{first}");
    }
}
