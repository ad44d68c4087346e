//! Checks before each commit that a connection's path still leads to the file that it has open.
//!
//! A `stat` of a path takes a tenth of the time of a short commit, an `fstat` of an open file a
//! third of that. Unlinking, replacing or renaming a file changes its link count (`st_nlink`) or
//! the time of its inode's last change (`st_ctime`). So a check looks at the path only if one of
//! them has changed since the last look (a checkpoint changes the time, too), and otherwise once in
//! [`LOOK_AGAIN`]. Renaming a folder above the file changes neither of them. In that case the file
//! is still there, with its WAL, and nothing that is committed meanwhile is lost.
//!
//! The descriptor is the one that holds the locks ([`super::locks`]). With POSIX locks or on
//! Windows there is no such descriptor, and each check looks at the path. One thread at a time.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Class, Connection, DatabaseFile, Result};

/// How long an unchanged `fstat` of the file stands for a look at the path.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where a connection's file is.
#[derive(Debug)]
pub struct Place {
    file: Arc<DatabaseFile>,
    path: PathBuf,
    #[cfg(unix)]
    descriptor: Option<std::os::fd::RawFd>,
    /// The `fstat` of the file when the path last led to it, and the time of that look.
    seen: Cell<Option<(Seen, Instant)>>,
}

/// The `fstat` values that change with a file's name; `None` if they cannot be read.
type Seen = Option<(u64, i64, i64)>;

impl Place {
    /// The place of a connection that has read its file; `None` without a file. To be used while
    /// the connection is open.
    pub fn of(connection: &Connection) -> Option<Self> {
        let file = Arc::clone(connection.file()?);
        Some(Self {
            #[cfg(unix)]
            descriptor: super::locks::descriptor((file.id.device, file.id.inode)),
            path: connection.path().to_path_buf(),
            file,
            seen: Cell::default(),
        })
    }

    /// The file.
    pub fn file(&self) -> &Arc<DatabaseFile> {
        &self.file
    }

    /// The path, as SQLite resolved it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the path leads to the file. `Ok` where that cannot be determined. One `stat`;
    /// the connection may be closed.
    ///
    /// # Errors
    /// `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`.
    pub fn check(&self) -> Result<()> {
        match self.file.id.check_presence(&self.path) {
            Err(error) if error.class() == Class::Replaced => Err(error),
            _ => Ok(()),
        }
    }

    /// The same, but looks at the path only if one `fstat` of the open file shows a change. See the
    /// module's documentation.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_briefly(&self) -> Result<()> {
        let (now, is) = (Instant::now(), self.look());
        if let Some((seen, at)) = self.seen.get()
            && is.is_some()
            && seen == is
            && now.duration_since(at) < LOOK_AGAIN
        {
            return Ok(());
        }
        self.check()?;
        self.seen.set(Some((is, now)));
        Ok(())
    }

    #[cfg(unix)]
    fn look(&self) -> Seen {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the buffer is one `stat`, which is read only if the call has filled it. The
        // descriptor is open; were it another file's, device and inode would say so.
        let stat = unsafe {
            if libc::fstat(self.descriptor?, stat.as_mut_ptr()) != 0 {
                return None;
            }
            stat.assume_init()
        };
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        let is_same =
            stat.st_dev as u64 == self.file.id.device && stat.st_ino as u64 == self.file.id.inode;
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        is_same.then_some((stat.st_nlink as u64, stat.st_ctime as i64, stat.st_ctime_nsec as i64))
    }

    #[cfg(not(unix))]
    fn look(&self) -> Seen {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::OpenFlags;

    use super::*;
    use crate::engine::Profile;

    fn opened(path: &Path) -> (Connection, Place) {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = Connection::open_hardened(path, flags, &Profile::default()).unwrap();
        let place = Place::of(&connection).unwrap();
        (connection, place)
    }

    #[test]
    fn a_file_that_is_lost_is_seen_at_once() {
        type Way = fn(&Path);
        let ways: [(Way, &str); 3] = [
            (|file| fs::remove_file(file).unwrap(), "ERR_FUSION_UNLINKED"),
            (
                |file| {
                    fs::copy(file, file.with_extension("new")).unwrap();
                    fs::rename(file.with_extension("new"), file).unwrap();
                },
                "ERR_FUSION_REPLACED",
            ),
            (
                |file| {
                    fs::remove_file(file).unwrap();
                    fs::write(file, "").unwrap();
                },
                "ERR_FUSION_REPLACED",
            ),
        ];
        for (way, code) in ways {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            let (_connection, place) = opened(&path);
            place.check_briefly().unwrap();
            place.check_briefly().unwrap();
            way(&path);
            assert_eq!(place.check_briefly().unwrap_err().code, code);
            assert_eq!(place.check().unwrap_err().code, code);
        }
    }

    #[test]
    fn a_file_that_is_elsewhere_is_seen_before_long() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        fs::create_dir(&before).unwrap();
        let (_connection, place) = opened(&before.join("a.db"));
        place.check_briefly().unwrap();
        fs::rename(&before, &after).unwrap();
        let since = Instant::now();
        while place.check_briefly().is_ok() {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        fs::rename(&after, &before).unwrap();
        place.check_briefly().unwrap();
        // The file itself: at once, unless the system's clock for files is slower than this test.
        fs::rename(before.join("a.db"), before.join("b.db")).unwrap();
        while place.check_briefly().is_ok() {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }
}
