//! The look at a file before it is opened to be written to.
//!
//! | the file | by itself (`auto`) it is checked |
//! |---|---|
//! | has been checked since this process opened it first | not again |
//! | does not exist, or is empty | not |
//! | is unchanged since a check found it sound, as the [`Note`] beside it says | not |
//! | is small ([`SMALL`]) | at once, quick |
//! | has a WAL that an ended process left, and is not large ([`LARGE`]) | at once, quick |
//! | is anything else | in the background, quick, once it is open |
//!
//! Whoever asks for `quick` or `full` gets it at once. A large file whose WAL was left is not
//! written to by the log before it is checked, because it is suspected.
//!
//! Any thread, which is blocked for a check that is carried out at once.

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
    /// At once and quick, however large the file is; not where it is unchanged since a check.
    Ahead,
    /// At once, with `kind`.
    AtOnce(Kind),
    /// Once it is open.
    Background,
    /// Not at all.
    Off,
}

/// What is to be known before a file is opened.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// What a check at once found, or an earlier one. Never locked: that is the open's to tell.
    pub health: Option<Health>,
    /// What can be told only before the file is opened; part of `health` where there is one.
    pub found: Vec<Finding>,
    /// A check in the background is due.
    pub background: bool,
}

/// What is to be done once a file that was looked at is open.
#[derive(Debug)]
struct Pending {
    /// Where the file was. One that was refused may be gone by now, and its inode another file's.
    path: PathBuf,
    health: Option<Health>,
    suspect: bool,
}

static PENDING: Mutex<Option<HashMap<FileId, Pending>>> = Mutex::new(None);

fn pending<R>(body: impl FnOnce(&mut HashMap<FileId, Pending>) -> R) -> R {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    body(pending.get_or_insert_with(HashMap::new))
}

/// There is no file at `path`: whatever is made there is another one than was looked at.
fn forget(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = resolved(directory.unwrap_or(Path::new(".")));
    if let (Ok(directory), Some(name)) = (directory, path.file_name()) {
        let path = directory.join(name);
        pending(|pending| pending.retain(|_, one| one.path != path));
    }
}

/// Looks at the file at `path`, which is about to be opened, and checks it if that is called for.
/// `noted` reads the note that is kept beside a file.
///
/// What else stands in the way of a check stands in the way of the open, too, and is reported by
/// the open: there is no health then.
///
/// # Errors
/// `task`'s; `SQLITE_IOERR` where the disk fails a read.
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
            // The open would meet it, too, or be allowed to write to what nobody has looked at.
            Err(error) if error.class() == Class::Io => return Err(advise(error.at(&path), &path)),
            Err(error) => {
                task.go_on()?;
                // Contention of a kind that has no name, a missing permission: see above.
                drop(error);
                look.background = true;
            }
        }
    }
    pending(|pending| pending.insert(id, after));
    Ok(look)
}

/// The file that was looked at is open. One that was found sound is not doubted for the WAL that
/// its last user left; one that was found damaged is.
pub fn opened(file: &Arc<DatabaseFile>) {
    let found = pending(|pending| pending.remove(&file.id));
    let Some(Pending { health, suspect, .. }) = found.filter(|found| found.path == file.path)
    else {
        return;
    };
    match health {
        Some(mut health) => {
            // Opening the file has rolled it back.
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

/// Whether the WAL of the file is one that an ended process left, rather than one in use: SQLite
/// has to recover it.
fn was_left(path: &Path) -> bool {
    let opened = Reader::open(path, Duration::ZERO)
        .and_then(|one| Ok(one.sql()?.query_row("PRAGMA schema_version", [], |_| Ok(()))?));
    // Damage is the check's to tell.
    drop(opened);
    took_over_wal(path)
}
