//! Another SQLite in this process with the same file open: node:sqlite, better-sqlite3, a second
//! copy of this addon.
//!
//! POSIX locks belong to the process and the inode, and the close of any descriptor drops them.
//! Two copies of SQLite do not know of each other's descriptors, so each drops the other's locks.
//! This package's own locks cannot be dropped so ([`super::locks`]), but its closes drop the
//! other's. Therefore each open of a file looks for another copy, which it reports to the user.
//! Each close of a descriptor looks for one, too, and is deferred if it finds one.
//!
//! # How it is detected
//! By locks first: `F_OFD_GETLK` names this process as the owner of a POSIX lock on the file. This
//! package's own locks have no owner there, so the lock is another copy's. That is certain, and costs
//! a few system calls, however many files are open. A connection in WAL mode that has read holds such a
//! lock. A connection without a lock, or whose lock another process's lock hides, is found by its
//! descriptors.
//!
//! The descriptors that this package does not know ([`super::descriptors`]) are compared by `fstat`: no
//! file is opened. A descriptor on the database, its `-wal` or its `-shm` is another SQLite's if
//! * neither this copy nor a protected Node's opened it ([`super::locks::hooks`]), and
//! * it was opened with `O_NOFOLLOW`, as SQLite has opened all files since 3.39, or for reading
//!   and writing. `fs.readFile`, `fs.cp` and streams do neither, so a copy in flight is no SQLite.
//!   Systems that do not report `O_NOFOLLOW` (macOS) miss a copy of SQLite that only reads and holds
//!   no lock.
//!
//! Every open looks. A close looks, too, unless nothing can be lost: the kernel says that no one
//! else has a lock on the file at this moment (`F_OFD_GETLK`: one call, whatever else is open),
//! and a look within the last [`FRESH`] found no other SQLite in the whole process. The second
//! condition is for one that is idle now and locks the file on another thread before it is closed.
//!
//! # Parking
//! A close that would drop another's locks leaves the descriptor *parked*. The next open of the
//! same file with the same flags takes it again, so no more are parked than were ever open at one
//! time. They are closed at the first open or close that finds the other SQLite gone.

use std::io;
use std::path::PathBuf;
#[cfg(unix)]
use std::time::Duration;

use super::{Connection, FileId};

/// For how long a look that found no other SQLite in this process counts for closes.
#[cfg(unix)]
const FRESH: Duration = Duration::from_millis(100);

/// What [`Connection::foreign_sqlite`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherSqlite {
    /// The file that another SQLite has open: the database, its `-wal` or its `-shm`.
    pub file: PathBuf,
}

/// Closes put off, now and in vain.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeferredClose {
    /// Descriptors that are kept open for another SQLite's sake.
    pub waiting: usize,
    /// Closes that were carried out all the same, because too many were waiting.
    pub forced: u64,
}

impl Connection {
    /// Another SQLite of this process that has this connection's file open, if there is one.
    ///
    /// # Errors
    /// Where the process's descriptors cannot be listed.
    pub fn foreign_sqlite(&self) -> io::Result<Option<OtherSqlite>> {
        if self.file().is_none() {
            return Ok(None);
        }
        let mut files = Vec::with_capacity(3);
        for suffix in ["", "-wal", "-shm"] {
            let path = super::sidecar_path(self.path(), suffix);
            if let Ok(id) = FileId::of(&path) {
                files.push((path, id));
            }
        }
        platform::find(&files)
    }
}

/// Whether the process's descriptors can be listed here.
pub fn is_possible() -> bool {
    platform::is_possible()
}

/// Closes that were put off.
pub fn deferred() -> DeferredClose {
    platform::deferred()
}

#[cfg(unix)]
pub(super) use platform::{park, unknown_descriptors, unpark, would_lose_locks};

#[cfg(not(unix))]
mod platform {
    //! Locks belong to handles: nothing drops them, so there is nothing to look for.

    use super::{DeferredClose, FileId, OtherSqlite, PathBuf, io};

    pub(super) fn find(_: &[(PathBuf, FileId)]) -> io::Result<Option<OtherSqlite>> {
        Ok(None)
    }

    pub(super) fn is_possible() -> bool {
        false
    }

    pub(super) fn deferred() -> DeferredClose {
        DeferredClose::default()
    }
}

#[cfg(unix)]
mod platform {
    use std::ffi::{CStr, OsStr, c_char, c_int};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use parking_lot::{Mutex, MutexGuard};

