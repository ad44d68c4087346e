//! Restores: writes the content of a backup into a database that may be in use.
//!
//! | step | what happens | after a failure |
//! |---|---|---|
//! | 1 | the backup is read in one transaction, and verified | nothing was changed |
//! | 2 | a copy with the database's page size is made, if it differs | nothing was changed |
//! | 3 | the database's write lock is taken | nothing was changed |
//! | 4 | the database is copied to `<database>.before-restore-<UTC time>` | nothing was changed |
//! | 5 | the backup's pages are written to the database, in one transaction | rolled back |
//! | 6 | COMMIT, synced | SQLite's guarantee: all or nothing |
//! | 7 | the database is checked, and checkpointed | an error reports it |
//!
//! SQLite writes the file under its own locks, and the file's inode stays. Other connections, of
//! this process and of others, keep their handles. They see a committed change of the schema, and
//! SQLite re-prepares their statements. A read transaction keeps its snapshot until it ends. A
//! writer waits for the write lock. No other connection can commit between step 3 and COMMIT, so
//! the copy of step 4 holds everything that the restore replaces.
//!
//! In step 5 the WAL grows by the size of the backup: one transaction keeps the replaced pages
//! until it is committed.
//!
//! If there is no database at the path, the copy is renamed to that path. If SQLite cannot read the
//! database's header, the content is written as in a repair ([`super::write_back`]).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};
use serde::Serialize;

use super::backup_file::{check_distinct, is_sound, resolved, unreadable};
use super::copy::copy;
use super::quarantine::{KeptOriginal, preserve};
use super::reader::{self, Header, patiently};
use super::report::Preserved;
use super::verify_written::{self, watcher};
use super::work_dir::{WorkDir, named, system};
use super::write_back::{SYNCED, Written, write_back};
use crate::engine::{
    self, Backup, BackupProgress, Class, Connection, DatabaseFile, Error, KeptCopy, KeptKind,
    Likeness, PrivateFile, Progress, Reader, Result, SqliteFile, Stage, Wal, check_files,
    find_same, sync_folder_of,
};
use crate::health::{self, CheckKind, Health};

/// How a restore is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// How the backup is verified before anything is changed; `None`: it is not.
    pub verify: Option<CheckKind>,
    /// How long the restore waits for a lock of another connection.
    pub patience: Duration,
    /// How many redundant copies are kept, as in [`super::repair::RepairOptions`].
    pub keep_copies: u32,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            verify: Some(CheckKind::Full),
            patience: Duration::from_millis(5_000),
            keep_copies: engine::KEEP,
        }
    }
}

/// A restore that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The database.
    pub path: PathBuf,
    /// The backup.
    pub from: PathBuf,
    /// The copy of the database before the restore; `None` if there was no database.
    pub preserved: Option<Preserved>,
    /// The number of pages of the restored database.
    pub pages: u64,
    /// The duration in milliseconds.
    pub elapsed_ms: f64,
}

/// How a restore ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RestoreOutcome {
    /// The database has the backup's content.
    Restored(Restored),
    /// The backup is damaged; nothing was changed.
    Damaged(Health),
}

/// Pages copied between two calls of [`Progress::check_cancelled`].
const SLICE: u32 = 1000;

/// Puts the content of the database at `from` into the one at `database`.
///
/// # Errors
/// * `ERR_FUSION_SAME_FILE`: they are the same file;
/// * `ERR_FUSION_RESTORE_EMPTY`: `from` is an empty file;
/// * `ERR_FUSION_RESTORE_ENCODING`: their text encodings differ, which connections that have the
///   database open cannot follow;
/// * `SQLITE_BUSY`: another connection had the write lock for longer than the patience;
/// * SQLite's; `task`'s.
///
/// After an error nothing was changed, unless the message says otherwise.
pub fn restore(
    database: &Path,
    from: &Path,
    options: &RestoreOptions,
    task: &dyn Progress,
) -> Result<RestoreOutcome> {
    put(database, from, options, task).map_err(|error| named(error, database))
}

