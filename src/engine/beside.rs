//! Names of what lies beside a database: SQLite adds to the database's name, and so does this
//! package. Any thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OpenFlags;

use super::{Connection, Result};

/// `path` with `ending` at its end: `fusion.db` and `-wal` make `fusion.db-wal`.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The time now, UTC, as it can stand in a file's name: `20261123T180206Z`.
///
/// # Errors
/// SQLite's, whose clock and calendar it is.
pub fn stamp() -> Result<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let clock = Connection::open(Path::new(":memory:"), flags, Duration::ZERO)?;
    let stamp = clock.sql()?.query_row("SELECT strftime('%Y%m%dT%H%M%SZ')", [], |row| row.get(0));
    Ok(stamp?)
}
