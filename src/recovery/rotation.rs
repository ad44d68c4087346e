//! Names and rotates the generations of a backup: `<path>` is the newest, `<path>.1` the one before
//! it, `<path>.2` the one before that.
//!
//! After a power loss at any moment every older generation still has one of these names. The order
//! of the renames guarantees that:
//!
//! 1. From the oldest on, each generation up to the first free name moves up by one.
//! 2. The new generation is renamed to `<path>`, and the folder is synced.
//! 3. Only then the generations beyond the number to keep are removed.
//!
//! A power loss in step 1 leaves a gap. [`generations`] skips it, and the next rotation closes it.
//! A lock on the folder keeps two processes from rotating in it at the same time.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi;

use super::work_dir::{directory, system};
use crate::engine::{
    Error, Owned, Progress, Result, not_a_file, rename, sidecar_path, sync_folder_of,
    try_lock_exclusive,
};

/// The lock of a folder's rotations, where the folder itself cannot be locked.
const LOCK: &str = ".fusion-sqlite-rotation.lock";

/// The pause between two attempts to lock the folder.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the backups of `database` are kept unless the caller says otherwise.
pub fn default_path(database: &Path) -> PathBuf {
    sidecar_path(database, ".backup")
}

/// The backups of `database` that are kept at [`default_path`], newest first.
pub fn newest_backups(database: &Path) -> Vec<PathBuf> {
    generations(&default_path(database))
}

/// The existing generations of the backup at `path`, newest first.
pub fn generations(path: &Path) -> Vec<PathBuf> {
    numbered(path).into_iter().map(|(_, path)| path).collect()
}

fn numbered(path: &Path) -> Vec<(u32, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(directory(path)) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let number = number(name, &entry.file_name())?;
            entry.path().is_file().then(|| (number, named(path, number)))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The generation number of the file `found`, if it is a generation of the backup `name`.
fn number(name: &OsStr, found: &OsStr) -> Option<u32> {
    let (name, found) = (name.as_encoded_bytes(), found.as_encoded_bytes());
    match found.strip_prefix(name)? {
        [] => Some(0),
        [b'.', digits @ ..] => {
            let digits = std::str::from_utf8(digits).ok()?;
            // `+1` and `01` parse as numbers too, but a rotation never writes such names.
            let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
            (number.to_string() == digits).then_some(number)
        }
        _ => None,
    }
}

fn named(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_path_buf() } else { sidecar_path(path, &format!(".{number}")) }
}

/// Checks that the generations of `path` can be renamed. A generation with a WAL or a journal
/// cannot: the file would stay behind, and SQLite would apply it to another generation.
///
/// # Errors
/// `ERR_FUSION_BACKUP_IN_USE`; `ERR_FUSION_NOT_A_FILE`.
pub(super) fn check_movable(path: &Path) -> Result<()> {
    let existing = numbered(path);
    // The rotation renames a generation to the first free name, so no other file may be there.
    let crowded = (0..).zip(&existing).take_while(|(at, (number, _))| at == number).count();
    let free = named(path, u32::try_from(crowded).unwrap_or(u32::MAX));
    if let Ok(metadata) = fs::symlink_metadata(&free) {
        return Err(not_a_file(&free, &metadata));
    }
    let mut names = generations(path);
    if !names.iter().any(|name| name == path) {
        names.push(path.to_path_buf());
    }
    for name in names {
        for suffix in ["-wal", "-journal", "-shm"] {
            let other = sidecar_path(&name, suffix);
            if other.exists() {
                return Err(Error::fusion(
                    "ERR_FUSION_BACKUP_IN_USE",
                    format!(
                        "{} has a sidecar file {}: it is open as a database, or was not closed. A \
                         rename would separate the two. Close it, or move both away; nothing was \
                         changed",
                        name.display(),
                        other.file_name().unwrap_or_default().to_string_lossy(),
                    ),
                )
                .at(path));
            }
        }
    }
    Ok(())
}

/// Makes `new` the newest generation of `path`, and keeps `keep` generations. `new` is complete,
/// verified, synced, and on the same file system. Returns the older generations that are kept.
///
/// # Errors
/// `ERR_FUSION_BACKUP_IN_USE`; the operating system's, as `SQLITE_IOERR`; `task`'s, before the
/// first rename.
pub(super) fn rotate(
    new: &Path,
    path: &Path,
    keep: u32,
    task: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let _held = hold(path, task)?;
    check_movable(path)?;
    let existing = numbered(path);
    // The generations without a gap before them.
    let crowded = (0..).zip(&existing).take_while(|(at, (number, _))| at == number);
    let crowded: Vec<_> = crowded.map(|(_, generation)| generation).collect();
    for (number, old) in crowded.into_iter().rev() {
        give_name(old, &named(path, number.saturating_add(1)))?;
    }
    give_name(new, path)?;
    sync_folder_of(path)?;
    let mut kept = Vec::new();
    for (number, old) in numbered(path).into_iter().filter(|(number, _)| *number > 0) {
        if number < keep.max(1) {
            kept.push(old);
        } else if let Err(error) = fs::remove_file(&old) {
            // The file stays, and the next rotation tries again.
            if error.kind() != io::ErrorKind::NotFound {
                kept.push(old);
            }
        }
    }
    Ok(kept)
}