fn put(
    database: &Path,
    from: &Path,
    options: &RestoreOptions,
    task: &dyn Progress,
) -> Result<RestoreOutcome> {
    let started = Instant::now();
    let until = |from: Instant| from + options.patience;
    let database = &resolved(database)?;
    check_distinct(database, from)?;
    check_files(database)?;

    let source = match reader::open(from, until(started), task) {
        Ok(source) => source,
        Err(error) if error.class() == Class::Corrupt => {
            return Ok(RestoreOutcome::Damaged(unreadable(from, options.verify, &error, started)));
        }
        Err(error) => return Err(error),
    };
    let from = source.path().to_path_buf();
    if let Some(kind) = options.verify {
        let health = health::inspect(&source, kind, task)?;
        if !is_sound(&health) {
            return Ok(RestoreOutcome::Damaged(Health { path: from, ..health }));
        }
    }
    let header = reader::header(&source)?;
    // With an empty source the first step of a backup, which should only take the lock, is also
    // the last one.
    if header.is_empty {
        return Err(Error::fusion(
            "ERR_FUSION_RESTORE_EMPTY",
            "the backup is an empty database. Nothing was restored from it; check its path",
        )
        .at(&from));
    }
    let like = if database.exists() { database } else { &from };
    let partial = WorkDir::new(database, like)?;
    let source = if !source.takes_locks() {
        // Without locks, only a check after the copy shows that it is one snapshot.
        let copied = partial.file("source");
        copy(&source, &copied, SLICE, "copying", None, task)?;
        reader::check_current(&source)?;
        reader::open(&copied, Instant::now(), task)?
    } else {
        source
    };
    let (pages, preserved) = if database.exists() {
        let destination = match destination(database, until(Instant::now()), task) {
            Ok(destination) => destination,
            Err(error) if error.class() == Class::Corrupt => {
                let until = until(Instant::now());
                let replaced = replace(database, &source, &header, &partial, until, task)?;
                return finish(database, from, replaced, options, started, task);
            }
            Err(error) => return Err(error),
        };
        let wanted = reader::header(&destination)?;
        check_encodings(&header, &wanted).map_err(|error| error.at(database))?;
        let source = if header.page_size == wanted.page_size {
            source
        } else {
            with_page_size(&source, wanted.page_size, &partial, task)?
        };
        let until = until(Instant::now());
        overwrite(database, destination, &source, &partial, until, task)?
    } else {
        (make(database, &source, &partial, task)?, None)
    };
    drop(partial);
    finish(database, from, (pages, preserved), options, started, task)
}

/// Step 7, and the result.
fn finish(
    database: &Path,
    from: PathBuf,
    (pages, preserved): (u64, Option<KeptOriginal>),
    options: &RestoreOptions,
    started: Instant,
    task: &dyn Progress,
) -> Result<RestoreOutcome> {
    check_result(database, preserved.as_ref().map(KeptOriginal::files).as_ref(), task)?;
    let preserved = preserved.map(|mut copy| {
        // If that cannot be proven, the copy stays.
        drop(copy.is_spare_if_same(database, task));
        copy.files()
    });
    engine::bound(database, options.keep_copies);
    Ok(RestoreOutcome::Restored(Restored {
        path: database.to_path_buf(),
        from,
        preserved,
        pages,
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }))
}

/// Opens the database that is to be overwritten. It keeps its journal mode: in WAL mode readers are
/// not blocked. The connection does not need the schema, which may be damaged.
fn destination(database: &Path, until: Instant, task: &dyn Progress) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open(database, flags, Duration::ZERO)?;
    // Nothing is checkpointed before the check of step 7.
    connection.checkpoint_on_close(false);
    connection.check_identity()?;
    let sql = connection.sql()?;
    let at = |error: rusqlite::Error| Error::from(error).at(database);
    sql.execute_batch("PRAGMA wal_autocheckpoint = 0").map_err(at)?;
    patiently(until, task, || {
        sql.query_row("PRAGMA schema_version", [], |_| Ok(())).map_err(at)?;
        // FULL is SQLite's default, so a failure over an unreadable schema does no harm.
        match sql.execute_batch(SYNCED).map_err(at) {
            Err(error) if error.class() != Class::Corrupt => Err(error),
            _ => Ok(()),
        }
    })?;
    Ok(connection)
}

fn check_encodings(source: &Header, database: &Header) -> Result<()> {
    match (source.encoding, database.encoding) {
        (Some(source), Some(database)) if source != database => Err(Error::fusion(
            "ERR_FUSION_RESTORE_ENCODING",
            format!(
                "the text of the backup is {} and that of the database {}, which connections that \
                 have it open cannot follow. Nothing was changed. Close the database everywhere, \
                 move it away with its -wal, and restore again: that makes a new file",
                source.name(),
                database.name(),
            ),
        )),
        _ => Ok(()),
    }
}

