//! Open-file-description locks under SQLite's unix VFS.
//!
//! SQLite locks with `fcntl(F_SETLK)`. Those POSIX locks belong to the pair (process, inode), and
//! the kernel drops all of them when the process closes *any* descriptor on the inode: one
//! `fs.readFile` of the database, its `-wal` or its `-shm` and the process writes without a lock
//! (<https://sqlite.org/howtocorrupt.html>, 2.2). An open-file-description (OFD) lock belongs to
//! what `open` made, and nothing but its own last descriptor's close ends it
//! (<https://man7.org/linux/man-pages/man2/fcntl_locking.2.html>).
//!
//! [`hooks`] replaces SQLite's `fcntl` and `close` and gives them to a [`ofd_locks::LockTable`], which
//! turns POSIX lock requests into OFD lock requests. SQLite does not notice. [`install`] decides
//! once, before anything is opened: it tries both lock kinds on a temporary file. If OFD locks do
//! not hold, POSIX locks stay and [`fallback_reason`] says why.
//!
//! The hooks run on whatever thread is inside SQLite, with SQLite's mutexes held. They call the
//! kernel and nothing else. [`node_sqlite`] installs them in Node's own copy of SQLite, too.
//!
//! `FUSION_SQLITE_LOCKS=posix` in the environment leaves POSIX locks in place, for diagnosis.
//! Windows locks by handle and needs nothing.

#[cfg(unix)]
pub(super) mod hooks;
#[cfg(unix)]
pub mod node_sqlite;
#[cfg(unix)]
pub(super) mod ofd_locks;
#[cfg(unix)]
mod open_sidecars;
#[cfg(unix)]
mod shm_validation;

use std::sync::OnceLock;

/// How this process's SQLite locks database files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Open-file-description locks: no other descriptor of this process can drop them.
    Ofd,
    /// POSIX record locks: closing any descriptor on the file drops them.
    Posix,
    /// Windows's locks, which belong to the handle.
    Windows,
}

/// What [`install`] decided.
#[derive(Debug)]
struct Installed {
    kind: LockKind,
    fallback_reason: Option<String>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// The kind of locks in use. [`super::init`] decides it; before that, the platform's default.
pub fn kind() -> LockKind {
    let untouched = if cfg!(windows) { LockKind::Windows } else { LockKind::Posix };
    INSTALLED.get().map_or(untouched, |it| it.kind)
}

/// Why POSIX locks stayed in use; `None` where OFD locks were not given up.
pub fn fallback_reason() -> Option<&'static str> {
    INSTALLED.get().and_then(|it| it.fallback_reason.as_deref())
}

/// How many files, since this process began, were on a file system that refuses OFD locks and
/// were locked with POSIX locks although [`kind`] is [`LockKind::Ofd`].
pub fn posix_files() -> u64 {
    #[cfg(unix)]
    return hooks::BUNDLED.space.posix_files();
    #[cfg(not(unix))]
    0
}

/// The descriptor of this package's own that holds the locks of the file with this device and
/// inode. It is open for as long as a connection of this process has read the file and has it open.
#[cfg(unix)]
pub(super) fn descriptor(file: (u64, u64)) -> Option<std::os::fd::RawFd> {
    hooks::BUNDLED.space.canonical(file)
}

/// SQLite's PENDING lock on a file of this process. Until it is dropped no other process can open
/// the file (<https://sqlite.org/lockingv3.html>). Connections that have it open in WAL mode do not
/// take that lock.
#[derive(Debug)]
pub(super) struct PendingLock {
    #[cfg(unix)]
    file: (u64, u64),
}

impl PendingLock {
    /// Takes it. `Ok(None)`: this process has no OFD locks on the file, which has this device and
    /// inode. Not through SQLite, which refuses it in WAL mode while another process has the same
    /// index open (`unixIsSharingShmNode`).
    ///
    /// # Errors
    /// Another process holds it.
    pub(super) fn take(file: (u64, u64)) -> std::io::Result<Option<Self>> {
        #[cfg(unix)]
        {
            let taken = hooks::BUNDLED.pending(file, ofd_locks::WRITE);
            let taken = taken.map_err(std::io::Error::from_raw_os_error)?;
            Ok(taken.then_some(Self { file }))
        }
        #[cfg(not(unix))]
        {
            let _ = file;
            Ok(None)
        }
    }
}

#[cfg(unix)]
impl Drop for PendingLock {
    fn drop(&mut self) {
        // What cannot be given back is given back with the descriptor.
        let _ = hooks::BUNDLED.pending(self.file, ofd_locks::UNLOCK);
    }
}

