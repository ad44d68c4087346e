//! Files that are kept when a database or its WAL is replaced: their names, one copy of the same
//! bytes, and which of them may go. Any thread; the caller holds what keeps the database as it is.
//!
//! | name after the database's | what it holds |
//! |---|---|
//! | `.damaged-<UTC>`, and `-wal` after that | the original of a repair |
//! | `.damaged-<UTC>-recovered`, and `-wal` | the same, where the repaired database has all that could be read of it, and nothing is known to be lost |
//! | `.before-restore-<UTC>` | the database before a restore |
//! | `-wal.stale-<UTC>` | a WAL that was not the database's own |
//!
//! Only copies with `-recovered` are ever removed ([`prune`]): each of the others may be the only
//! one with something that the database does not have. A copy whose process ended before the
//! repair did keeps its first name.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Error, Result, Storage, Wal, beside, stamp, sync_folder_of};

/// What replaced the database or its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptKind {
    /// A repair, and a restore over a database that SQLite cannot read.
    Damaged,
    /// A restore.
    BeforeRestore,
    /// A WAL was put aside.
    StaleWal,
}

/// How many copies of originals are kept where nothing else is said.
pub const KEEP: usize = 3;

const RECOVERED: &str = "-recovered";

impl KeptKind {
    const ALL: [Self; 3] = [Self::Damaged, Self::BeforeRestore, Self::StaleWal];

    const fn infix(self) -> &'static str {
        match self {
            Self::Damaged => ".damaged-",
            Self::BeforeRestore => ".before-restore-",
            Self::StaleWal => "-wal.stale-",
        }
    }

    /// The kind of the file whose name is the database's and then `suffix`.
    pub fn of(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| suffix.starts_with(kind.infix()))
    }
}

/// Whether the name is that of a copy which the repaired database has all of: see the module.
pub fn is_recovered(name: &str) -> bool {
    name.strip_suffix("-wal").unwrap_or(name).ends_with(RECOVERED)
}

/// A name for a file of this `kind`, and for its `-wal`, that no file has: with the time in it,
/// and a number where the time is taken.
///
/// # Errors
/// SQLite's, whose clock it is.
pub fn free_name(database: &Path, kind: KeptKind) -> Result<PathBuf> {
    let stamp = stamp()?;
    let mut number = 1_u32;
    loop {
        let again = if number == 1 { String::new() } else { format!("-{number}") };
        let name = beside(database, &format!("{}{stamp}{again}", kind.infix()));
        let forms = [name.clone(), recovered_name(&name)];
        let is_taken = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok() || fs::symlink_metadata(wal_of(path)).is_ok()
        };
        if !forms.iter().any(is_taken) {
            return Ok(name);
        }
        number += 1;
    }
}

fn recovered_name(copy: &Path) -> PathBuf {
    beside(copy, RECOVERED)
}

fn wal_of(copy: &Path) -> PathBuf {
    beside(copy, "-wal")
}

/// The copies of this `kind` (not their WALs), the newest first. A folder that cannot be read has
/// none.
pub fn list(database: &Path, kind: KeptKind) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else {
        return Vec::new();
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut start = name.to_owned();
    start.push(kind.infix());
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.starts_with(start.as_encoded_bytes())
                && (kind == KeptKind::StaleWal || !name.ends_with(b"-wal"))
                && entry.file_type().is_ok_and(|it| it.is_file())
        })
        .map(|entry| entry.path())
        .collect();
    // The time is in the name, and its digits sort as it does.
    found.sort_unstable();
    found.reverse();
    found
}

/// The newest copy of this `kind` with the bytes of `from` and, after its header, of `wal`.
pub fn find(
    database: &Path,
    kind: KeptKind,
    from: &dyn Storage,
    wal: Option<&dyn Storage>,
) -> Option<PathBuf> {
    list(database, kind).into_iter().find(|copy| {
        let is_wal_kept = match wal {
            Some(wal) => is_same(wal, &wal_of(copy)),
            None => Ok(fs::symlink_metadata(wal_of(copy)).is_err()),
        };
        is_same(from, copy).unwrap_or(false) && is_wal_kept.unwrap_or(false)
    })
}

