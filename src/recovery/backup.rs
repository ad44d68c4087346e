//! Backups: a database copied while it is in use, verified, and put in place of the last one.
//!
//! The copy is made through SQLite's backup API on a connection of its own, in WAL mode inside
//! *one* read transaction. Without it every commit of another connection makes the backup begin
//! again, so that one of a busy database never ends. That transaction keeps no writer out; it
//! keeps the WAL from being reset, which grows by what is committed meanwhile and no more, and it
//! ends before the copy is verified. With a rollback journal it would keep everybody from
//! committing, so there is none: [`Connection::copy_to`] releases its lock between steps.
//!
//! The copy is one self-contained file, not in WAL mode. It is made and synced in a folder of its
//! own beside the target, verified there, and only then becomes the newest generation
//! ([`super::rotation`]). One that does not pass is not kept: what it holds is in the database
//! itself, which is marked as suspect.
//!
//! Runs on whatever thread calls; it waits for the disk, and for nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};
use serde::Serialize;

use super::copy::copy;
use super::partial::{Partial, directory, named, system};
use super::{reader, rotation, snapshot_file};
use crate::engine::{
    Class, Connection, DatabaseFile, Error, FileId, Reader, Result, Task, is_read_only,
};
use crate::health::{self, Finding, Health, Kind};

/// How a backup is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How the copy is verified before it takes its place; none: not at all.
    pub verify: Option<Kind>,
    /// How many generations there are afterwards, this one included; at least 2, so that the last
    /// good one is there until the next is.
    pub keep: u32,
    /// Pages copied between two looks at the [`Task`].
    pub rate: u32,
    /// How long a lock of another connection is waited for.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verify: Some(Kind::Full),
            keep: 2,
            rate: 1000,
            patience: Duration::from_millis(5_000),
        }
    }
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
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
pub enum Outcome {
    /// It is in place.
    Made(Made),
    /// The database is damaged: there is no new backup, and the older ones are as they were.
    Damaged(Health),
}

/// Copies the database at `database` to `target`. What is there becomes an older generation.
///
/// # Errors
/// * `ERR_FUSION_SAME_FILE`: `target` is the database;
/// * `ERR_FUSION_BACKUP_IN_USE`: `target`, or an older generation, is open as a database;
/// * `ERR_FUSION_BACKUP_TARGET`: what is at `target` is no database;
/// * SQLite's: `SQLITE_FULL`, `SQLITE_CANTOPEN`, `SQLITE_BUSY` where the database is held
///   exclusively; `task`'s. The older generations are then as they were.
pub fn backup(
    database: &Path,
    target: &Path,
    options: &Options,
    task: &dyn Task,
) -> Result<Outcome> {
    make(database, target, options, task).map_err(|error| named(error, database))
}

fn make(database: &Path, target: &Path, options: &Options, task: &dyn Task) -> Result<Outcome> {
    let started = Instant::now();
    let target = &resolved(target)?;
    check_target(database, target)?;
    let partial = Partial::new(target, database)?;
    let made = partial.file("copy");

    let source = match reader::open(database, started + options.patience, task) {
        Ok(source) => source,
        Err(error) if error.class() == Class::Corrupt => {
            return Ok(damaged(unreadable(database, options.verify, &error, started)));
        }
        Err(error) => return Err(error),
    };
    let path = source.path().to_path_buf();
    // Of the same moment as the copy. One that cannot be had is no reason to have no backup.
    let snapshot = snapshot_file::take(&source).ok();
    let release = (source.takes_locks() && !source.is_wal()?).then_some(options.patience);
    if release.is_some() {
        // A transaction that lasts would keep everybody from committing.
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
    task.go_on()?;
    let kept = rotation::rotate(&made, target, options.keep.max(2), task)?;
    if let Some(snapshot) = snapshot.filter(|_| health.is_some() && !is_read_only(&path)) {
        // It helps a repair that may never come; the backup is made.
        drop(snapshot_file::write(&path, &snapshot));
    }
    Ok(Outcome::Made(Made {
        path: target.clone(),
        pages,
        bytes,
        verified: health.is_some(),
        health,
        kept,
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }))
}

/// Whether the tables of a database with this health are all there. A full-text index is made
/// from them, and can be again: a backup with a damaged one is worth more than none.
pub(super) fn is_sound(health: &Health) -> bool {
    health.ok
        || !health
            .findings
            .iter()
            .any(|finding| finding.is_damage() && !matches!(finding, Finding::FtsDamage { .. }))
            && health.findings.iter().any(Finding::is_damage)
}

/// Checks the file at `path`, which nobody else knows of.
///
/// # Errors
/// SQLite's; `SQLITE_BUSY` where it is locked all the same, so that nothing was found; `task`'s.
pub(super) fn verify(path: &Path, kind: Kind, task: &dyn Task) -> Result<Health> {
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
    verify: Option<Kind>,
    error: &Error,
    started: Instant,
) -> Health {
    let lines = vec![error.message.clone()];
    Health {
        path: path.to_path_buf(),
        kind: verify.unwrap_or(Kind::Quick),
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

/// The database is damaged: whoever checkpoints it in this process looks first.
fn damaged(health: Health) -> Outcome {
    if let Some(file) = FileId::of(&health.path).ok().and_then(DatabaseFile::opened) {
        file.suspect();
    }
    Outcome::Damaged(health)
}

/// `target` without symbolic links, whether it is there or not.
pub(super) fn resolved(target: &Path) -> Result<PathBuf> {
    if let Ok(resolved) = fs::canonicalize(target) {
        return Ok(resolved);
    }
    let folder = directory(target);
    let folder =
        fs::canonicalize(folder).map_err(|error| system(ffi::SQLITE_CANTOPEN, target, &error))?;
    match target.file_name() {
        Some(name) => Ok(folder.join(name)),
        None => Err(Error::sqlite(ffi::SQLITE_CANTOPEN, "the path names no file").at(target)),
    }
}

/// That `target` can be replaced, and nothing is lost that is no backup.
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
    // Its last close leaves nothing beside it.
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
        // A damaged backup is replaced like any other; one that is locked fails when renamed, if
        // at all.
        _ => Ok(()),
    }
}

/// That the two paths lead to two files.
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
