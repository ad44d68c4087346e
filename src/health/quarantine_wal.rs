//! Renames a WAL that belongs to another file, so that SQLite does not read it.
//!
//! The WAL is neither checkpointed nor deleted, because it may hold rows that exist nowhere else.
//! It is renamed only if no other connection has the file, its `-wal` or its `-shm` open, and only
//! if the file is damaged with the WAL and sound without it. Both are checked again under an
//! EXCLUSIVE lock. Unless a user asks, it also needs the proof that the WAL is another file's
//! ([`foreign_wal`]).
//!
//! Called on any thread, which it blocks for two quick checks.

use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::file_check::{Alone, is_broken, look, resolved, size, without_wal};
use super::finding::CheckKind;
use super::foreign_wal;
use super::open_handles::holders;
use crate::engine::{self, Error, KeptKind, NoProgress, Result, Wal, or_failed};

/// Renames the WAL of the database at `path` to `<database>-wal.stale-<UTC time>`, and returns
/// that path. `asked`: a user asked for it, so no proof is needed that the WAL is another file's.
///
/// # Errors
/// `SQLITE_BUSY`: a connection, in this process or another, has the file open;
/// `ERR_INVALID_STATE`: the WAL does not cause the damage, or is not proven to be another file's;
/// `SQLITE_IOERR` or `SQLITE_CANTOPEN` from the system, for example for a failed read. After an
/// error the WAL is unchanged.
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
            "the -wal next to the database belongs to another one, but it can be put aside only \
             while no other connection, in this process or another, has the database open. Close it \
             everywhere",
        )
        .at(path)
    };
    let Some(alone) = Alone::with(path)? else { return Err(in_use()) };
    if is_used_by_others(path) {
        return Err(in_use());
    }
    let with = look(&alone.connection, CheckKind::Quick, &NoProgress)?;
    let stale = size(&wal) > 0 && is_broken(&with) && {
        let without = without_wal(path, &NoProgress)?;
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
    if !asked && foreign_wal::proof(&alone.connection, &NoProgress)?.is_none() {
        return Err(Error::fusion(
            "ERR_INVALID_STATE",
            "nothing proves that the -wal is another database's; it was left where it is",
        )
        .at(path));
    }
    // SQLite finds no WAL at its name from here on.
    renamed(alone, cfg!(not(windows)), || engine::put_wal_aside(path, &wal, KeptKind::StaleWal))
}

/// Renames the WAL that `alone` has open, while `alone` keeps others out: wherever the system
/// renames an open file. Windows does not, so that it is closed there, and the rename fails if another
/// connection has opened the file since.
fn renamed<T>(
    alone: T,
    can_be_open: bool,
    rename: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    let _held = if can_be_open {
        Some(alone)
    } else {
        drop(alone);
        None
    };
    rename()
}

/// Whether another process has one of the files open. A process that still has the file open that
/// was at this path before writes to the same WAL, but holds no lock on the file that is there now.
/// If the system does not report open files, only SQLite's lock protects.
fn is_used_by_others(path: &Path) -> bool {
    let holders = holders(path).processes.unwrap_or_default();
    holders.iter().any(|holder| !holder.this_process)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_wal_is_closed_before_it_is_renamed_where_the_system_asks_for_it() {
        for can_be_open in [true, false] {
            let connection = Rc::new(());
            let open = Rc::downgrade(&connection);
            let aside = renamed(connection, can_be_open, || {
                assert_eq!(open.strong_count() == 1, can_be_open);
                Ok(PathBuf::from("aside"))
            });
            assert_eq!(aside.unwrap(), Path::new("aside"));
            assert_eq!(open.strong_count(), 0);
        }
    }
}
