//! The check of a file before it is opened for writing.
//!
//! | the file | with `auto` it is checked |
//! |---|---|
//! | was checked since this process first opened it | no |
//! | does not exist, or is empty | no |
//! | is unchanged since a check found it sound, according to its [`Note`] | no |
//! | is small ([`SMALL`]) | at once, quick |
//! | has a WAL that an ended process left, and is not larger than [`LARGE`] | at once, quick |
//! | any other file | in the background, quick, once it is open |
//!
//! The settings `quick` and `full` check at once. A large file with a WAL of an ended process is
//! marked as possibly damaged: the log does not write to it before a check.
//!
//! Any thread; blocks it during a check that is made at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use super::check_coalescing::check_within;
use super::file_check::{deleted_wal, replaced, resolved, size};
use super::finding::{CheckKind, Finding, Health};
use super::health_cache::{last, remember};
use super::settled::Note;
use crate::engine::{
    Class, DatabaseFile, FileId, Progress, Reader, Result, Wal, advise, took_over_wal,
};

/// Size in bytes, WAL included, up to which a file is checked before every first open: 16 MiB, for
/// which a thread needs about 40 ms.
pub const SMALL: u64 = 16 << 20;

/// Size in bytes, WAL included, up to which a file is checked at once if its last process did not
/// close it: 64 MiB.
pub const LARGE: u64 = 64 << 20;

/// When a file is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// By the module's table.
    Auto,
    /// At once and quick, for any size; not if it is unchanged since a check found it sound.
    Ahead,
    /// At once, with `kind`.
    AtOnce(CheckKind),
    /// Once it is open.
    Background,
    /// Not at all.
    Off,
}

/// Result of [`before_open`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartupResult {
    /// Result of this check, or of an earlier one. Never [`Finding::Locked`]: the open reports
    /// that.
    pub health: Option<Health>,
    /// Findings that only a file that is not yet open shows. Also in `health`, if a check was made.
    pub found: Vec<Finding>,
    /// A check in the background is due.
    pub background: bool,
}

/// What [`opened`] does for a file that [`before_open`] examined.
#[derive(Debug)]
struct PendingStartup {
    /// Path of the file. If its open failed, the inode may since have been reused for another file.
    path: PathBuf,
    health: Option<Health>,
    suspect: bool,
}

static PENDING: Mutex<Option<HashMap<FileId, PendingStartup>>> = Mutex::new(None);

fn pending<R>(body: impl FnOnce(&mut HashMap<FileId, PendingStartup>) -> R) -> R {
    let mut pending = PENDING.lock();
    body(pending.get_or_insert_with(HashMap::new))
}

/// Removes what was recorded for `path`, where no file exists: a file created there is another one.
fn forget(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = resolved(directory.unwrap_or(Path::new(".")));
    if let (Ok(directory), Some(name)) = (directory, path.file_name()) {
        let path = directory.join(name);
        pending(|pending| pending.retain(|_, one| one.path != path));
    }
}

/// Examines the file at `path`, which is about to be opened, and checks it if `startup` demands it.
/// `noted` reads the note that is stored next to a file.
///
/// Any other error that prevents the check also makes the open fail, and the open reports it. The
/// result then has no health.
///
/// # Errors
/// `task`'s; `SQLITE_IOERR` if a read from the disk fails.
pub fn before_open(
    path: &Path,
    startup: Startup,
    noted: impl FnOnce(&Path) -> Option<Note>,
    task: &dyn Progress,
) -> Result<StartupResult> {
    task.check_cancelled()?;
    let Ok(path) = resolved(path) else {
        forget(path);
        return Ok(StartupResult::default());
    };
    let Ok(id) = FileId::of(&path) else {
        return Ok(StartupResult::default());
    };
    pending(|pending| pending.remove(&id));
    let bytes = size(&path);
    if bytes == 0 || path.is_dir() || startup == Startup::Off {
        return Ok(StartupResult::default());
    }
    if let Some(health) = last(id) {
        return Ok(StartupResult { health: Some(health), ..StartupResult::default() });
    }
    let found: Vec<Finding> = deleted_wal(&path).into_iter().collect();
    if matches!(startup, Startup::Auto | Startup::Ahead)
        && found.is_empty()
        && replaced(&path).is_none()
        && noted(&path).is_some_and(|note| note.holds(&path))
    {
        return Ok(StartupResult::default());
    }
    let wal_bytes = size(&Wal::path(&path));
    let mut after = PendingStartup { path: path.clone(), health: None, suspect: false };
    let kind = match startup {
        Startup::AtOnce(kind) => Some(kind),
        Startup::Ahead => Some(CheckKind::Quick),
        Startup::Off | Startup::Background => None,
        Startup::Auto if bytes + wal_bytes <= SMALL => Some(CheckKind::Quick),
        Startup::Auto => {
            after.suspect = wal_bytes > 0 && was_left(&path);
            (after.suspect && bytes + wal_bytes <= LARGE).then_some(CheckKind::Quick)
        }
    };
    let mut look = StartupResult { health: None, found, background: kind.is_none() };
    if let Some(kind) = kind {
        match check_within(&path, kind, Duration::ZERO, task) {
            Ok(mut health) if !health.is_locked() => {
                let more = look.found.iter().filter(|one| !health.findings.contains(one));
                let more: Vec<_> = more.cloned().collect();
                health.findings.extend(more);
                after.suspect = false;
                after.health = Some(health.clone());
                look.health = Some(health);
            }
            Ok(_) => look.background = true,
            // A failed read: the open would fail as well, or allow writes to an unchecked file.
            Err(error) if error.class() == Class::Io => return Err(advise(error.at(&path), &path)),
            Err(error) => {
                task.check_cancelled()?;
                // For example a missing permission: the open reports it.
                drop(error);
                look.background = true;
            }
        }
    }
    pending(|pending| pending.insert(id, after));
    Ok(look)
}

/// Applies the result of [`before_open`] to the file, which is now open. A damaged file is marked
/// as possibly damaged. The mark of a sound file is removed, which the WAL of an ended process had
/// set.
pub fn opened(file: &Arc<DatabaseFile>) {
    let found = pending(|pending| pending.remove(&file.id));
    let Some(PendingStartup { health, suspect, .. }) =
        found.filter(|found| found.path == file.path)
    else {
        return;
    };
    match health {
        Some(mut health) => {
            // Opening the file has rolled the journal back.
            health.findings.retain(|finding| !matches!(finding, Finding::HotJournal { .. }));
            if super::is_unsafe_to_write(&health) {
                file.suspect();
            } else {
                file.take_unverified();
            }
            remember(file, health);
        }
        None if suspect => file.suspect(),
        None => {}
    }
}

/// Whether an ended process left the WAL of the file, so that SQLite has to recover it. `false` if
/// the WAL is in use.
fn was_left(path: &Path) -> bool {
    let opened = Reader::open(path, Duration::ZERO)
        .and_then(|one| Ok(one.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()))?));
    // An error is ignored: the check reports damage.
    drop(opened);
    took_over_wal(path)
}
