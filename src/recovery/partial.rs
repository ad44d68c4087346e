//! Files under work: a folder of an operation's own beside its target, `.<name>.partial-<pid>-<n>`.
//!
//! What is made there is renamed into place once it is whole, and the folder goes with the
//! operation. The folder is held ([`try_own`]) while its operation runs, so that one which its
//! process did not live to remove is told from one that is in use, and removed by the next
//! operation on the same target ([`Partial::new`]).
//!
//! The folder, and not the file, is held: SQLite locks the file itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use crate::engine::{Class, Error, Likeness, Result, explain, try_own};

/// A folder to work in. Removed, with what is in it, when this is dropped.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Held while the folder is.
    _held: Option<File>,
}

/// The folder that `path` lies in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The system's `error` about `path`, as SQLite's `errcode`.
pub(super) fn system(errcode: i32, path: &Path, error: &io::Error) -> Error {
    Error::system(errcode, path, error)
}

/// An operation's error with its database's path, unless it has one, and, where it is the disk's or the
/// system's, with its cause.
pub(super) fn named(error: Error, database: &Path) -> Error {
    let error = error.at(database);
    let is_explained = matches!(error.class(), Class::Io | Class::Disk);
    if is_explained { explain(error, database) } else { error }
}

impl Partial {
    /// A new folder next to `target`, with the owner of `database`. Folders of the same target whose
    /// operation did not live to remove them are removed.
    ///
    /// # Errors
    /// `SQLITE_CANTOPEN`, with the system's reason.
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
                // The number was another process's, of another container; or a sweep came between.
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

    /// A file called `name` in the folder, which need not be there.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing depends on it: the next operation tries again.
        drop(fs::remove_dir_all(&self.path));
    }
}

fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.partial-")
}

/// Makes the folder at `path`, and holds it.
fn make(path: &Path, like: Likeness) -> io::Result<Option<File>> {
    like.create_folder(path)?;
    hold(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Holds the folder at `path`; none if another operation does. Windows does not open folders.
fn hold(path: &Path) -> io::Result<Option<Option<File>>> {
    if cfg!(windows) {
        return Ok(Some(None));
    }
    let folder = File::open(path)?;
    if !try_own(&folder)? {
        return Ok(None);
    }
    // Its holder may have removed it between the open and the hold.
    fs::metadata(path)?;
    Ok(Some(Some(folder)))
}

/// Removes the folders of operations on `target` that are over.
fn sweep(target: &Path) {
    let prefix = prefix(target);
    let Ok(entries) = fs::read_dir(directory(target)) else {
        return;
    };
    for entry in entries.flatten() {
        // What is no folder is not this module's, and a FIFO must not be opened.
        let is_folder = entry.file_type().is_ok_and(|it| it.is_dir());
        if !is_folder || !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let path = entry.path();
        // The hold is kept until the folder is gone. On Windows a file that is open stays, and
        // its folder with it.
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
        let used = Partial::new(&target, &target).unwrap();
        fs::write(used.file("copy"), "half").unwrap();
        let left = directory.path().join(".x.backup.partial-1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("copy"), "half").unwrap();
        let other = directory.path().join(".y.backup.partial-1-0");
        fs::create_dir(&other).unwrap();

        let second = Partial::new(&target, &target).unwrap();
        assert!(used.file("copy").exists() && other.exists());
        assert!(!left.exists() || cfg!(windows));
        drop((used, second));
        assert_eq!(folders(&target), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let error =
            Partial::new(&directory.path().join("no/x.backup"), directory.path()).unwrap_err();
        assert_eq!(error.errcode, ffi::SQLITE_CANTOPEN);
    }
}