/// Whether the file at `path` has the bytes of `storage`.
fn is_same(storage: &dyn Storage, path: &Path) -> io::Result<bool> {
    const CHUNK: usize = 1 << 20;
    let of_storage = |error: super::Error| io::Error::other(error.message);
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut file = fs::File::open(path)?;
    let total = storage.size().map_err(of_storage)?;
    if file.metadata()?.len() != total {
        return Ok(false);
    }
    let (mut mine, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < total {
        let count = storage.read_at(&mut mine, at).map_err(of_storage)?;
        let (Some(mine), Some(theirs)) = (mine.get(..count), theirs.get_mut(..count)) else {
            return Ok(false);
        };
        if count == 0 {
            return Ok(false);
        }
        file.read_exact(theirs)?;
        if mine != theirs {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

/// Renames the WAL of `database`, which no connection may find any more. Returns its new name.
///
/// # Errors
/// The system's, as `SQLITE_IOERR`.
pub fn put_wal_aside(database: &Path) -> Result<PathBuf> {
    let aside = free_name(database, KeptKind::StaleWal)?;
    fs::rename(Wal::path(database), &aside).map_err(|error| {
        let message = format!("the -wal could not be renamed to {}: {error}", aside.display());
        Error::sqlite(rusqlite::ffi::SQLITE_IOERR, message).at(database)
    })?;
    // The new name survives loss of power, or the old one does: either is a whole WAL.
    drop(sync_folder_of(&aside));
    Ok(aside)
}

/// Records that the database has all of `copy`, and returns the copy's new name; its old one where
/// it cannot be renamed.
pub fn mark_recovered(copy: &Path) -> PathBuf {
    if is_recovered(&copy.to_string_lossy()) {
        return copy.to_path_buf();
    }
    let name = recovered_name(copy);
    let (wal, wal_name) = (wal_of(copy), wal_of(&name));
    // The WAL first, as when the pair was made: a copy that has its name has its WAL.
    if fs::symlink_metadata(&wal).is_ok() && fs::rename(&wal, &wal_name).is_err() {
        return copy.to_path_buf();
    }
    if fs::rename(copy, &name).is_err() {
        drop(fs::rename(&wal_name, &wal));
        return copy.to_path_buf();
    }
    name
}

/// Removes the copies of repairs that the database has all of, but for those among the newest
/// `keep` of all copies of repairs. A copy that cannot be removed stays.
pub fn prune(database: &Path, keep: usize) {
    for copy in list(database, KeptKind::Damaged).into_iter().skip(keep) {
        if is_recovered(&copy.to_string_lossy()) && fs::remove_file(&copy).is_ok() {
            drop(fs::remove_file(wal_of(&copy)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_the_database_has_all_of_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        let others = [
            "x.db",
            "x.db.before-restore-20200101T000000Z",
            "x.db.damaged-20200101T000000Z",
            "x.db.damaged-20200101T000000Z-wal",
            "x.db.damaged-20200105T000000Z",
            "x.db-wal.stale-20200101T000000Z",
            "y.db.damaged-20200101T000000Z-recovered",
        ];
        for name in others {
            fs::write(folder.path().join(name), name).unwrap();
        }
        for day in 2..=4 {
            let name = format!("x.db.damaged-2020010{day}T000000Z");
            fs::write(folder.path().join(&name), "copy").unwrap();
            fs::write(folder.path().join(format!("{name}-wal")), "frames").unwrap();
            let copy = mark_recovered(&folder.path().join(&name));
            assert!(
                is_recovered(&copy.to_string_lossy()) && copy.exists() && wal_of(&copy).exists()
            );
            assert_eq!(mark_recovered(&copy), copy);
        }
        prune(&database, 3);
        assert_eq!(list(&database, KeptKind::Damaged).len(), 4, "{:?}", names(folder.path()));
        prune(&database, 0);
        let mut left = others.map(str::to_owned);
        left.sort();
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn a_name_is_free_for_the_copy_and_its_wal() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        let mut made = std::collections::HashSet::new();
        for round in 0..4 {
            let name = free_name(&database, KeptKind::Damaged).unwrap();
            assert!(made.insert(name.clone()), "{}", name.display());
            // Each form of the name takes it.
            let taken = match round {
                0 => name,
                1 => wal_of(&name),
                2 => recovered_name(&name),
                _ => wal_of(&recovered_name(&name)),
            };
            fs::write(taken, "").unwrap();
        }
    }
}