    use super::super::descriptors::{self, Descriptors};
    use super::super::locks::hooks::{BUNDLED, CHANGING, NODES, Opened};
    use super::super::locks::ofd_locks::Inode;
    use super::super::locks::{self, LockKind};
    use super::{DeferredClose, FRESH, FileId, OtherSqlite, PathBuf, io};

    /// Descriptors that may be parked. Reached only by who opened as many at one time.
    const PARKING_SPACES: usize = 1024;

    /// Flags by which a parked descriptor stands in for one that is to be opened.
    const MATCHING: c_int = libc::O_ACCMODE | libc::O_NOFOLLOW | libc::O_CLOEXEC;

    /// Flags of an open that must not be answered with a descriptor that exists.
    const NEW: c_int = libc::O_EXCL | libc::O_TRUNC;

    /// A descriptor that this package no longer needs and does not close.
    #[derive(Debug)]
    struct Parked {
        fd: OwnedFd,
        opened: Opened,
    }

    static PARKED: Mutex<Vec<Parked>> = Mutex::new(Vec::new());
    static FORCED: AtomicU64 = AtomicU64::new(0);
    /// When a look began that found no other SQLite in this process, if none found one since.
    static CLEAR: Mutex<Option<Instant>> = Mutex::new(None);

    fn parked() -> MutexGuard<'static, Vec<Parked>> {
        PARKED.lock()
    }

    /// One descriptor of this process on a regular file.
    #[derive(Debug, Clone, Copy)]
    struct Descriptor {
        fd: RawFd,
        inode: Inode,
    }

    impl Descriptor {
        /// Whether a SQLite opened it.
        fn is_sqlites(self) -> bool {
            // SAFETY: F_GETFL takes no argument and touches no memory.
            let flags = unsafe { libc::fcntl(self.fd, libc::F_GETFL) };
            flags >= 0 && (flags & libc::O_NOFOLLOW != 0 || flags & libc::O_ACCMODE == libc::O_RDWR)
        }
    }

    /// The process's descriptors on regular files, without those that are `known`.
    fn others(known: &Descriptors) -> io::Result<Vec<Descriptor>> {
        // A descriptor that is closed meanwhile is left out.
        let file = |fd| {
            status(fd).and_then(|stat| regular_file(&stat)).map(|inode| Descriptor { fd, inode })
        };
        Ok(descriptors::others(known)?.into_iter().filter_map(file).collect())
    }

    /// Descriptors that the bundled copy uses, and those that wait for another SQLite to go.
    fn bundled() -> Descriptors {
        let mut known = BUNDLED.descriptors();
        for it in parked().iter() {
            known.insert(it.fd.as_raw_fd());
        }
        known
    }

    fn status(fd: RawFd) -> Option<libc::stat> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: fstat fills the whole structure when it succeeds, and only then is it read.
        unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| stat.assume_init()) }
    }

    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    fn regular_file(stat: &libc::stat) -> Option<Inode> {
        (stat.st_mode & libc::S_IFMT == libc::S_IFREG)
            .then_some((stat.st_dev as u64, stat.st_ino as u64))
    }

    /// Files that are open in this process through descriptors that the bundled copy did not open.
    pub(crate) fn unknown_descriptors() -> io::Result<Vec<Inode>> {
        Ok(others(&bundled())?.into_iter().map(|it| it.inode).collect())
    }

    /// Files among those that `wanted` picks that another SQLite has open.
    fn foreign_files(wanted: impl Fn(Inode) -> bool) -> io::Result<Vec<Inode>> {
        // One whose locks a close cannot drop is no danger.
        let look = || -> io::Result<Vec<Inode>> {
            let mut known = bundled();
            known.add(&NODES.protected_descriptors());
            let mut found = others(&known)?;
            found.retain(|it| it.is_sqlites());
            Ok(found.into_iter().map(|it| it.inode).collect())
        };
        let began = Instant::now();
        let mut found = look()?;
        if found.iter().any(|inode| wanted(*inode)) {
            // Another thread may just be opening or closing one of our own.
            let _still = CHANGING.write();
            found = look()?;
        }
        *clear() = found.is_empty().then_some(began);
        found.retain(|inode| wanted(*inode));
        Ok(found)
    }

    /// Whether another SQLite of this process has a lock on `inode`. `spare` is a descriptor of it,
    /// where this package may have none open.
    fn is_locked_here(inode: Inode, spare: Option<RawFd>) -> bool {
        let found = locks::kind() == LockKind::Ofd && BUNDLED.is_shared_with_process(inode, spare);
        if found {
            *clear() = None;
        }
        found
    }

    fn clear() -> MutexGuard<'static, Option<Instant>> {
        CLEAR.lock()
    }

    pub(super) fn find(files: &[(PathBuf, FileId)]) -> io::Result<Option<OtherSqlite>> {
        let is_locked = |id: &FileId| is_locked_here((id.device, id.inode), None);
        if let Some((file, _)) = files.iter().find(|(_, id)| is_locked(id)) {
            return Ok(Some(OtherSqlite { file: file.clone() }));
        }
        let of = |inode: Inode| {
            files.iter().find(|(_, id)| (id.device, id.inode) == inode).map(|(path, _)| path)
        };
        let found = foreign_files(|inode| of(inode).is_some())?;
        Ok(found
            .first()
            .and_then(|inode| of(*inode))
            .map(|file| OtherSqlite { file: file.clone() }))
    }

    pub(super) fn is_possible() -> bool {
        descriptors::is_possible()
    }

    pub(super) fn deferred() -> DeferredClose {
        DeferredClose {
            waiting: parked().len() + BUNDLED.idle().len(),
            forced: FORCED.load(Ordering::Relaxed),
        }
    }

    /// Whether closing `fd`, a descriptor on `inode`, would drop another SQLite's locks. Closes what
    /// was parked for others that have gone. Not to be called while [`CHANGING`] is held.
    ///
    /// Where descriptors cannot be listed the locks that there are at the moment say it.
    pub(crate) fn would_lose_locks(fd: RawFd, inode: Inode) -> bool {
        let waiting: Vec<Inode> =
            parked().iter().map(|it| it.opened.inode).chain(BUNDLED.idle()).collect();
        let is_clear = || clear().is_some_and(|at| at.elapsed() < FRESH);
        if waiting.is_empty() && is_clear() && BUNDLED.is_alone(fd) {
            return false;
        }
        // None that waits for another file's sake is to be looked after.
        if waiting.iter().all(|it| *it == inode) && is_locked_here(inode, Some(fd)) {
            return true;
        }
        let foreign = foreign_files(|it| it == inode || waiting.contains(&it));
        let foreign = foreign.unwrap_or_else(|_| {
            let mut files = waiting.clone();
            files.push(inode);
            files.retain(|it| is_locked_here(*it, (*it == inode).then_some(fd).or(parked_on(*it))));
            files
        });
        for inode in waiting {
            if !foreign.contains(&inode) {
                release(inode);
            }
        }
        foreign.contains(&inode)
    }

    /// Takes `fd`, which the bundled SQLite no longer uses, and keeps it open. Answers whether
    /// there was room. To be called with [`CHANGING`] held for reading.
    pub(crate) fn park(fd: RawFd, opened: Opened) -> bool {
        let mut parked = parked();
        if parked.len() >= PARKING_SPACES {
            FORCED.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // SAFETY: SQLite closes a descriptor that it opened itself and does not use it again.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        parked.push(Parked { fd, opened });
        true
    }

    /// A parked descriptor of `inode`.
    fn parked_on(inode: Inode) -> Option<RawFd> {
        parked().iter().find(|it| it.opened.inode == inode).map(|it| it.fd.as_raw_fd())
    }

    /// Closes what is kept of `inode`.
    fn release(inode: Inode) {
        BUNDLED.release(inode);
        let _changing = CHANGING.read();
        let gone: Vec<Parked> = parked().extract_if(.., |it| it.opened.inode == inode).collect();
        drop(gone);
    }

    /// A parked descriptor for an open of `path` with `flags`, if there is one. To be called with
    /// [`CHANGING`] held for reading, until the caller has recorded the descriptor as its own.
    ///
    /// # Safety
    /// `path` is null, or ends with NUL and is valid during the call.
    pub(crate) unsafe fn unpark(path: *const c_char, flags: c_int) -> Option<(RawFd, Opened)> {
        if path.is_null() || flags & NEW != 0 || parked().is_empty() {
            return None;
        }
        // SAFETY: the caller's promise.
        let path = unsafe { CStr::from_ptr(path) };
        let metadata = std::fs::symlink_metadata(Path::new(OsStr::from_bytes(path.to_bytes())));
        let inode = metadata.map(|it| (it.dev(), it.ino())).ok()?;
        let mut parked = parked();
        let fits = |it: &Parked| {
            it.opened.inode == inode && it.opened.flags & MATCHING == flags & MATCHING
        };
        let index = parked.iter().position(fits)?;
        let Parked { fd, opened } = parked.swap_remove(index);
        Some((fd.into_raw_fd(), opened))
    }
}
