//! Putting aside another file's WAL: the WAL is renamed.
//!
//! The WAL is neither applied nor deleted, because it may have the only copy of commits. It is
//! renamed only while no other connection has the file, its WAL or its WAL-index open, and only if
//! the file is damaged with the WAL and sound without it. Both are checked again under SQLite's
//! exclusive lock. Unless a person asked for it, there must also be a proof that the WAL is another
//! file's ([`foreign_wal`]).
//!
//! Called on any thread, which it blocks for two quick checks.

use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::file_check::{Alone, is_broken, look, resolved, size, without_wal};
use super::finding::Kind;
use super::foreign_wal;
use super::holders::holders;
use crate::engine::{self, Error, KeptKind, Result, Unwatched, Wal, or_failed};

/// Renames the WAL of the database at `path` to `<database>-wal.stale-<UTC time>`, and returns
/// that path. `asked`: a person asked for it, so no proof that the WAL is another file's is needed.
///
/// # Errors
/// `SQLITE_BUSY`: a connection, in this process or another, has the file open;
/// `ERR_INVALID_STATE`: the WAL does not cause the damage, or is not proven to be another file's;
/// errors of the system, including failed reads, as `SQLITE_IOERR` or `SQLITE_CANTOPEN`. After any
/// error the files are unchanged.
pub fn put_wal_aside(path: &Path, asked: bool) -> Result<PathBuf> {
    or_failed(path, || put_aside(path, asked))
}

fn put_aside(path: &Path, asked: bool) -> Result<PathBuf> {
    let cannot_open = |error: std::io::Error| Error::system(ffi::SQLITE_CANTOPEN, path, &error);
    let path = &resolved(path).map_err(cannot_open)?;
    let wal = Wal::path(path);
    let in_use = || {
        Error::sqlite(
            ffi::SQLITE_BUSY,
            "the -wal next to the database is not its own, but it can be put aside only while no \
             other connection, in this process or another, has the database open. Close it \
             everywhere",
        )
        .at(path)
    };
    let Some(alone) = Alone::with(path)? else { return Err(in_use()) };
    if is_used_by_others(path) {
        return Err(in_use());
    }
    let with = look(&alone.connection, Kind::Quick, &Unwatched)?;
    let stale = size(&wal) > 0 && is_broken(&with) && {
        let without = without_wal(path, &Unwatched)?;
        !is_broken(&without) && !without.is_locked()
    };
    if !stale {
        return Err(Error::fusion(
            "ERR_INVALID_STATE",
            "the -wal is the database's own, or does not cause its damage; it was left where it is",
        )
        .at(path));
    }
    if !asked && foreign_wal::proof(&alone.connection, &Unwatched)?.is_none() {
        return Err(Error::fusion(
            "ERR_INVALID_STATE",
            "nothing proves that the -wal is another database's; it was left where it is",
        )
        .at(path));
    }
    // Renamed under the exclusive lock of `alone`: connections opened later find no WAL.
    let aside = engine::put_wal_aside(path, &wal, KeptKind::StaleWal)?;
    drop(alone);
    Ok(aside)
}

/// Whether another process has one of the files open. A process that still has the replaced file
/// open writes to the same WAL, but its locks are not on the file that is at the path now. If the
/// system does not report open files, SQLite's lock alone counts.
fn is_used_by_others(path: &Path) -> bool {
    let holders = holders(path).processes.unwrap_or_default();
    holders.iter().any(|holder| !holder.this_process)
}
