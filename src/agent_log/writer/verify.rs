//! The check of a file that is flagged as possibly damaged, before the writer writes to it or
//! checkpoints it. The writer's thread.

use std::path::Path;
use std::time::Duration;

use crate::engine::{DatabaseFile, Error, NoProgress, Result};
use crate::health;

/// Checks the file, if its flag is set.
///
/// # Errors
/// The damage that the check found, or why it could not run. In both cases the flag stays set.
pub(super) fn verify_if_unverified(file: &DatabaseFile) -> Result<()> {
    if !file.take_unverified() {
        return Ok(());
    }
    match file.check_identity().and_then(|()| check(&file.path)) {
        Ok(()) => file.recovery.confirmed(),
        Err(error) => {
            file.rearm();
            return Err(error);
        }
    }
    Ok(())
}

/// Checks the whole file, but does not compare indexes with tables. Joins a check of the file that
/// another caller has started.
fn check(path: &Path) -> Result<()> {
    let health = health::check_within(path, health::CheckKind::Quick, Duration::ZERO, &NoProgress)?;
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
            "the file is damaged, or its -wal belongs to another database. Nothing has been \
             written to it: {}",
            health.summary()
        ),
    )
    .at(path))
}
