//! A folder or file held by one process at a time, for as long as it is open there.
//!
//! By `flock`, which the system ends with the process, however that ends, and which is known
//! across containers that share a disk, where process numbers are not. On some systems it
//! conflicts with the locks that SQLite takes: never on a file that SQLite opens.

use std::fs::File;
use std::io;

/// Locks `file`; `false` if another open file has the lock. Closing `file` releases the lock.
/// Where the platform or the file system has no such locks, it is never locked.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn try_own(file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; no memory is passed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    outcome(error)
}

/// What `flock` says where it does not take the lock.
#[cfg(unix)]
fn outcome(error: io::Error) -> io::Result<bool> {
    // macOS has two numbers for "not supported", SMB says EISDIR for a folder (`smbfs_vnop_advlock`),
    // and others refuse locks of folders in other words.
    const NONE: &[i32] = &[
        libc::ENOLCK,
        libc::ENOTSUP,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::EBADF,
        libc::ENOSYS,
        libc::EISDIR,
        libc::EPERM,
        libc::ENOTTY,
    ];
    match error.raw_os_error() {
        Some(libc::EWOULDBLOCK) => Ok(false),
        Some(code) if NONE.contains(&code) => Ok(true),
        _ => Err(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_such_locks_has_no_other_owner() {
        let answer = |code| outcome(io::Error::from_raw_os_error(code));
        assert!(!answer(libc::EWOULDBLOCK).unwrap());
        for code in [libc::ENOTSUP, libc::EISDIR, libc::EPERM, libc::ENOTTY, libc::ENOLCK] {
            assert!(answer(code).unwrap(), "{code}");
        }
        assert_eq!(answer(libc::EIO).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}

/// As on unix. Windows keeps what is open from being removed, which serves the same end.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn try_own(_: &File) -> io::Result<bool> {
    Ok(true)
}
