//! Putting aside a WAL that is not the file's own.
//!
//! It is neither applied nor deleted: whoever knows which file it belongs to may want it. Done
//! only while nobody else has the file open, and only to a WAL that is found stale once more
//! under the lock that proves it.
//!
//! Called on any thread, which it blocks for two quick checks.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::ffi;

use super::file_check::{Alone, is_broken, look, resolved, size, without_wal};
use super::finding::Kind;
use crate::engine::{Error, Result, Unwatched, Wal, advise};

/// Renames the WAL of the database at `path` to `<database>-wal.stale-<UTC time>`, and answers
/// that path.
///
/// # Errors
/// `SQLITE_BUSY`: somebody, in this process or another, has the file open; `ERR_INVALID_STATE`:
/// the WAL is not stale; the system's, as `SQLITE_IOERR` or `SQLITE_CANTOPEN`. In each case
/// nothing was done.
pub fn put_wal_aside(path: &Path) -> Result<PathBuf> {
    let cannot_open = |error: std::io::Error| {
        advise(Error::sqlite(ffi::SQLITE_CANTOPEN, error.to_string()).at(path), path)
    };
    let path = &resolved(path).map_err(cannot_open)?;
    let wal = Wal::path(path);
    let Some(alone) = Alone::with(path)? else {
        return Err(Error::sqlite(
            ffi::SQLITE_BUSY,
            "the -wal beside the database is not its own, but it can be put aside only while \
             nobody else, in this process or another, has the database open. Close it everywhere",
        )
        .at(path));
    };
    let with = look(&alone.connection, Kind::Quick, &Unwatched)?;
    let stale = size(&wal) > 0 && is_broken(&with) && {
        let without = without_wal(path, &Unwatched)?;
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
    // Renamed while `alone` keeps everybody out; SQLite finds no WAL at its name from here on.
    let aside = rename(&wal).map_err(|error| {
        Error::sqlite(ffi::SQLITE_IOERR, format!("the -wal could not be renamed: {error}")).at(path)
    })?;
    drop(alone);
    Ok(aside)
}

fn rename(wal: &Path) -> std::io::Result<PathBuf> {
    let mut name = wal.as_os_str().to_owned();
    name.push(format!(".stale-{}", utc(SystemTime::now())));
    let mut aside = PathBuf::from(&name);
    let mut number = 1;
    while std::fs::symlink_metadata(&aside).is_ok() {
        number += 1;
        let mut next = name.clone();
        next.push(format!("-{number}"));
        aside = PathBuf::from(next);
    }
    std::fs::rename(wal, &aside)?;
    #[cfg(unix)]
    if let Some(directory) = aside.parent() {
        // The new name survives loss of power, or the old one does: either is a whole WAL.
        drop(std::fs::File::open(directory).and_then(|directory| directory.sync_all()));
    }
    Ok(aside)
}

/// `yyyymmddThhmmssZ`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day so many days after 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970, days);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_utc() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_399), "20000228T235959Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_798_761_599), "20261231T235959Z");
        assert_eq!(at(4_107_542_400), "21000301T000000Z");
    }
}