fn give_name(from: &Path, to: &Path) -> Result<()> {
    rename(from, to).map_err(|error| system(ffi::SQLITE_IOERR, to, &error))
}

/// Locks the folder of `path` against other rotations, which take milliseconds.
fn hold(path: &Path, task: &dyn Progress) -> Result<Owned> {
    let folder = directory(path);
    let failed = |error| system(ffi::SQLITE_CANTOPEN, folder, &error);
    loop {
        if let Some(owned) = try_lock_exclusive(folder, &folder.join(LOCK)).map_err(failed)? {
            return Ok(owned);
        }
        task.check_cancelled()?;
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NoProgress;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("x.backup")
        }

        fn add(&self, content: &str, keep: u32) -> Vec<PathBuf> {
            let new = self.0.path().join("new");
            fs::write(&new, content).unwrap();
            rotate(&new, &self.path(), keep, &NoProgress).unwrap()
        }

        fn contents(&self) -> Vec<(String, String)> {
            generations(&self.path())
                .into_iter()
                .map(|path| {
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    (name, fs::read_to_string(path).unwrap())
                })
                .collect()
        }
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_newest_has_the_plain_name_and_the_oldest_goes() {
        let folder = Folder::new();
        for content in ["a", "b", "c", "d"] {
            folder.add(content, 3);
        }
        assert_eq!(
            folder.contents(),
            owned(&[("x.backup", "d"), ("x.backup.1", "c"), ("x.backup.2", "b")])
        );
        assert_eq!(folder.add("e", 2), [sidecar_path(&folder.path(), ".1")]);
        assert_eq!(folder.contents(), owned(&[("x.backup", "e"), ("x.backup.1", "d")]));
    }

    #[test]
    fn wherever_it_was_cut_off_the_next_rotation_loses_nothing_that_is_to_be_kept() {
        // The generations after each rename of a rotation of three.
        for (left, expected) in [
            (&["", ".1", ".3"][..], &["new", "0", "1"][..]),
            (&["", ".2", ".3"][..], &["new", "0", "2"][..]),
            (&[".1", ".2", ".3"][..], &["new", "1", "2"][..]),
        ] {
            let folder = Folder::new();
            for suffix in left {
                fs::write(sidecar_path(&folder.path(), suffix), suffix.trim_start_matches('.'))
                    .unwrap();
            }
            fs::write(sidecar_path(&folder.path(), ".before"), "another program's").unwrap();
            folder.add("new", 3);
            let found: Vec<_> = folder.contents().into_iter().map(|(_, content)| content).collect();
            let expected: Vec<_> =
                expected.iter().map(|it| if *it == "0" { "" } else { *it }).collect();
            assert_eq!(found, expected, "{left:?}");
            assert!(sidecar_path(&folder.path(), ".before").exists());
        }
    }

    #[test]
    fn only_numbers_as_this_package_writes_them_are_generations() {
        let name = OsStr::new("x.backup");
        for (found, expected) in [
            ("x.backup", Some(0)),
            ("x.backup.1", Some(1)),
            ("x.backup.17", Some(17)),
            ("x.backup.0", None),
            ("x.backup.01", None),
            ("x.backup.+1", None),
            ("x.backup-wal", None),
            ("x.backup.99999999999", None),
            ("y.backup", None),
        ] {
            assert_eq!(number(name, OsStr::new(found)), expected, "{found}");
        }
    }

    #[test]
    fn a_rotation_waits_for_the_one_that_is_under_way_and_can_be_cancelled() {
        use parking_lot::Mutex;

        /// Ends the first rotation, or the second one's wait for it.
        struct Other(Mutex<Option<Owned>>, bool);
        impl Progress for Other {
            fn stage(&self, _: crate::engine::Stage) {}
            fn check_cancelled(&self) -> Result<()> {
                let ended = self.0.lock().take();
                if self.1 || ended.is_none() {
                    return Err(Error::fusion("ABORT_ERR", "it is cancelled"));
                }
                Ok(())
            }
        }
        let folder = Folder::new();
        folder.add("a", 2);
        let new = folder.0.path().join("new");
        fs::write(&new, "b").unwrap();
        let first = || Mutex::new(Some(hold(&folder.path(), &NoProgress).unwrap()));
        let cancelled = rotate(&new, &folder.path(), 2, &Other(first(), true)).unwrap_err();
        assert_eq!(cancelled.code, "ABORT_ERR");
        assert_eq!(folder.contents(), owned(&[("x.backup", "a")]));
        rotate(&new, &folder.path(), 2, &Other(first(), false)).unwrap();
        assert_eq!(folder.contents(), owned(&[("x.backup", "b"), ("x.backup.1", "a")]));
        assert!(!folder.0.path().join(LOCK).exists());
    }

    #[test]
    fn a_generation_with_a_wal_is_not_parted_from_it() {
        let folder = Folder::new();
        folder.add("a", 2);
        fs::write(sidecar_path(&folder.path(), "-wal"), "frames").unwrap();
        let new = folder.0.path().join("new");
        fs::write(&new, "b").unwrap();
        let error = rotate(&new, &folder.path(), 2, &NoProgress).unwrap_err();
        assert_eq!(error.code, "ERR_FUSION_BACKUP_IN_USE");
        assert_eq!(folder.contents(), owned(&[("x.backup", "a")]));
    }
}