/// Copies what `source` sees into a database with pages of `size` bytes. In WAL mode a database
/// cannot change its page size, and the backup API does not convert pages.
fn with_page_size(
    source: &Connection,
    size: u32,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<Reader> {
    let (whole, resized) = (partial.file("whole"), partial.file("resized"));
    // VACUUM cannot run in a transaction, so the verified snapshot is copied first.
    copy(source, &whole, SLICE, "copying", None, task)?;
    task.check_cancelled()?;
    task.stage(Stage { name: "converting", done: 0, total: 0 });
    let at = |error: rusqlite::Error| Error::from(error).at(&whole);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open(&whole, flags, Duration::ZERO)?;
    let sql = connection.sql()?;
    // INTO keeps rowids, which VACUUM alone does not.
    sql.execute_batch(&format!("PRAGMA page_size = {size}")).map_err(at)?;
    let name = resized.to_str().ok_or_else(|| {
        let reason = "SQLite converts page sizes only in folders whose path is Unicode";
        Error::sqlite(ffi::SQLITE_CANTOPEN, reason).at(&resized)
    })?;
    // VACUUM INTO accepts an existing file if it is empty.
    Likeness::private()
        .create(&resized)
        .map_err(|error| system(ffi::SQLITE_CANTOPEN, &resized, &error))?;
    sql.execute("VACUUM INTO ?1", [name]).map_err(at)?;
    drop(connection);
    reader::open(&resized, Instant::now(), task)
}

/// Steps 3 to 6. Returns the number of pages written, and the copy of the old content.
fn overwrite(
    database: &Path,
    destination: Connection,
    source: &Connection,
    partial: &WorkDir,
    until: Instant,
    task: &dyn Progress,
) -> Result<(u64, Option<KeptOriginal>)> {
    let at = |error: Error| error.at(database);
    let file = destination.file().cloned();
    // With a rollback journal the write lock would block step 4, which reads. So step 4 runs before
    // step 3, and again if another connection committed in between.
    let aside = if destination.is_wal().is_ok_and(|is_wal| !is_wal) {
        let live = SqliteFile::open(database, until, task)?;
        let (preserved, generation) =
            copy_aside(database, partial, until, task, &|| live.generation())?;
        Some((live, preserved, generation))
    } else {
        None
    };
    // SAFETY: `source` is borrowed by this function until after the backup is dropped, and by no
    // other thread, since a `Connection` is not `Sync`.
    let mut backup = unsafe { Backup::begin(source.raw(), c"main", destination, c"main") }?;
    // SAFETY: as above.
    let mut step = |pages: i32| unsafe { backup.step(pages) }.map_err(at);
    let locked = lock(&mut step, file.as_deref(), until, task);
    let mut preserved = match aside {
        None => {
            locked?;
            copy_aside(database, partial, until, task, &|| Ok(()))?.0
        }
        Some((live, preserved, generation)) => {
            let is_current = locked.and_then(|_| Ok(live.generation()? == generation));
            if !matches!(is_current, Ok(true)) {
                drop(preserved);
                is_current?;
                if Instant::now() >= until {
                    let message =
                        "others wrote to the database each time before it could be locked";
                    return Err(at(Error::sqlite(ffi::SQLITE_BUSY, message)));
                }
                drop(backup);
                let again = self::destination(database, until, task)?;
                return overwrite(database, again, source, partial, until, task);
            }
            preserved
        }
    };
    let slice = i32::try_from(SLICE).unwrap_or(i32::MAX);
    let written = loop {
        if let Err(error) = task.check_cancelled() {
            break Err((error, true));
        }
        match step(slice) {
            Ok(progress) => {
                let (done, total) = figures(progress);
                task.stage(Stage { name: "restoring", done, total });
                if progress.done {
                    break Ok(total);
                }
            }
            Err(error) => break Err((error, false)),
        }
    };
    drop(backup);
    match written {
        Ok(pages) => {
            preserved.stays();
            Ok((pages, Some(preserved)))
        }
        Err((error, is_clean)) => {
            // After an error of the disk the copy may be the only intact one.
            if is_clean {
                return Err(error);
            }
            preserved.stays();
            let lead = format!(
                "the backup could not be written. What the database was is kept in {}, and unless \
                 it is damaged now it is the same as before",
                preserved.files().database.display()
            );
            let code = error.code;
            Err(error.explained(code, &lead))
        }
    }
}

fn figures(progress: BackupProgress) -> (u64, u64) {
    let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
    let total = count(progress.total);
    (total.saturating_sub(count(progress.remaining)), total)
}

/// Takes the database's write lock: the first step of a backup takes it, and a step of 0 pages does
/// nothing more.
fn lock(
    step: &mut impl FnMut(i32) -> Result<BackupProgress>,
    file: Option<&DatabaseFile>,
    until: Instant,
    task: &dyn Progress,
) -> Result<BackupProgress> {
    patiently(until, task, || {
        // When a connection of this process releases the lock, the pause ends.
        let expectation = file.map(|file| file.turn.expect_release());
        let locked = step(0);
        if locked.as_ref().is_err_and(|error| error.class() == Class::Transient)
            && let Some(expectation) = expectation
        {
            expectation.wait(Duration::from_millis(5));
        }
        locked
    })
    .map_err(|error| match error.class() {
        Class::Transient => {
            let code = error.code;
            error.explained(
                code,
                "another connection is writing to the database and did not end in time. Nothing \
                 was changed",
            )
        }
        _ => error,
    })
}

/// Step 4. Returns the copy, and the result of `then`, which runs before another connection can
/// commit. In WAL mode this thread's other connection has the write lock. With a rollback journal
/// this connection's read transaction blocks commits.
fn copy_aside<T>(
    database: &Path,
    partial: &WorkDir,
    until: Instant,
    task: &dyn Progress,
    then: &dyn Fn() -> Result<T>,
) -> Result<(KeptOriginal, T)> {
    let copied = partial.file("before");
    let reader = reader::open(database, until, task)?;
    copy(&reader, &copied, SLICE, "preserving", None, task)?;
    let then = then()?;
    drop(reader);
    let same =
        find_same(database, KeptKind::BeforeRestore, &PrivateFile::open(&copied)?, None, task)?;
    if let Some(copy) = same {
        return Ok((KeptOriginal::new(copy, false), then));
    }
    let copy = KeptCopy::name(database, KeptKind::BeforeRestore, &copied, None)
        .map_err(|error| system(ffi::SQLITE_IOERR, database, &error))?;
    sync_folder_of(database)?;
    Ok((KeptOriginal::new(copy, true), then))
}

/// Steps 3 to 6 for a database whose header SQLite cannot read. Like a repair, it first copies the
/// original and its WAL byte for byte to `<database>.damaged-<UTC time>`.
fn replace(
    database: &Path,
    source: &Connection,
    header: &Header,
    partial: &WorkDir,
    until: Instant,
    task: &dyn Progress,
) -> Result<(u64, Option<KeptOriginal>)> {
    let live = SqliteFile::open(database, until, task)?;
    let whole = partial.file("replacement");
    // In WAL mode a database cannot change its page size.
    let wanted = live.generation()?.wal_page_size().unwrap_or(header.page_size);
    let pages = if wanted == header.page_size {
        copy(source, &whole, SLICE, "copying", None, task)?
    } else {
        let resized = with_page_size(source, wanted, partial, task)?;
        copy(&resized, &whole, SLICE, "copying", None, task)?
    };
    let hold = live.hold(until, task)?;
    let mut preserved = preserve(&hold, partial, task)?;
    let written = write_back(&whole, hold, until, task);
    let error = match written {
        Ok(Written::Yes) => {
            preserved.stays();
            return Ok((pages, Some(preserved)));
        }
        Ok(Written::Overtaken) => Error::sqlite(
            ffi::SQLITE_BUSY,
            "another connection wrote to the database meanwhile. Nothing was changed",
        )
        .at(database),
        Err(error) => error,
    };
    if !matches!(error.class(), Class::Transient | Class::Misuse) {
        preserved.stays();
    }
    Err(error)
}

/// Makes a database that does not exist yet. The file gets its name once it is complete. A WAL
/// without a database is put aside.
fn make(
    database: &Path,
    source: &Connection,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<u64> {
    let made = partial.file("database");
    let pages = copy(source, &made, SLICE, "restoring", None, task)?;
    let wal = Wal::path(database);
    if wal.exists() {
        engine::put_wal_aside(database, &wal, KeptKind::BeforeRestore)?;
    }
    // Not by a hard link, though it would fail if another process makes the file at this moment: a
    // power loss before the first name is removed would leave a database with two names.
    engine::rename(&made, database)
        .map_err(|error| system(ffi::SQLITE_CANTOPEN, database, &error))?;
    sync_folder_of(database)?;
    Ok(pages)
}

/// Step 7.
fn check_result(database: &Path, preserved: Option<&Preserved>, task: &dyn Progress) -> Result<()> {
    let connection = watcher(database)?;
    let failed = || {
        let kept = preserved.map_or_else(String::new, |preserved| {
            format!(". What it was before is kept in {}", preserved.database.display())
        });
        format!(
            "the backup was sound, but the database into which it was restored is not: the disk \
             does not keep what is written to it{kept}"
        )
    };
    verify_written::verify_written(&connection, CheckKind::Quick, is_sound, failed, task)?;
    verify_written::checkpoint(&connection)
}
