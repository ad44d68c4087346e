//! Syncs of files and folders: the one place that makes what was written survive a loss of power.
//! Any thread, which waits for the disk.
//!
//! | system | file | folder |
//! |---|---|---|
//! | Linux | `fsync` | `fsync` |
//! | macOS | `F_FULLFSYNC`; `fsync` where that is not supported (SMB, many FUSE), as SQLite's `full_fsync` does | the same; nothing where neither is supported |
//! | Windows | `FlushFileBuffers` | NTFS keeps the order of renames, not that the last one is on the disk |

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::ffi;

use super::{Error, Result};

/// Syncs `file` down to the medium.
///
/// # Errors
/// The system's.
pub fn sync(file: &File) -> io::Result<()> {
    full_or_plain(|| file.sync_all(), || plain(file))
}

/// Syncs `file` as far as the drive, during a long copy that ends with [`sync`]: on macOS a full
/// sync of each piece would flush the drive's cache each time.
///
/// # Errors
/// The system's.
pub fn sync_piece(file: &File) -> io::Result<()> {
    if cfg!(target_vendor = "apple") { plain(file) } else { file.sync_data() }
}

/// Makes what was renamed, linked or removed in the folder of `path` durable.
///
/// # Errors
/// `SQLITE_IOERR_DIR_FSYNC`.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|file| sync(&file)) {
        // Some file systems do not support a sync of folders, and do not need it.
        Err(error) if !is_unsupported(&error) => {
            let message = format!("{}: {error}", folder.display());
            Err(Error::sqlite(ffi::SQLITE_IOERR_DIR_FSYNC, message).at(folder))
        }
        _ => Ok(()),
    }
}

/// What the system's calls answer that [`sync`] and [`sync_piece`] make: name, name for people, answer.
pub(super) fn each(file: &File) -> Vec<(&'static str, &'static str, io::Result<()>)> {
    if cfg!(target_vendor = "apple") {
        vec![
            ("fullFsync", "F_FULLFSYNC of a file", file.sync_all()),
            ("fsync", "fsync of a file", plain(file)),
        ]
    } else if cfg!(unix) {
        vec![
            ("fsync", "fsync of a file", file.sync_all()),
            ("fdatasync", "fdatasync of a file", file.sync_data()),
        ]
    } else {
        vec![("flush", "FlushFileBuffers of a file", file.sync_all())]
    }
}

/// `full`, or `plain` where the file system does not have it.
fn full_or_plain(
    full: impl FnOnce() -> io::Result<()>,
    plain: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match full() {
        Err(error) if cfg!(unix) && is_unsupported(&error) => plain(),
        answer => answer,
    }
}

/// Whether the answer says that the file system has no such call, rather than that it failed.
fn is_unsupported(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes =
        [libc::EINVAL, libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOTTY, libc::ENODEV, libc::EISDIR];
    #[cfg(not(unix))]
    let codes: [i32; 0] = [];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(unix)]
fn plain(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; no memory is passed.
    if unsafe { libc::fsync(file.as_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(unix))]
fn plain(file: &File) -> io::Result<()> {
    file.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn answer(code: i32) -> io::Result<()> {
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
    }

    #[test]
    fn a_full_sync_that_is_not_to_be_had_falls_back_and_one_that_fails_does_not() {
        for unsupported in [libc::EINVAL, libc::ENOTSUP, libc::ENOTTY, libc::ENODEV] {
            assert!(full_or_plain(|| answer(unsupported), || answer(0)).is_ok());
            let failed = full_or_plain(|| answer(unsupported), || answer(libc::EIO)).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(libc::EIO));
        }
        for failure in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EBADF] {
            let failed = full_or_plain(|| answer(failure), || answer(0)).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(failure));
        }
        full_or_plain(|| answer(0), || answer(libc::EIO)).unwrap();
    }

    #[test]
    fn files_and_folders_are_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = tempfile::tempfile_in(folder.path()).unwrap();
        sync(&file).and_then(|()| sync_piece(&file)).unwrap();
        sync_folder_of(&path).unwrap();
        assert!(sync_folder_of(&folder.path().join("no/x")).is_err());
    }
}
