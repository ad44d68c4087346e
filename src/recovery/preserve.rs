//! Keeping a damaged original: copies of file and WAL, byte for byte, under dated names.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::partial::Partial;
use super::report::Preserved;
use crate::engine::kept_copies::{self, KeptKind, free_name};
use crate::engine::{
    Error, Hold, Result, Stage, Storage, Task, beside, give_access_of, sync, sync_folder_of,
};
use crate::format::wal::HEADER;

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Copies what is held to `<database>.damaged-<UTC>` and, where there is a WAL, to
/// `<database>.damaged-<UTC>-wal`, and syncs both and their directory. Nothing that exists is
/// overwritten. A copy has its name only once it is complete. Where there is a copy of the same
/// bytes already, of a repair that failed or did not end, that one is returned.
///
/// # Errors
/// `SQLITE_FULL` and others of the disk, a read that fails among them; `task`'s. Nothing is left
/// then.
pub(super) fn preserve(hold: &Hold<'_>, partial: &Partial, task: &dyn Task) -> Result<Kept> {
    let live = hold.file();
    let wal = live.wal().map(|wal| -> &dyn Storage { wal });
    preserve_from(live.path(), live.database(), wal, partial, task)
}

/// The same of the file at `path`, which is held and read as `database` and `wal`.
///
/// # Errors
/// As [`preserve`].
pub(super) fn preserve_from(
    path: &Path,
    from: &dyn Storage,
    wal: Option<&dyn Storage>,
    partial: &Partial,
    task: &dyn Task,
) -> Result<Kept> {
    // A WAL that ends with its header says nothing.
    let wal = match wal {
        Some(wal) if wal.size()? > HEADER as u64 => Some(wal),
        _ => None,
    };
    let files =
        |database: PathBuf| Preserved { wal: wal.map(|_| beside(&database, "-wal")), database };
    if let Some(copy) = kept_copies::find(path, KeptKind::Damaged, from, wal) {
        return Ok(Kept { files: files(copy), keep: true });
    }
    let database = partial.file("original");
    copy(path, from, &database, "keeping the original", task)?;
    let copied = partial.file("original-wal");
    if let Some(wal) = wal {
        copy(path, wal, &copied, "keeping its WAL", task)?;
    }
    let files = files(free_name(path, KeptKind::Damaged)?);
    // The WAL first: a copy that has its name has its WAL, too.
    if let Some(name) = &files.wal {
        rename(&copied, name)?;
    }
    if let Err(error) = rename(&database, &files.database) {
        files.wal.as_ref().map(std::fs::remove_file);
        return Err(error);
    }
    sync_folder_of(path)?;
    Ok(Kept { files, keep: false })
}

/// Copies of the original, which are removed unless they are to be kept.
pub(super) struct Kept {
    pub(super) files: Preserved,
    pub(super) keep: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.keep {
            for file in [Some(&self.files.database), self.files.wal.as_ref()].into_iter().flatten()
            {
                drop(std::fs::remove_file(file));
            }
        }
    }
}

fn copy(
    path: &Path,
    from: &dyn Storage,
    to: &Path,
    name: &'static str,
    task: &dyn Task,
) -> Result<()> {
    let at = |error: std::io::Error| {
        disk_error(&error, "the damaged original could not be copied beside the database, so that nothing was changed").at(to)
    };
    let mut file = File::options().write(true).create_new(true).open(to).map_err(at)?;
    give_access_of(path, &file).map_err(at)?;
    let total = from.size()?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < total {
        task.go_on()?;
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

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| disk_error(&error, "a file is not renamed").at(to))
}

/// The system's error as SQLite would tell it.
pub(super) fn disk_error(error: &std::io::Error, lead: &str) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => ffi::SQLITE_FULL,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound => ffi::SQLITE_CANTOPEN,
        std::io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => ffi::SQLITE_IOERR_WRITE,
    };
    Error::sqlite(code, format!("{lead}: {error}"))
}
