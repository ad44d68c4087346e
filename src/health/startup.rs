//! The check of a file before it is opened for writing.
//!
//! | the file | check with `auto` |
//! |---|---|
//! | has been checked since this process first opened it | none |
//! | does not exist, or is empty | none |
//! | is unchanged since a check found it sound, by the [`Note`] in its `-schema` file | none |
//! | is small ([`SMALL`]) | at once, quick |
//! | has a WAL that an ended process left, and is not large ([`LARGE`]) | at once, quick |
//! | any other | in the background, quick, once it is open |
//!
//! The options `quick` and `full` check at once. A large file with a WAL that an ended process left
//! is flagged as possibly damaged: the log does not write to it before the check has passed.
//!
//! Any thread; blocks it during a check at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::file_check::{deleted_wal, replaced, resolved, size};
use super::finding::{Finding, Health, Kind};
use super::last::{last, remember};
use super::settled::Note;
use super::shared::check_within;
use crate::engine::{
    Class, DatabaseFile, FileId, Reader, Result, Task, Wal, advise, took_over_wal,
};

/// Bytes, WAL included, up to which a file is checked before every first open: 16 MiB, for
/// which a thread needs some 40 ms.
pub const SMALL: u64 = 16 << 20;

/// Bytes up to which a file is checked at once if its last user did not close it: 64 MiB.
pub const LARGE: u64 = 64 << 20;

/// When a file is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// As the module's table says.
    Auto,
    /// At once and quick, for a file of any size, unless it is unchanged since a check.
    Ahead,
    /// At once, with `kind`.
    AtOnce(Kind),
    /// Once it is open.
    Background,
    /// Not at all.
    Off,
}

/// The result of the check before a file is opened.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// The health found by a check at once, or by an earlier check. Never `Locked`: the open
    /// reports a lock.
    pub health: Option<Health>,
    /// Findings that only a check before the open can make; also part of `health` if there is one.
    pub found: Vec<Finding>,
    /// A check in the background is due.
    pub background: bool,
}

/// The result to apply once the file is open.
#[derive(Debug)]
struct Pending {
    /// Path of the file. If its open was refused, it may since have been deleted, and its inode
    /// reused.
    path: PathBuf,
    health: Option<Health>,
    suspect: bool,
}

static PENDING: Mutex<Option<HashMap<FileId, Pending>>> = Mutex::new(None);

fn pending<R>(body: impl FnOnce(&mut HashMap<FileId, Pending>) -> R) -> R {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    body(pending.get_or_insert_with(HashMap::new))
}

/// There is no file at `path`: drops a result for the file that was there.
fn forget(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = resolved(directory.unwrap_or(Path::new(".")));
    if let (Ok(directory), Some(name)) = (directory, path.file_name()) {
        let path = directory.join(name);
        pending(|pending| pending.retain(|_, one| one.path != path));
    }
}

/// Checks the file at `path`, which is about to be opened, if the module's table says so. `noted`
/// reads the note in the file's `-schema` file.
///
/// If any other error prevents the check, [`Look::health`] is `None`: the open meets the same error
/// and reports it.
///
/// # Errors
/// `task`'s; `SQLITE_IOERR` if a read fails.
pub fn before_open(
    path: &Path,
    startup: Startup,
    noted: impl FnOnce(&Path) -> Option<Note>,
    task: &dyn Task,
) -> Result<Look> {
    task.go_on()?;
    let Ok(path) = resolved(path) else {
        forget(path);
        return Ok(Look::default());
    };
    let Ok(id) = FileId::of(&path) else {
        return Ok(Look::default());
    };
    pending(|pending| pending.remove(&id));
    let bytes = size(&path);
    if bytes == 0 || path.is_dir() || startup == Startup::Off {
        return Ok(Look::default());
    }
    if let Some(health) = last(id) {
        return Ok(Look { health: Some(health), ..Look::default() });
    }
    let found: Vec<Finding> = deleted_wal(&path).into_iter().collect();
    if matches!(startup, Startup::Auto | Startup::Ahead)
        && found.is_empty()
        && replaced(&path).is_none()
        && noted(&path).is_some_and(|note| note.holds(&path))
    {
        return Ok(Look::default());
    }
    let wal_bytes = size(&Wal::path(&path));
    let mut after = Pending { path: path.clone(), health: None, suspect: false };
    let kind = match startup {
        Startup::AtOnce(kind) => Some(kind),
        Startup::Ahead => Some(Kind::Quick),
        Startup::Off | Startup::Background => None,
        Startup::Auto if bytes + wal_bytes <= SMALL => Some(Kind::Quick),
        Startup::Auto => {
            after.suspect = wal_bytes > 0 && was_left(&path);
            (after.suspect && bytes + wal_bytes <= LARGE).then_some(Kind::Quick)
        }
    };
    let mut look = Look { health: None, found, background: kind.is_none() };
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
            // Without this error the open could allow writes to a file that was never checked.
            Err(error) if error.class() == Class::Io => return Err(advise(error, &path)),
            Err(error) => {
                task.go_on()?;
                // Other errors, such as a missing permission, are reported by the open.
                drop(error);
                look.background = true;
            }
        }
    }
    pending(|pending| pending.insert(id, after));
    Ok(look)
}

/// The file is open: applies the result of [`before_open`]. A sound file loses the flag that it got
/// for the WAL of an ended process; a damaged file gets the flag.
pub fn opened(file: &Arc<DatabaseFile>) {
    let found = pending(|pending| pending.remove(&file.id));
    let Some(Pending { health, suspect, .. }) = found.filter(|found| found.path == file.path)
    else {
        return;
    };
    match health {
        Some(mut health) => {
            // Opening the file has rolled the hot journal back.
            health.findings.retain(|finding| !matches!(finding, Finding::HotJournal { .. }));
            if super::is_unsafe_to_write(&health) {
                file.suspect();
            } else {
                file.take_suspicion();
            }
            remember(file, health);
        }
        None if suspect => file.suspect(),
        None => {}
    }
}

/// Whether an ended process left the WAL of the file, so that SQLite has to recover it.
fn was_left(path: &Path) -> bool {
    let opened = Reader::open(path, Duration::ZERO)
        .and_then(|one| Ok(one.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()))?));
    // The check reports damage.
    drop(opened);
    took_over_wal(path)
}