/// Whether another process has a lock on the file with this device and inode, which this process
/// has open: on `length` bytes from `start` on (0: to its end). Windows: not asked for.
pub(super) fn is_locked_by_others(file: (u64, u64), start: i64, length: i64) -> bool {
    #[cfg(unix)]
    return hooks::BUNDLED.is_locked_by_others(file, start, length);
    #[cfg(not(unix))]
    {
        let _ = (file, start, length);
        false
    }
}

/// Whether this process's SQLite has a `-shm` of the database with this device and inode open that is
/// not at its path; `None` where that is not known: without open-file-description locks.
pub(super) fn has_stale_index(database: (u64, u64)) -> Option<bool> {
    #[cfg(unix)]
    return (kind() == LockKind::Ofd).then(|| hooks::BUNDLED.has_stale_index(database));
    #[cfg(not(unix))]
    {
        let _ = database;
        None
    }
}

/// Whether open-file-description locks hold in `directory`, or why not: the question that
/// [`install`] asks of the folders for temporary files.
#[cfg(unix)]
pub(super) fn hold_in(directory: &std::path::Path) -> Result<(), String> {
    unix::probe_in(directory)
}

/// Probes for open-file-description locks and installs them. Called once, before the first
/// connection is opened.
pub(super) fn install() {
    INSTALLED.get_or_init(|| {
        #[cfg(unix)]
        return match unix::install() {
            Ok(()) => Installed { kind: LockKind::Ofd, fallback_reason: None },
            Err(reason) => Installed { kind: LockKind::Posix, fallback_reason: Some(reason) },
        };
        #[cfg(not(unix))]
        Installed { kind: LockKind::Windows, fallback_reason: None }
    });
}

#[cfg(unix)]
mod unix {
    //! Installation into the bundled SQLite.

    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    use super::hooks;
    use super::ofd_locks::{self, Commands};

    /// Replaces the locks, or says why they were left alone.
    pub(super) fn install() -> Result<(), String> {
        let possible = is_possible();
        // Also without OFD locks: the `open` hook records which descriptors are this copy's.
        let hooked = hooks::install_bundled(possible.is_ok());
        possible.and(hooked)
    }

    fn is_possible() -> Result<(), String> {
        if std::env::var_os("FUSION_SQLITE_LOCKS").is_some_and(|kind| kind == "posix") {
            return Err("FUSION_SQLITE_LOCKS=posix is set in the environment".to_owned());
        }
        // SQLite's struct flock has 64-bit offsets even where the C library's default has not.
        if size_of::<libc::off_t>() != 8 {
            return Err("the platform's file offsets are not 64 bits wide".to_owned());
        }
        probe()
    }

    /// Whether OFD locks hold here, tried in the first directory that takes a file.
    fn probe() -> Result<(), String> {
        let directories = [
            std::env::temp_dir(),
            PathBuf::from("/dev/shm"),
            PathBuf::from("/var/tmp"),
            PathBuf::from("."),
        ];
        let mut reasons = Vec::new();
        for directory in directories {
            match probe_in(&directory) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(format!("{}: {reason}", directory.display())),
            }
        }
        Err(format!(
            "open-file-description locks could not be shown to work ({})",
            reasons.join("; ")
        ))
    }

    /// Two descriptions must conflict, and the close of a third must change nothing.
    pub(super) fn probe_in(directory: &Path) -> Result<(), String> {
        let [holder, other, foreign] =
            scratch(directory).map_err(|error| format!("no temporary file: {error}"))?;
        ofd_locks::try_write_lock(holder.as_raw_fd(), Commands::OFD)
            .map_err(|error| format!("not supported ({})", io::Error::from_raw_os_error(error)))?;
        let conflicts = || {
            matches!(
                ofd_locks::try_write_lock(other.as_raw_fd(), Commands::OFD),
                Err(libc::EAGAIN | libc::EACCES)
            )
        };
        if !conflicts() {
            return Err("two descriptions do not conflict".to_owned());
        }
        drop(foreign);
        if !conflicts() {
            return Err("a foreign close drops the lock".to_owned());
        }
        Ok(())
    }

    /// Three descriptions of one new file that is unlinked already.
    fn scratch(directory: &Path) -> io::Result<[File; 3]> {
        let mut attempt = 0_u32;
        let (path, first) = loop {
            let path =
                directory.join(format!(".fusion-sqlite-probe-{}-{attempt}", std::process::id()));
            let new = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
            match new {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let again = || OpenOptions::new().read(true).write(true).open(&path);
        let (second, third) = (again(), again());
        std::fs::remove_file(&path)?;
        Ok([first, second?, third?])
    }
}
