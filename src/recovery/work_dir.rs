//! Work folders: each operation makes its files in a folder of its own,
//! `.<name>.partial-<pid>-<n>` in the target's directory.
//!
//! A complete file is renamed into place, and the folder is removed when the operation ends. The
//! operation holds a lock on the folder ([`try_lock_exclusive`]) while it runs. A folder without that lock was
//! left by a process that died; the next operation on the same target removes it
//! ([`WorkDir::new`]).
//!
//! The lock is on the folder and not on the file, because SQLite locks the file itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use crate::engine::{
    Class, Error, Likeness, Owned, Result, explain, remove_left_lock, sidecar_path,
    try_lock_exclusive,
};

/// A folder to work in. Removed, with what is in it, when this is dropped.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    /// The lock on the folder.
    _held: Owned,
}

/// The folder that `path` lies in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The operating system's `error` about `path`, as an error with SQLite's `errcode`.
pub(super) fn system(errcode: i32, path: &Path, error: &io::Error) -> Error {
    Error::system(errcode, path, error)
}

/// The error of an operation, with its database's path unless it has one, and with the cause, at that
/// path, if it is the disk's or the system's.
pub(super) fn named(error: Error, database: &Path) -> Error {
    let error = error.at(database);
    let path = error.path.clone().unwrap_or_else(|| database.to_path_buf());
    let is_explained = matches!(error.class(), Class::Io | Class::Disk);
    if is_explained { explain(error, &path) } else { error }
}

impl WorkDir {
    /// Makes a folder in the directory of `target`, with the owner of `database`. Removes folders
    /// of the same target that a process left when it died.
    ///
    /// # Errors
    /// `SQLITE_CANTOPEN`, with the operating system's reason.
    pub(super) fn new(target: &Path, database: &Path) -> Result<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        sweep(target);
        let like = Likeness::of(database);
        let mut attempts = 0;
        loop {
            let number = LAST.fetch_add(1, Ordering::Relaxed);
            let path = directory(target).join(format!(
                "{}{}-{number}",
                prefix(target),
                std::process::id()
            ));
            attempts += 1;
            match make(&path, like) {
                Ok(held) => return Ok(Self { path, _held: held }),
                // A process in another container has the same process id and has used the number,
                // or another operation's sweep removed the folder before it was locked.
                Err(error)
                    if attempts < 100
                        && matches!(
                            error.kind(),
                            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                        )
                        && directory(target).is_dir() => {}
                Err(error) => return Err(system(ffi::SQLITE_CANTOPEN, &path, &error)),
            }
        }
    }

    /// The path of a file called `name` in the folder. The file need not exist.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // After a failure the next operation on the target removes the folder.
        drop(fs::remove_dir_all(&self.path));
    }
}

fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.partial-")
}

/// Makes the folder at `path`, and locks it.
fn make(path: &Path, like: Likeness) -> io::Result<Owned> {
    like.create_folder(path)?;
    hold(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The ending of the name of a folder's lock file (Windows). The file is next to the folder, so that
/// the folder can be removed while it is locked.
const LOCK: &str = ".lock";

/// Locks the folder at `path`; `None` if another operation has the lock.
fn hold(path: &Path) -> io::Result<Option<Owned>> {
    let Some(owned) = try_lock_exclusive(path, &sidecar_path(path, LOCK))? else { return Ok(None) };
    // The previous owner may have removed the folder between the open and the lock.
    fs::metadata(path)?;
    Ok(Some(owned))
}

/// Removes the folders that operations on `target` have left.
fn sweep(target: &Path) {
    let prefix = prefix(target);
    let Ok(entries) = fs::read_dir(directory(target)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(&prefix) {
            continue;
        }
        let path = entry.path();
        // Only folders are this module's. A FIFO must not be opened.
        if !entry.file_type().is_ok_and(|it| it.is_dir()) {
            if cfg!(windows) && name.ends_with(LOCK) {
                remove_left_lock(&path);
            }
            continue;
        }
        // The lock is kept until the folder is removed.
        if let Ok(Some(_held)) = hold(&path) {
            drop(fs::remove_dir_all(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(target: &Path) -> usize {
        fs::read_dir(directory(target)).unwrap().count()
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_left_goes() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x.backup");
        let used = WorkDir::new(&target, &target).unwrap();
        fs::write(used.file("copy"), "half").unwrap();
        let left = directory.path().join(".x.backup.partial-1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("copy"), "half").unwrap();
        let other = directory.path().join(".y.backup.partial-1-0");
        fs::create_dir(&other).unwrap();

        let second = WorkDir::new(&target, &target).unwrap();
        assert!(used.file("copy").exists() && other.exists());
        assert!(!left.exists());
        drop((used, second));
        assert_eq!(folders(&target), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let error =
            WorkDir::new(&directory.path().join("no/x.backup"), directory.path()).unwrap_err();
        assert_eq!(error.errcode, ffi::SQLITE_CANTOPEN);
    }
}
