//! Checks a file marked as possibly damaged before it is written to. The writer's thread.

use std::path::Path;
use std::time::Duration;

use crate::engine::{DatabaseFile, Error, Result, Unwatched};
use crate::health;

/// Checks the file, if it is marked as possibly damaged.
///
/// # Errors
/// The damage that the check found, or why it could not be carried out. The mark then remains.
pub(super) fn settle(file: &DatabaseFile) -> Result<()> {
    if !file.take_suspicion() {
        return Ok(());
    }
    match file.check_identity().and_then(|()| check(&file.path)) {
        Ok(()) => file.members.confirm(),
        Err(error) => {
            file.keep_suspecting();
            return Err(error);
        }
    }
    Ok(())
}

/// Runs a quick check of the whole file, which does not compare indexes with tables. Joins a check
/// of the file that is already running.
fn check(path: &Path) -> Result<()> {
    let health = health::check_within(path, health::Kind::Quick, Duration::ZERO, &Unwatched)?;
    if health.is_locked() {
        return Err(
            Error::sqlite(rusqlite::ffi::SQLITE_BUSY, "the file could not be checked").at(path)
        );
    }
    if !health::is_unsafe_to_write(&health) {
        return Ok(());
    }
    Err(Error::sqlite(
        rusqlite::ffi::SQLITE_CORRUPT,
        format!(
            "the file is damaged, or its -wal belongs to another file. Nothing has been written to \
             it: {}",
            health.summary()
        ),
    )
    .at(path))
}
