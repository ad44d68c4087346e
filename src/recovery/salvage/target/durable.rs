//! Makes a finished file survive a loss of power.

#[cfg(unix)]
use std::fs::File;
use std::fs::OpenOptions;
use std::path::Path;

use rusqlite::ffi;

use crate::engine::{Error, Result};

/// Syncs the file and, where that can be done, its directory. Nobody else has the file open: it is
/// closed and has never been anybody's.
///
/// # Errors
/// The system's, as `SQLITE_IOERR_FSYNC`.
pub(super) fn sync(path: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::sqlite(ffi::SQLITE_IOERR_FSYNC, error.to_string()).at(path);
    // Windows syncs only what is open for writing.
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    drop(file);
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        directory.sync_all().map_err(failed)?;
    }
    Ok(())
}
