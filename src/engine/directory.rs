//! The directory of a database file that is to be made.
//!
//! It is made where this process has never opened a file of that path: a directory that was there
//! and is gone was deleted, and a file that was in it must not come back empty. Any thread.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Error, Result, shown};

/// Hashes of the paths by which files were opened.
static OPENED: Mutex<Option<HashSet<u64>>> = Mutex::new(None);

fn opened<R>(path: &Path, body: impl FnOnce(&mut HashSet<u64>, u64) -> R) -> R {
    let mut hasher = DefaultHasher::new();
    absolute(path).hash(&mut hasher);
    let mut opened = OPENED.lock();
    body(opened.get_or_insert_with(HashSet::new), hasher.finish())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Notes that the file at `path` was opened.
pub(super) fn remember(path: &Path) {
    opened(path, |opened, hash| opened.insert(hash));
}

/// Whether this process has opened a file at `path` before, on a hardened connection.
pub fn was_opened(path: &Path) -> bool {
    opened(path, |opened, hash| opened.contains(&hash))
}

/// The directory that has to be made for a file at `path`, and the nearest one above it that
/// exists.
pub(super) fn missing(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let directory = absolute(path).parent()?.to_path_buf();
    if directory.exists() || was_opened(path) {
        return None;
    }
    let above = directory.ancestors().find(|above| above.is_dir())?.to_path_buf();
    Some((directory, above))
}

/// Makes `directory`, for a database file at `path`.
///
/// # Errors
/// `SQLITE_CANTOPEN`.
pub(super) fn make(directory: &Path, path: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| {
        // The first that is missing: what refuses it is the directory that it would be in.
        let missing = directory.ancestors().take_while(|it| !it.exists()).last();
        let missing = missing.unwrap_or(directory);
        let mut refused = Error::system(ffi::SQLITE_CANTOPEN, missing, &error);
        let what = format!("the directory {} could not be made", directory.display());
        refused.message = shown(&format!("{what}: {}", refused.message)).into_owned();
        refused.path = Some(path.to_path_buf());
        refused
    })
}
