//! Copies a database, as one connection sees it, into a new file that no other connection has open.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::work_dir::system;
use crate::engine::{
    BackupProgress, Connection, Error, Likeness, Progress, Result, Stage, sync, sync_piece,
};

/// Bytes written between two syncs. It bounds the data that a sync has to write, and so how long
/// the sync of another connection's commit waits behind it in the disk's queue.
const SYNC_EVERY: u64 = 16 << 20;

/// The read and write versions in the header of a file in WAL mode, those of any other file, and
/// their offset (<https://sqlite.org/fileformat2.html#file_format_version_numbers>).
const WAL_VERSIONS: [u8; 2] = [2, 2];
const ROLLBACK_VERSIONS: [u8; 2] = [1, 1];
const VERSIONS_AT: u64 = 18;

/// Copies what `source` sees, as [`Connection::copy_to`] does, to a new file at `target`, `rate`
/// pages at a time, and reports progress as stage `name`. The file is self-contained (not in WAL
/// mode), synced, and has the owner and mode of the source. Returns its number of pages.
///
/// Pages are copied byte for byte: a page that is damaged in the source is damaged in the copy.
///
/// # Errors
/// SQLite's, of reading the source and of writing the target; `task`'s.
pub(super) fn copy(
    source: &Connection,
    target: &Path,
    rate: u32,
    name: &'static str,
    release: Option<Duration>,
    task: &dyn Progress,
) -> Result<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let at = |error: Error| error.at(target);
    let mut file = Likeness::of(source.path())
        .create(target)
        .map_err(|error| system(ffi::SQLITE_CANTOPEN, target, &error))?;
    let destination = Connection::open(target, flags, Duration::ZERO)?;
    // An incomplete copy is never used, so it needs no journal. This function syncs the file.
    destination
        .sql()?
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(|error| at(error.into()))?;
    let failed = |error| system(ffi::SQLITE_IOERR_WRITE, target, &error);
    let page_size: u64 = source
        .sql()?
        .query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))
        .map_err(|error| Error::from(error).at(source.path()))?
        .into();
    let slice = i32::try_from(rate.max(1)).unwrap_or(i32::MAX);
    let (mut unsynced, mut pages) = (0, 0);
    task.check_cancelled()?;
    let mut step = |progress: BackupProgress| {
        let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
        pages = count(progress.total);
        let done = pages.saturating_sub(count(progress.remaining));
        task.stage(Stage { name, done, total: pages });
        unsynced += u64::from(rate) * page_size;
        if unsynced >= SYNC_EVERY {
            unsynced = 0;
            sync_piece(&file).map_err(failed)?;
        }
        if progress.done { Ok(()) } else { task.check_cancelled() }
    };
    source.copy_to(&destination, slice, release, &mut step).map_err(at)?;
    drop(destination);
    leave_wal_mode(&mut file).and_then(|()| sync(&file)).map_err(failed)?;
    Ok(pages)
}

/// Sets the header's versions to those of a rollback journal. The copy of a file in WAL mode has
/// the versions of WAL mode, and SQLite would make a WAL for it at the first read. `PRAGMA
/// journal_mode` does the same, but it needs a readable schema.
fn leave_wal_mode(file: &mut File) -> std::io::Result<()> {
    let mut versions = [0; 2];
    file.seek(SeekFrom::Start(VERSIONS_AT))?;
    match file.read_exact(&mut versions) {
        Ok(()) if versions == WAL_VERSIONS => {
            file.seek(SeekFrom::Start(VERSIONS_AT))?;
            file.write_all(&ROLLBACK_VERSIONS)
        }
        Ok(()) => Ok(()),
        // An empty database has no header.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}
