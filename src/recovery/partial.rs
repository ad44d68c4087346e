//! Files under work: a folder of an operation's own beside its target, `.<name>.partial-<pid>-<n>`.
//!
//! What is made there is renamed into place once it is whole, and the folder goes with the
//! operation. The folder is held ([`try_own`]) while its operation runs, so that one which its
//! process did not live to remove is told from one that is in use, and removed by the next
//! operation on the same target ([`Partial::new`]).
//!
//! The folder, and not the file, is held: SQLite locks the file itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use crate::engine::{Error, Likeness, Owned, Result, beside, remove_left_lock, try_own};

/// A folder to work in. Removed, with what is in it, when this is dropped.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Held while the folder is.
    _held: Owned,
}

/// The folder that `path` lies in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The system's `error` about `path`, as SQLite's `errcode`.
pub(super) fn system(errcode: i32, path: &Path, error: &io::Error) -> Error {
    Error::system(errcode, path, error)
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
fn make(path: &Path, like: Likeness) -> io::Result<Owned> {
    like.create_folder(path)?;
    hold(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// What the name of a folder's lock file ends with. It lies beside the folder, so that the folder can
/// be removed while it is held.
const LOCK: &str = ".lock";

/// Holds the folder at `path`; none if another operation does.
fn hold(path: &Path) -> io::Result<Option<Owned>> {
    let Some(owned) = try_own(path, &beside(path, LOCK))? else { return Ok(None) };
    // Its holder may have removed it between the open and the hold.
    fs::metadata(path)?;
    Ok(Some(owned))
}

/// Removes the folders of operations on `target` that are over.
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
        // What is no folder is not this module's, and a FIFO must not be opened.
        if !entry.file_type().is_ok_and(|it| it.is_dir()) {
            if cfg!(windows) && name.ends_with(LOCK) {
                remove_left_lock(&path);
            }
            continue;
        }
        // The hold is kept until the folder is gone.
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
        assert!(!left.exists());
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
