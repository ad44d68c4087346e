//! Restores: the content of a backup put into a database that may be in use.
//!
//! | step | what happens | where it fails |
//! |---|---|---|
//! | 1 | the backup is read in one transaction, and verified | nothing was changed |
//! | 2 | a copy with the database's page size is made, where it differs | nothing was changed |
//! | 3 | the database's write lock is taken | nothing was changed |
//! | 4 | the database is copied to `<database>.before-restore-<UTC time>` and synced | nothing was changed |
//! | 5 | the backup's pages are written, in one transaction of the database's own file | it is rolled back |
//! | 6 | COMMIT, synced | SQLite's word: all or nothing |
//! | 7 | the database is checked, and checkpointed | it is said |
//!
//! The file is written to under SQLite's locks, through SQLite, and stays the same file: the other
//! connections, of this process and of others, go on with the handles they have and see a
//! committed change, for which their statements are prepared anew. Those that read go on reading
//! what they read until they end their transaction; whoever wants to write waits. Between step 3
//! and COMMIT nobody else commits, so that what is preserved in step 4 is all that is replaced.
//!
//! In step 5 the WAL grows by the size of the backup. That is the price of one transaction: the
//! pages that are replaced stay where they are until it is committed.
//!
//! A database that is not there is made: the copy is renamed to its name. One whose header SQLite
//! cannot make anything of is written to as a repair does it ([`super::write_back`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};
use serde::Serialize;

use super::aftermath::{self, watcher};
use super::backup::{check_distinct, is_sound, resolved, unreadable};
use super::copy::copy;
use super::partial::{Partial, named, system};
use super::preserve::{Original, preserve};
use super::reader::{self, Header, patiently};
use super::report::Preserved;
use super::write_back::{SYNCED, Written, write_back};
use crate::engine::{
    self, Backup, Class, Connection, DatabaseFile, Error, KeptCopy, KeptKind, Likeness, LiveFile,
    PrivateFile, Progress, Reader, Result, Stage, Task, Wal, check_files, find_same,
    sync_folder_of,
};
use crate::health::{self, Health, Kind};

/// How a restore is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How the backup is verified before anything is changed; none: not at all.
    pub verify: Option<Kind>,
    /// How long a lock of another connection is waited for.
    pub patience: Duration,
    /// As for a repair ([`super::repair::Options`]).
    pub keep_copies: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verify: Some(Kind::Full),
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
    /// What the database was before; none if it was not there.
    pub preserved: Option<Preserved>,
    /// Its pages now.
    pub pages: u64,
    /// Milliseconds.
    pub elapsed_ms: f64,
}

/// How a restore ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The database has the backup's content.
    Restored(Restored),
    /// The backup is damaged; nothing was changed.
    Damaged(Health),
}

/// Pages copied between two looks at the task.
const SLICE: u32 = 1000;

/// Puts the content of the database at `from` into the one at `database`.
///
/// # Errors
/// * `ERR_FUSION_SAME_FILE`: they are the same file;
/// * `ERR_FUSION_RESTORE_EMPTY`: `from` is an empty file;
/// * `ERR_FUSION_RESTORE_ENCODING`: their text encodings differ, which connections that have the
///   database open cannot follow;
/// * `SQLITE_BUSY` where somebody writes to the database for longer than the patience;
/// * SQLite's; `task`'s.
///
/// Nothing was changed then, except where the message says so.
pub fn restore(
    database: &Path,
    from: &Path,
    options: &Options,
    task: &dyn Task,
) -> Result<Outcome> {
    put(database, from, options, task).map_err(|error| named(error, database))
}

