//! Whether a file is itself the root of a mount: `docker -v a.db:/data/a.db`, `mount --bind a.db
//! c/a.db`. It is one file with a path in two folders, and SQLite looks for the `-wal` in the folder:
//! the processes on either side have a WAL each, as with two hard links. Any thread.

use std::path::Path;

/// Whether `path` leads to a file that is a mount's root. Where the system does not say, it is not.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn is_mount_root(path: &Path) -> bool {
    let Ok(path) = super::canonicalize(path) else { return false };
    linux::by_statx(&path).unwrap_or_else(|| {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        linux::is_listed(&mounts, &path)
    })
}

/// No other system mounts single files.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn is_mount_root(_: &Path) -> bool {
    false
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    /// `struct statx` (linux/stat.h) as numbers of 64 bits.
    type Statx = [u64; 32];
    const ATTRIBUTES: usize = 1;
    const ATTRIBUTES_MASK: usize = 7;
    const MOUNT_ROOT: u64 = 0x2000;

    /// `statx`'s answer; none before Linux 5.8. By number: the oldest glibc that is supported has no
    /// function for it.
    pub(super) fn by_statx(path: &Path) -> Option<bool> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        let mut found: Statx = [0; 32];
        // SAFETY: the path is NUL-terminated, and the kernel fills the 256 bytes of `found`.
        let failed = unsafe {
            libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, 0, found.as_mut_ptr())
        };
        (failed == 0 && found[ATTRIBUTES_MASK] & MOUNT_ROOT != 0)
            .then_some(found[ATTRIBUTES] & MOUNT_ROOT != 0)
    }

    /// Whether proc(5)'s `mountinfo` has a mount at `path`: the fifth field, in which blanks,
    /// line ends and backslashes are octal.
    pub(super) fn is_listed(mounts: &[u8], path: &Path) -> bool {
        let wanted = path.as_os_str().as_bytes();
        mounts.split(|byte| *byte == b'\n').any(|line| {
            line.split(|byte| *byte == b' ').nth(4).is_some_and(|it| unescaped(it) == wanted)
        })
    }

    fn unescaped(field: &[u8]) -> Vec<u8> {
        let (mut rest, mut text) = (field, Vec::new());
        while let [first, after @ ..] = rest {
            rest = after;
            let octal = after
                .first_chunk::<3>()
                .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
            match octal {
                Some(byte) if *first == b'\\' => {
                    text.push(byte);
                    rest = after.get(3..).unwrap_or_default();
                }
                _ => text.push(*first),
            }
        }
        text
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_file_is_a_mount_root_if_it_is_listed() {
            let mounts = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                90 22 8:1 /srv/a.db /data/my\\040files/a.db rw - ext4 /dev/sda1 rw\n";
            assert!(is_listed(mounts, Path::new("/data/my files/a.db")));
            assert!(!is_listed(mounts, Path::new("/data/my files/b.db")));
            assert!(!is_listed(mounts, Path::new("/srv/a.db")));
        }

        #[test]
        fn a_plain_file_is_none() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            std::fs::write(&path, "").unwrap();
            assert!(!super::super::is_mount_root(&path));
            assert_ne!(by_statx(&path), Some(true));
            if let Some(root) = by_statx(Path::new("/proc")) {
                assert!(root);
            }
        }
    }
}
