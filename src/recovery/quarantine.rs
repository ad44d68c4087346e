//! Keeps a damaged original: copies file and WAL byte for byte, under the names of
//! [`crate::engine::KeptCopy`]. If an identical copy exists, no second one is made.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rusqlite::ffi;

use super::report::Preserved;
use super::work_dir::WorkDir;
use crate::engine::{
    CommitLock, DatabaseWithWal, Error, KeptCopy, KeptKind, Likeness, PageSnapshot, PageSource,
    Progress, Result, Stage, find_same, is_in, sync, sync_folder_of,
};
use crate::format::wal::HEADER;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// Copies the held database to `<database>.damaged-<UTC>` and its WAL, if there is one, to
/// `<database>.damaged-<UTC>-wal`. Syncs both files and their directory. No existing file is
/// overwritten. A copy gets its name only once it is complete.
///
/// # Errors
/// `SQLITE_FULL` and other errors of the disk, failed reads included; `task`'s. No file is left
/// behind then.
pub(super) fn preserve(
    hold: &CommitLock<'_>,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<KeptOriginal> {
    let live = hold.file();
    let wal = live.wal().map(|wal| -> &dyn PageSource { wal });
    preserve_from(live.path(), live.database(), wal, partial, task)
}

/// [`preserve`] for the held file at `path`, read through `from` and `wal`.
///
/// # Errors
/// As [`preserve`].
pub(super) fn preserve_from(
    path: &Path,
    from: &dyn PageSource,
    wal: Option<&dyn PageSource>,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<KeptOriginal> {
    if let Some(copy) = find_same(path, KeptKind::Damaged, from, wal, task)? {
        return Ok(KeptOriginal { copy, is_new: false });
    }
    let like = Likeness::of(path);
    let database = partial.file("original");
    copy(from, &database, like, "keeping the original", task)?;
    // A WAL that is not longer than its header has no frames.
    let wal = match wal {
        Some(wal) if wal.size()? > HEADER as u64 => {
            let copied = partial.file("original-wal");
            copy(wal, &copied, like, "keeping its WAL", task)?;
            Some(copied)
        }
        _ => None,
    };
    let copy = KeptCopy::name(path, KeptKind::Damaged, &database, wal.as_deref())
        .map_err(|error| disk_error(&error, "a file is not renamed").at(path))?;
    let original = KeptOriginal { copy, is_new: true };
    sync_folder_of(path)?;
    Ok(original)
}

/// A copy of the content that is replaced. On drop, a copy that this operation made is removed,
/// unless [`Self::stays`] was called.
#[derive(Debug)]
pub(super) struct KeptOriginal {
    copy: KeptCopy,
    is_new: bool,
}

impl KeptOriginal {
    /// `copy`, made by this operation (`is_new`) or an earlier one.
    pub(super) fn new(copy: KeptCopy, is_new: bool) -> Self {
        Self { copy, is_new }
    }

    /// The paths of the copy.
    pub(super) fn files(&self) -> Preserved {
        Preserved { database: self.copy.path.clone(), wal: self.copy.wal.clone() }
    }

    /// Keeps the copy: the database was or may have been written to.
    pub(super) fn stays(&mut self) {
        self.is_new = false;
    }

    /// Marks the copy as redundant: the database holds all of its content.
    pub(super) fn is_spare(&mut self) {
        self.copy.mark(true);
    }

    /// Marks the copy as redundant if the database at `path` holds all of its content.
    ///
    /// # Errors
    /// SQLite's; `task`'s.
    pub(super) fn is_spare_if_same(&mut self, path: &Path, task: &dyn Progress) -> Result<()> {
        let view = PageSnapshot::open(path, Instant::now(), task)?;
        let now = DatabaseWithWal::new(view.database(), view.wal(), task)?;
        if view.is_consistent() && is_in(&self.copy, &now, task)? {
            self.is_spare();
        }
        Ok(())
    }
}

impl Drop for KeptOriginal {
    fn drop(&mut self) {
        if self.is_new {
            self.copy.remove();
        }
    }
}

fn copy(
    from: &dyn PageSource,
    to: &Path,
    like: Likeness,
    name: &'static str,
    task: &dyn Progress,
) -> Result<()> {
    let at = |error: std::io::Error| {
        let lead = "the damaged original could not be copied into the database's folder, so that \
                    nothing was changed";
        disk_error(&error, lead).at(to)
    };
    let mut file = like.create(to).map_err(at)?;
    let total = from.size()?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < total {
        task.check_cancelled()?;
        task.stage(Stage { name, done, total });
        let count = from.read_at(&mut buffer, done)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        file.write_all(bytes).map_err(at)?;
        done += count as u64;
    }
    sync(&file).map_err(at)?;
    task.stage(Stage { name, done, total });
    Ok(())
}

/// An operating system's error, with the code that SQLite would report.
pub(super) fn disk_error(error: &std::io::Error, lead: &str) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => ffi::SQLITE_FULL,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound => ffi::SQLITE_CANTOPEN,
        std::io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => ffi::SQLITE_IOERR_WRITE,
    };
    let errno = error.raw_os_error().unwrap_or(0);
    Error { errno, ..Error::sqlite(code, format!("{lead}: {error}")) }
}
