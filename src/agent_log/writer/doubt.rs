//! Doubt about a file: a reason to check it before anything is done to it. The writer's thread.

use std::path::Path;
use std::time::Duration;

use crate::engine::{DatabaseFile, Error, Result, Unwatched};
use crate::health;

/// Checks the file, if there is reason to doubt it.
///
/// # Errors
/// What the check found, or why it could not be carried out. Either way the doubt remains.
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

/// Looks through the whole file, but does not compare indexes with tables. A check of the file
/// that is under way for somebody else answers for this one.
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
            "the file is damaged, or the -wal beside it belongs to another one. Nothing has been \
             written to it: {}",
            health.summary()
        ),
    )
    .at(path))
}
