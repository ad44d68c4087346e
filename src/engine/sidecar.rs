//! Names of the files next to a database: SQLite's sidecar files and this package's own files have
//! the database's name with a suffix. Any thread.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::OpenFlags;

use super::{Connection, Result};

/// `path` with `ending` at its end: `fusion.db` and `-wal` make `fusion.db-wal`.
pub fn sidecar_path(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The time now, UTC, as it can stand in a file's name: `20261123T180206Z`.
///
/// # Errors
/// SQLite's, whose clock and calendar it is.
pub fn stamp() -> Result<String> {
    formatted("%Y%m%dT%H%M%SZ", SystemTime::now())
}

/// A time for a person, UTC: `2026-11-23T18:02:06.123Z`.
pub fn utc(time: SystemTime) -> String {
    formatted("%Y-%m-%dT%H:%M:%fZ", time).unwrap_or_else(|_| "a time unknown".to_owned())
}

fn formatted(format: &str, time: SystemTime) -> Result<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let clock = Connection::open(Path::new(":memory:"), flags, Duration::ZERO)?;
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let select = "SELECT strftime(?1, ?2, 'unixepoch')";
    Ok(clock.sql()?.query_row(select, (format, seconds), |row| row.get(0))?)
}
