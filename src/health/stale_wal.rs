//! Putting aside a WAL that is not the file's own.
//!
//! It is neither applied nor deleted: whoever knows which file it belongs to may want it. Done
//! only while nobody else has the file open, and only to a WAL that is found stale once more
//! under the lock that proves it.
//!
//! Called on any thread, which it blocks for two quick checks.

use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::file_check::{Alone, is_broken, look, resolved, size, without_wal};
use super::finding::Kind;
use crate::engine::{Error, Result, Unwatched, Wal, advise, beside, stamp};

/// Renames the WAL of the database at `path` to `<database>-wal.stale-<UTC time>`, and answers
/// that path.
///
/// # Errors
/// `SQLITE_BUSY`: somebody, in this process or another, has the file open; `ERR_INVALID_STATE`:
/// the WAL is not stale; the system's, as `SQLITE_IOERR` or `SQLITE_CANTOPEN`. In each case
/// nothing was done.
pub fn put_wal_aside(path: &Path) -> Result<PathBuf> {
    let cannot_open = |error: std::io::Error| {
        advise(Error::sqlite(ffi::SQLITE_CANTOPEN, error.to_string()).at(path), path)
    };
    let path = &resolved(path).map_err(cannot_open)?;
    let wal = Wal::path(path);
    let Some(alone) = Alone::with(path)? else {
        return Err(Error::sqlite(
            ffi::SQLITE_BUSY,
            "the -wal beside the database is not its own, but it can be put aside only while \
             nobody else, in this process or another, has the database open. Close it everywhere",
        )
        .at(path));
    };
    let with = look(&alone.connection, Kind::Quick, &Unwatched)?;
    let stale = size(&wal) > 0 && is_broken(&with) && {
        let without = without_wal(path, &Unwatched)?;
        !is_broken(&without) && !without.is_locked()
    };
    if !stale {
        return Err(Error::fusion(
            "ERR_INVALID_STATE",
            "the -wal is the database's own, or makes no difference to what is wrong with it; it \
             was left where it is",
        )
        .at(path));
    }
    let stamp = stamp()?;
    // Renamed while `alone` keeps everybody out; SQLite finds no WAL at its name from here on.
    let aside = rename(&wal, &stamp).map_err(|error| {
        Error::sqlite(ffi::SQLITE_IOERR, format!("the -wal could not be renamed: {error}")).at(path)
    })?;
    drop(alone);
    Ok(aside)
}

fn rename(wal: &Path, stamp: &str) -> std::io::Result<PathBuf> {
    let name = format!(".stale-{stamp}");
    let mut aside = beside(wal, &name);
    let mut number = 1;
    while std::fs::symlink_metadata(&aside).is_ok() {
        number += 1;
        aside = beside(wal, &format!("{name}-{number}"));
    }
    std::fs::rename(wal, &aside)?;
    #[cfg(unix)]
    if let Some(directory) = aside.parent() {
        // The new name survives loss of power, or the old one does: either is a whole WAL.
        drop(std::fs::File::open(directory).and_then(|directory| directory.sync_all()));
    }
    Ok(aside)
}
