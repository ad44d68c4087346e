//! A folder held by one process at a time, for as long as it lives there.
//!
//! | system | held by |
//! |---|---|
//! | unix | `flock` of the folder |
//! | Windows, which opens no folders | a lock file, open to this process alone; Windows removes it at the close |
//!
//! The system ends either with the process, however that ends, and either is known across containers
//! that share a disk, where process numbers are not. On some systems `flock` conflicts with the locks
//! that SQLite takes: never on a file that SQLite opens. Any thread.

use std::fs::File;
use std::io;
use std::path::Path;

/// A lock on a folder, released when this is dropped.
#[derive(Debug)]
pub struct Owned {
    _file: File,
}

/// Locks the folder at `path`; `None` if another operation, of this process or another, has the lock.
/// Where the file system has no such locks every operation gets it. `lock_file` is the path of the
/// lock file on Windows, which does not open folders.
///
/// # Errors
/// The system's.
pub fn try_lock_exclusive(path: &Path, lock_file: &Path) -> io::Result<Option<Owned>> {
    Ok(platform::try_lock_exclusive(path, lock_file)?.map(|_file| Owned { _file }))
}

/// Removes a lock file that a loss of power left behind. Where it is held it stays.
pub fn remove_left_lock(lock_file: &Path) {
    // The close removes it.
    drop(try_lock_exclusive(lock_file.parent().unwrap_or(lock_file), lock_file));
}

#[cfg(unix)]
mod platform {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    pub(super) fn try_lock_exclusive(folder: &Path, _: &Path) -> io::Result<Option<File>> {
        let folder = File::open(folder)?;
        // SAFETY: the descriptor is open; no memory is passed.
        if unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Some(folder));
        }
        Ok(outcome(io::Error::last_os_error())?.then_some(folder))
    }

    /// What `flock` says where it does not take the lock.
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

    #[cfg(test)]
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
}

#[cfg(windows)]
mod platform {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::windows::fs::OpenOptionsExt;
    use std::path::Path;

    use super::{CLOSING, taken};
    use crate::engine::rename::{ACCESS_DENIED, patiently};

    pub(super) fn try_lock_exclusive(_: &Path, lock_file: &Path) -> io::Result<Option<File>> {
        /// What `FILE_FLAG_DELETE_ON_CLOSE` asks for, besides `GENERIC_WRITE`.
        const DELETE_AND_WRITE: u32 = 0x0001_0000 | 0x4000_0000;
        const DELETE_ON_CLOSE: u32 = 0x0400_0000;
        let mut options = OpenOptions::new();
        options.write(true).create(true).access_mode(DELETE_AND_WRITE);
        options.share_mode(0).custom_flags(DELETE_ON_CLOSE);
        let open = || options.open(lock_file);
        taken(patiently(CLOSING, &[ACCESS_DENIED], std::thread::sleep, open))
    }
}

/// How long a lock file that is about to go may be refused with `ERROR_ACCESS_DENIED`, which is also
/// what a folder without the right to write to it answers.
#[cfg(any(windows, test))]
const CLOSING: std::time::Duration = std::time::Duration::from_millis(50);

/// What the open of a lock file says that shares nothing: none where another handle has it.
#[cfg(any(windows, test))]
fn taken(opened: io::Result<File>) -> io::Result<Option<File>> {
    /// `ERROR_DELETE_PENDING`: its holder has just let go of it.
    const DELETE_PENDING: i32 = 303;
    const HELD: [i32; 2] = [super::rename::SHARING_VIOLATION, DELETE_PENDING];
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error().is_some_and(|code| HELD.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_until_it_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let (folder, lock) = (directory.path().join("x"), directory.path().join("x.lock"));
        std::fs::create_dir(&folder).unwrap();
        let first = try_lock_exclusive(&folder, &lock).unwrap().unwrap();
        assert!(try_lock_exclusive(&folder, &lock).unwrap().is_none());
        remove_left_lock(&lock);
        assert!(
            try_lock_exclusive(&folder, &lock).unwrap().is_none(),
            "what is held is not removed"
        );
        drop(first);
        assert!(try_lock_exclusive(&folder, &lock).unwrap().is_some());
        assert!(!lock.exists());
    }

    #[test]
    fn a_lock_file_that_another_handle_has_open_is_held() {
        let answer = |code| taken(Err(io::Error::from_raw_os_error(code)));
        assert!(answer(32).unwrap().is_none() && answer(303).unwrap().is_none());
        for code in [2, 3, 5, 112] {
            assert_eq!(answer(code).unwrap_err().raw_os_error(), Some(code));
        }
        assert!(taken(tempfile::tempfile()).unwrap().is_some());
        assert!(!CLOSING.is_zero());
    }
}
