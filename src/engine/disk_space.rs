//! How much may still be written where a file lies. Any thread.

use std::io;
use std::path::Path;

/// Bytes that this process may still write to the file system that the directory `path` is on.
///
/// # Errors
/// The system's.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    platform::free_bytes(path)
}

/// Files that may still be made on the file system that the directory `path` is on; none where it
/// does not count them, or does not answer.
pub(super) fn free_inodes(path: &Path) -> Option<u64> {
    platform::free_inodes(path)
}

#[cfg(all(unix, not(target_vendor = "apple")))]
mod platform {
    use std::ffi::CString;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
        let stat = ask(path)?;
        Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }

    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    pub(super) fn free_inodes(path: &Path) -> Option<u64> {
        let stat = ask(path).ok().filter(|stat| stat.f_files > 0)?;
        Some(stat.f_favail as u64)
    }

    fn ask(path: &Path) -> io::Result<libc::statvfs> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path is NUL-terminated; statvfs fills the whole structure when it succeeds,
        // and only then is it read.
        unsafe {
            if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stat.assume_init())
        }
    }
}

/// `statfs`: Darwin's `statvfs` counts blocks in 32 bits, which is wrong from 16 TiB on.
#[cfg(target_vendor = "apple")]
mod platform {
    use std::ffi::CString;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
        let stat = ask(path)?;
        Ok(stat.f_bavail.saturating_mul(u64::from(stat.f_bsize)))
    }

    pub(super) fn free_inodes(path: &Path) -> Option<u64> {
        Some(ask(path).ok().filter(|stat| stat.f_files > 0)?.f_ffree)
    }

    fn ask(path: &Path) -> io::Result<libc::statfs> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the path is NUL-terminated; statfs fills the whole structure when it succeeds,
        // and only then is it read.
        unsafe {
            if libc::statfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stat.assume_init())
        }
    }
}

#[cfg(windows)]
mod platform {
    use std::io;
    use std::os::windows::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetDiskFreeSpaceExW(
            directory: *const u16,
            available: *mut u64,
            total: *mut u64,
            free: *mut u64,
        ) -> i32;
    }

    pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
        let wide: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        let mut available = 0;
        // SAFETY: the string is NUL-terminated and lives during the call; one integer is written,
        // the other two pointers may be null.
        let done = unsafe {
            GetDiskFreeSpaceExW(wide.as_ptr(), &raw mut available, ptr::null_mut(), ptr::null_mut())
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(available) }
    }

    pub(super) fn free_inodes(_: &Path) -> Option<u64> {
        None
    }
}

#[cfg(not(any(unix, windows)))]
mod platform {
    use std::io;
    use std::path::Path;

    pub(super) fn free_bytes(_: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn free_inodes(_: &Path) -> Option<u64> {
        None
    }
}
