//! Makes a finished file durable.

use std::fs::OpenOptions;
use std::path::Path;

use rusqlite::ffi;

use crate::engine::{self, Error, Result};

/// Syncs the file and, where the system can, its directory. No connection has the file open.
///
/// # Errors
/// The operating system's, as `SQLITE_IOERR_FSYNC`.
pub(super) fn sync(path: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::sqlite(ffi::SQLITE_IOERR_FSYNC, error.to_string()).at(path);
    // Windows syncs only what is open for writing.
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    engine::sync(&file).map_err(failed)?;
    drop(file);
    engine::sync_folder_of(path)
}
