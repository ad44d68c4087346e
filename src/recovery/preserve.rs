//! Keeping a damaged original: copies of file and WAL, byte for byte, under dated names.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::ffi;

use super::report::Preserved;
use super::scratch::{Scratch, with_suffix};
use crate::engine::{Error, Hold, Result, Stage, Storage, Task};

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Copies what is held to `<database>.damaged-<UTC>` and, where there is a WAL, to
/// `<database>.damaged-<UTC>-wal`, and syncs both and their directory. Nothing that exists is
/// overwritten. A copy has its name only once it is complete.
///
/// # Errors
/// `SQLITE_FULL` and others of the disk; `task`'s. Nothing is left then.
pub(super) fn preserve(hold: &Hold<'_>, task: &dyn Task) -> Result<Preserved> {
    let live = hold.file();
    let path = live.path();
    let database = Scratch::beside(path);
    copy(live.database(), database.path(), "keeping the original", task)?;
    // An empty WAL says nothing.
    let wal = match live.wal() {
        Some(wal) if wal.size()? > 0 => {
            let scratch = Scratch::beside(path);
            copy(wal, scratch.path(), "keeping its WAL", task)?;
            Some(scratch)
        }
        _ => None,
    };
    let name = free_name(path);
    let wal_name = with_suffix(&name, "-wal");
    // The WAL first: a copy that has its name has its WAL, too.
    if let Some(wal) = &wal {
        rename(wal.path(), &wal_name)?;
    }
    if let Err(error) = rename(database.path(), &name) {
        drop(std::fs::remove_file(&wal_name));
        return Err(error);
    }
    sync_directory(path)?;
    Ok(Preserved { database: name, wal: wal.map(|_| wal_name) })
}

fn copy(from: &impl Storage, to: &Path, name: &'static str, task: &dyn Task) -> Result<()> {
    let at = |error: std::io::Error| disk_error(&error, "the damaged original is not kept").at(to);
    let mut file = File::options().write(true).create_new(true).open(to).map_err(at)?;
    let total = from.size()?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < total {
        task.go_on()?;
        task.stage(Stage { name, done, total });
        let count = from.read_at(&mut buffer, done)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        file.write_all(bytes).map_err(at)?;
        done += count as u64;
    }
    file.sync_all().map_err(at)?;
    task.stage(Stage { name, done, total });
    Ok(())
}

/// `<path>.damaged-<UTC>`, with a number behind it if that is taken.
fn free_name(path: &Path) -> PathBuf {
    let stamp = stamp(SystemTime::now());
    let mut number = 0_u32;
    loop {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let name = with_suffix(path, &format!(".damaged-{stamp}{suffix}"));
        if !name.exists() && !with_suffix(&name, "-wal").exists() {
            return name;
        }
        number += 1;
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| disk_error(&error, "a file is not renamed").at(to))
}

/// Has the names in the directory of `path` survive a loss of power.
///
/// # Errors
/// `SQLITE_IOERR_DIR_FSYNC`.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| {
            Error::sqlite(ffi::SQLITE_IOERR_DIR_FSYNC, error.to_string()).at(path)
        })?;
    }
    // Windows has no such call: NTFS logs changes of directories.
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// The system's error as SQLite would tell it.
pub(super) fn disk_error(error: &std::io::Error, lead: &str) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => ffi::SQLITE_FULL,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound => ffi::SQLITE_CANTOPEN,
        std::io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => ffi::SQLITE_IOERR_WRITE,
    };
    Error::sqlite(code, format!("{lead}: {error}"))
}

/// `yyyymmddThhmmssZ`.
fn stamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The Gregorian date so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stamp_is_the_date_in_utc() {
        let at = |seconds| stamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_827_696), "20000229T123456Z");
        assert_eq!(at(1_798_761_599), "20261231T235959Z");
        assert_eq!(at(4_107_542_400), "21000301T000000Z");
    }
}
