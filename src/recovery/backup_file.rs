//! Backups: copies a database while it is in use, verifies the copy, and makes it the newest
//! generation.
//!
//! The copy is made through SQLite's backup API on a connection of its own. In WAL mode that
//! connection holds *one* read transaction: without it, every commit of another connection restarts
//! the backup, and the backup of a busy database never ends. The read transaction blocks no writer.
//! It keeps the WAL from being reset, so the WAL grows by what is committed meanwhile. The
//! transaction ends before the copy is verified. With a rollback journal it would block every
//! commit, so the copy runs without it: [`Connection::copy_to`] releases its lock between steps.
//!
//! The copy is one self-contained file, not in WAL mode. It is made, synced and verified in a
//! folder of its own in the target's directory. Only then does it become the newest generation
//! ([`super::rotation`]). A copy that does not pass is removed: its content is still in the
//! database, which is then marked as suspect.
//!
//! Runs on the caller's thread, and blocks it on the disk and on locks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};
use serde::Serialize;

use super::copy::copy;
use super::work_dir::{WorkDir, directory, named, system};
use super::{reader, rotation, snapshot_file};
use crate::engine::{
    Class, Connection, DatabaseFile, Error, FileId, Progress, Reader, Result, canonicalize,
    is_read_only,
};
use crate::health::{self, CheckKind, Finding, Health};

/// How a backup is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// How the copy is verified before it becomes the newest generation; `None`: it is not.
    pub verify: Option<CheckKind>,
    /// How many generations are kept, the new one included. At least 2, so that the last good
    /// backup exists until the next one is complete.
    pub keep: u32,
    /// Pages copied between two calls of [`Progress::check_cancelled`].
    pub rate: u32,
    /// How long the backup waits for a lock of another connection.
    pub patience: Duration,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            verify: Some(CheckKind::Full),
            keep: 2,
            rate: 1000,
            patience: Duration::from_millis(5_000),
        }
    }
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeBackup {
    /// The backup.
    pub path: PathBuf,
    /// Its pages.
    pub pages: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether it was verified.
    pub verified: bool,
    /// What the verification found, which may be a full-text index to rebuild.
    pub health: Option<Health>,
    /// Older generations, newest first.
    pub kept: Vec<PathBuf>,
    /// Milliseconds.
    pub elapsed_ms: f64,
}

/// How a backup ended.
#[derive(Debug, Clone, PartialEq)]
pub enum BackupOutcome {
    /// It is in place.
    Made(MadeBackup),
    /// The database is damaged: there is no new backup, and the older ones are as they were.
    Damaged(Health),
}

/// Copies the database at `database` to `target`. An existing backup at `target` becomes an older
/// generation.
///
/// # Errors
/// * `ERR_FUSION_SAME_FILE`: `target` is the database;
/// * `ERR_FUSION_BACKUP_IN_USE`: `target`, or an older generation, is open as a database;
/// * `ERR_FUSION_BACKUP_TARGET`: the file at `target` is not a database;
/// * SQLite's: `SQLITE_FULL`, `SQLITE_CANTOPEN`, `SQLITE_BUSY` where the database is held
///   exclusively; `task`'s. The older generations are then as they were.
pub fn backup(
    database: &Path,
    target: &Path,
    options: &BackupOptions,
    task: &dyn Progress,
) -> Result<BackupOutcome> {
    make(database, target, options, task).map_err(|error| named(error, database))
}

fn make(
    database: &Path,
    target: &Path,
    options: &BackupOptions,
    task: &dyn Progress,
) -> Result<BackupOutcome> {
    let started = Instant::now();
    let target = &resolved(target)?;
    check_target(database, target)?;
    let partial = WorkDir::new(target, database)?;
    let made = partial.file("copy");

    let source = match reader::open(database, started + options.patience, task) {
        Ok(source) => source,
        Err(error) if error.class() == Class::Corrupt => {
            return Ok(damaged(unreadable(database, options.verify, &error, started)));
        }
        Err(error) => return Err(error),
    };
    let path = source.path().to_path_buf();
    // It describes the same snapshot as the copy. Without it the backup is made all the same.
    let snapshot = snapshot_file::take(&source).ok();
    let release = (source.takes_locks() && !source.is_wal()?).then_some(options.patience);
    if release.is_some() {
        // With a rollback journal a lasting read transaction blocks every commit.
        source.sql()?.execute_batch("COMMIT").map_err(|error| Error::from(error).at(&path))?;
    }
    let pages = copy(&source, &made, options.rate, "copying", release, task)?;
    reader::check_current(&source)?;
    drop(source);

    let health = match options.verify {
        Some(kind) => Some(Health { path: path.clone(), ..verify(&made, kind, task)? }),
        None => None,
    };
    if let Some(health) = health.as_ref().filter(|health| !is_sound(health)) {
        return Ok(damaged(health.clone()));
    }
    let bytes =
        fs::metadata(&made).map_err(|error| system(ffi::SQLITE_IOERR_FSTAT, &made, &error))?.len();
    task.check_cancelled()?;
    let kept = rotation::rotate(&made, target, options.keep.max(2), task)?;
    if let Some(snapshot) = snapshot.filter(|_| health.is_some() && !is_read_only(&path)) {
        // Only a later repair uses it: the backup is complete without it.
        drop(snapshot_file::write(&path, &snapshot));
    }
    Ok(BackupOutcome::Made(MadeBackup {
        path: target.clone(),
        pages,
        bytes,
        verified: health.is_some(),
        health,
        kept,
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }))
}

