//! A database that nobody else knows of, beside the one that is being repaired, and gone when it
//! is no longer needed.
//!
//! Named `<database>.recovering-<process>-<number>`. A process that dies leaves its files behind;
//! whoever holds the database's write lock next removes them: nobody else repairs it then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const INFIX: &str = ".recovering-";

/// What SQLite may put beside a database, and the database itself.
const SUFFIXES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// A name for a database in the making. Removes what has it when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A name beside `database` that nothing has.
    pub fn beside(database: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = with_suffix(database, &format!("{INFIX}{}-{number}", std::process::id()));
            if !path.exists() {
                return Self { path };
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, for the next attempt.
    pub fn clear(&self) {
        remove(&self.path);
    }

    /// Removes what earlier repairs of `database` left. The caller holds its write lock.
    pub fn remove_stale(database: &Path) {
        let (Some(directory), Some(name)) = (database.parent(), database.file_name()) else {
            return;
        };
        let mut prefix = name.to_owned();
        prefix.push(INFIX);
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                // What cannot be removed is in nobody's way.
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

fn remove(path: &Path) {
    for suffix in SUFFIXES {
        drop(std::fs::remove_file(with_suffix(path, suffix)));
    }
}

/// `path` with `suffix` after its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