fn put(database: &Path, from: &Path, options: &Options, task: &dyn Task) -> Result<Outcome> {
    let started = Instant::now();
    let until = |from: Instant| from + options.patience;
    let database = &resolved(database)?;
    check_distinct(database, from)?;
    check_files(database)?;

    let source = match reader::open(from, until(started), task) {
        Ok(source) => source,
        Err(error) if error.class() == Class::Corrupt => {
            return Ok(Outcome::Damaged(unreadable(from, options.verify, &error, started)));
        }
        Err(error) => return Err(error),
    };
    let from = source.path().to_path_buf();
    if let Some(kind) = options.verify {
        let health = health::inspect(&source, kind, task)?;
        if !is_sound(&health) {
            return Ok(Outcome::Damaged(Health { path: from, ..health }));
        }
    }
    let header = reader::header(&source)?;
    // The first step of a backup of nothing is its last.
    if header.is_empty {
        return Err(Error::fusion(
            "ERR_FUSION_RESTORE_EMPTY",
            "the backup is an empty database. Nothing was restored from it; check its path",
        )
        .at(&from));
    }
    let like = if database.exists() { database } else { &from };
    let partial = Partial::new(database, like)?;
    let source = if !source.takes_locks() {
        // That it was of one moment is known only afterwards.
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

/// Step 7, and the account of all.
fn finish(
    database: &Path,
    from: PathBuf,
    (pages, preserved): (u64, Option<Original>),
    options: &Options,
    started: Instant,
    task: &dyn Task,
) -> Result<Outcome> {
    check_result(database, preserved.as_ref().map(Original::files).as_ref(), task)?;
    let preserved = preserved.map(|mut copy| {
        // It stays where that cannot be shown.
        drop(copy.is_spare_if_same(database, task));
        copy.files()
    });
    engine::bound(database, options.keep_copies);
    Ok(Outcome::Restored(Restored {
        path: database.to_path_buf(),
        from,
        preserved,
        pages,
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }))
}

/// A connection to the database, which is to be overwritten, in the journal mode that it has: in
/// WAL mode readers go on meanwhile. It has no use for the schema, which may be damaged.
fn destination(database: &Path, until: Instant, task: &dyn Task) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open(database, flags, Duration::ZERO)?;
    // Nothing is checkpointed before it was looked at.
    connection.checkpoint_on_close(false);
    connection.check_identity()?;
    let sql = connection.sql()?;
    let at = |error: rusqlite::Error| Error::from(error).at(database);
    sql.execute_batch("PRAGMA wal_autocheckpoint = 0").map_err(at)?;
    patiently(until, task, || {
        sql.query_row("PRAGMA schema_version", [], |_| Ok(())).map_err(at)?;
        // FULL is what a connection begins with; the PRAGMA needs a schema that can be read.
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

/// A copy of what `source` sees with pages of `size` bytes: in WAL mode a database keeps its page
/// size, and the backup API copies pages as they are.
fn with_page_size(
    source: &Connection,
    size: u32,
    partial: &Partial,
    task: &dyn Task,
) -> Result<Reader> {
    let (whole, resized) = (partial.file("whole"), partial.file("resized"));
    // VACUUM takes no part in a transaction: what was verified is copied first.
    copy(source, &whole, SLICE, "copying", None, task)?;
    task.go_on()?;
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
    // SQLite takes an empty file for one that is not there.
    Likeness::private()
        .create(&resized)
        .map_err(|error| system(ffi::SQLITE_CANTOPEN, &resized, &error))?;
    sql.execute("VACUUM INTO ?1", [name]).map_err(at)?;
    drop(connection);
    reader::open(&resized, Instant::now(), task)
}

/// Steps 3 to 6. Answers the pages written, and what was preserved.
fn overwrite(
    database: &Path,
    destination: Connection,
    source: &Connection,
    partial: &Partial,
    until: Instant,
    task: &dyn Task,
) -> Result<(u64, Option<Original>)> {
    let at = |error: Error| error.at(database);
    let file = destination.file().cloned();
    // With a rollback journal the lock keeps readers out, too: step 4 comes before step 3, and is
    // made again where another connection was faster.
    let aside = if destination.is_wal().is_ok_and(|is_wal| !is_wal) {
        let live = LiveFile::open(database, until, task)?;
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
        if let Err(error) = task.go_on() {
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
            // After an error of the disk the copy may be what is left.
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

fn figures(progress: Progress) -> (u64, u64) {
    let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
    let total = count(progress.total);
    (total.saturating_sub(count(progress.remaining)), total)
}

/// Takes the database's write lock: the first step of a backup does, and one of no pages does
/// nothing else.
fn lock(
    step: &mut impl FnMut(i32) -> Result<Progress>,
    file: Option<&DatabaseFile>,
    until: Instant,
    task: &dyn Task,
) -> Result<Progress> {
    patiently(until, task, || {
        // A release in this process ends the pause.
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
                "somebody else is writing to the database and did not end in time. Nothing was \
                 changed",
            )
        }
        _ => error,
    })
}

/// Step 4, and what `then` answers before others can commit. In WAL mode the write lock is held by
/// this thread's other connection; with a rollback journal no other connection commits while this one reads.
fn copy_aside<T>(
    database: &Path,
    partial: &Partial,
    until: Instant,
    task: &dyn Task,
    then: &dyn Fn() -> Result<T>,
) -> Result<(Original, T)> {
    let copied = partial.file("before");
    let reader = reader::open(database, until, task)?;
    copy(&reader, &copied, SLICE, "preserving", None, task)?;
    let then = then()?;
    drop(reader);
    let same =
        find_same(database, KeptKind::BeforeRestore, &PrivateFile::open(&copied)?, None, task)?;
    if let Some(copy) = same {
        return Ok((Original::new(copy, false), then));
    }
    let copy = KeptCopy::name(database, KeptKind::BeforeRestore, &copied, None)
        .map_err(|error| system(ffi::SQLITE_IOERR, database, &error))?;
    sync_folder_of(database)?;
    Ok((Original::new(copy, true), then))
}

/// Steps 3 to 6 where SQLite cannot make anything of the database's header: as a repair does it,
/// with the original preserved byte for byte, its WAL beside it, as `<database>.damaged-<UTC time>`.
fn replace(
    database: &Path,
    source: &Connection,
    header: &Header,
    partial: &Partial,
    until: Instant,
    task: &dyn Task,
) -> Result<(u64, Option<Original>)> {
    let live = LiveFile::open(database, until, task)?;
    let whole = partial.file("replacement");
    // In WAL mode pages keep their size.
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

/// The database is not there: its file is made, and given its name once it is whole. A WAL without its database is put aside.
fn make(database: &Path, source: &Connection, partial: &Partial, task: &dyn Task) -> Result<u64> {
    let made = partial.file("database");
    let pages = copy(source, &made, SLICE, "restoring", None, task)?;
    let wal = Wal::path(database);
    if wal.exists() {
        engine::put_wal_aside(database, &wal, KeptKind::BeforeRestore)?;
    }
    // Not by a link, which would fail where somebody makes the file at this moment: cut off before
    // its other name is gone, it leaves a database with two.
    fs::rename(&made, database).map_err(|error| system(ffi::SQLITE_CANTOPEN, database, &error))?;
    sync_folder_of(database)?;
    Ok(pages)
}

/// Step 7.
fn check_result(database: &Path, preserved: Option<&Preserved>, task: &dyn Task) -> Result<()> {
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
    aftermath::look(&connection, Kind::Quick, is_sound, failed, task)?;
    aftermath::checkpoint(&connection)
}