/// Whether all tables of a database with this health are intact. A damaged full-text index does not
/// count, because it can be rebuilt from its table: such a backup is better than no backup.
pub(super) fn is_sound(health: &Health) -> bool {
    health.ok
        || !health
            .findings
            .iter()
            .any(|finding| finding.is_damage() && !matches!(finding, Finding::FtsDamage { .. }))
            && health.findings.iter().any(Finding::is_damage)
}

/// Checks the file at `path`, which no other connection has open.
///
/// # Errors
/// SQLite's; `SQLITE_BUSY` if it is locked nevertheless, so that nothing was checked; `task`'s.
pub(super) fn verify(path: &Path, kind: CheckKind, task: &dyn Progress) -> Result<Health> {
    let connection = Reader::open(path, Duration::ZERO)?;
    let health = health::inspect(&connection, kind, task)?;
    if health.is_locked() {
        let message = "another program has the file locked, so that it could not be checked. \
                       Nothing was changed";
        return Err(Error::sqlite(ffi::SQLITE_BUSY, message).at(path));
    }
    Ok(health)
}

/// The health of a database that cannot be read at all.
pub(super) fn unreadable(
    path: &Path,
    verify: Option<CheckKind>,
    error: &Error,
    started: Instant,
) -> Health {
    let lines = vec![error.message.clone()];
    Health {
        path: path.to_path_buf(),
        kind: verify.unwrap_or(CheckKind::Quick),
        ok: false,
        findings: vec![if error.errcode == ffi::SQLITE_NOTADB {
            Finding::NotADatabase { was_database: health::was_database(path), lines }
        } else {
            Finding::Header { lines }
        }],
        pages: 0,
        page_size: 0,
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }
}

/// Marks the database as suspect, so that this process verifies it before the next checkpoint.
fn damaged(health: Health) -> BackupOutcome {
    if let Some(file) = FileId::of(&health.path).ok().and_then(DatabaseFile::opened) {
        file.suspect();
    }
    BackupOutcome::Damaged(health)
}

/// `target` without symbolic links, whether the file exists or not.
pub(super) fn resolved(target: &Path) -> Result<PathBuf> {
    if let Ok(resolved) = canonicalize(target) {
        return Ok(resolved);
    }
    let folder = directory(target);
    let folder =
        canonicalize(folder).map_err(|error| system(ffi::SQLITE_CANTOPEN, target, &error))?;
    match target.file_name() {
        Some(name) => Ok(folder.join(name)),
        None => Err(Error::sqlite(ffi::SQLITE_CANTOPEN, "the path names no file").at(target)),
    }
}

/// Checks that `target` can be replaced, and that the file there is a database.
fn check_target(database: &Path, target: &Path) -> Result<()> {
    let Ok(id) = FileId::of(target) else {
        return rotation::check_movable(target);
    };
    check_distinct(database, target)?;
    if target.is_dir() {
        return Err(
            Error::sqlite(ffi::SQLITE_CANTOPEN, "the backup's path is a directory").at(target)
        );
    }
    if DatabaseFile::opened(id).is_some() {
        return Err(Error::fusion(
            "ERR_FUSION_BACKUP_IN_USE",
            "this process has the file open to which the backup is to be written. Close it, or \
             choose another path",
        )
        .at(target));
    }
    rotation::check_movable(target)?;
    // Closing a read-write connection removes the -wal and -shm files that it made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let existing = Connection::open(target, flags, Duration::ZERO)?;
    let read = existing.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()));
    match read.map_err(Error::from) {
        Err(error) if error.errcode == ffi::SQLITE_NOTADB => Err(Error::fusion(
            "ERR_FUSION_BACKUP_TARGET",
            "there is a file at the backup's path that is no database, and is not replaced. Move \
             it away, or choose another path",
        )
        .at(target)),
        // A damaged backup is replaced like any other. If a lock is in the way, the rename fails,
        // on systems where it matters.
        _ => Ok(()),
    }
}

/// Checks that the two paths lead to two files.
///
/// # Errors
/// `ERR_FUSION_SAME_FILE`.
pub(super) fn check_distinct(database: &Path, other: &Path) -> Result<()> {
    if let (Ok(one), Ok(two)) = (FileId::of(database), FileId::of(other))
        && one == two
    {
        return Err(Error::fusion(
            "ERR_FUSION_SAME_FILE",
            "the backup and the database are the same file",
        )
        .at(database));
    }
    Ok(())
}
