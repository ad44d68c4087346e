//! The system calls of a copy of SQLite, replaced (`sqlite3_vfs.xSetSystemCall`), and what is
//! known of its descriptors thereby.
//!
//! | call | replaced for |
//! |---|---|
//! | `fcntl` | locks: see [`LockTable`] |
//! | `close` | the members of the lock space; closes that would drop another SQLite's locks |
//! | `open` | recording which descriptors are this copy's |
//! | `mmap` | where indexes of WALs are: see [`ShmMaps`] |
//!
//! There are two copies at most: the bundled one, and Node's own if it asked for protection
//! ([`super::node_sqlite`]). A replacement gets no context argument, so each copy has functions of
//! its own, made from [`Hooked`].

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_short, c_void};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rusqlite::ffi;

use super::ofd_locks::{self, Closing, Commands, Errno, Inode, LockTable};
use super::open_sidecars::OpenSidecars;
use super::shm_validation::ShmMaps;
use crate::engine::cause;
use crate::engine::descriptors::Descriptors;
use crate::engine::{other_sqlite, regular};

/// A system call as `xSetSystemCall` takes it.
type Syscall = unsafe extern "C" fn();

/// Answers a lock request: 0, or an error number.
type Request = unsafe extern "C" fn(c_int, c_int, *mut libc::flock) -> c_int;

unsafe extern "C" {
    /// Stores `request` and returns the variadic function that calls it (`fcntl.c`).
    fn fusion_bundled_fcntl(request: Request) -> Option<Syscall>;
    /// The same for Node's copy.
    fn fusion_node_fcntl(request: Request) -> Option<Syscall>;
}

/// A copy of SQLite in this process: a lock owner, and its descriptors.
#[derive(Debug)]
pub(crate) struct SqliteCopy {
    pub(super) space: LockTable,
    opened: Mutex<OpenedFiles>,
    indexes: ShmMaps,
    sidecars: Mutex<OpenSidecars>,
}

/// The descriptors that a copy opened.
#[derive(Debug)]
struct OpenedFiles {
    files: BTreeMap<RawFd, Opened>,
    /// The keys.
    descriptors: Descriptors,
}

impl OpenedFiles {
    fn insert(&mut self, fd: RawFd, opened: Opened) {
        self.files.insert(fd, opened);
        self.descriptors.insert(fd);
    }

    fn remove(&mut self, fd: RawFd) -> Option<Opened> {
        self.descriptors.remove(fd);
        self.files.remove(&fd)
    }
}

/// A descriptor that a copy opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    /// What it is open on.
    pub inode: Inode,
    /// With which flags.
    pub flags: c_int,
    /// Whether locks are taken on such a file. None are on a `-wal` or a rollback journal.
    pub lockable: bool,
}

/// The SQLite in this addon.
pub(crate) static BUNDLED: SqliteCopy = SqliteCopy::new();

/// The SQLite in the node binary.
pub(crate) static NODES: SqliteCopy = SqliteCopy::new();

/// Held for reading while a descriptor of a copy exists that is not recorded yet, or no longer
/// recorded. While it is held for writing, every descriptor of every copy is recorded. No thread
/// locks it for reading twice. It is taken before the mutexes of this module and of [`ofd_locks`].
pub(crate) static CHANGING: RwLock<()> = RwLock::new(());

impl SqliteCopy {
    const fn new() -> Self {
        Self {
            space: LockTable::new(Commands::OFD),
            opened: Mutex::new(OpenedFiles {
                files: BTreeMap::new(),
                descriptors: Descriptors::new(),
            }),
            indexes: ShmMaps::new(),
            sidecars: Mutex::new(OpenSidecars::new()),
        }
    }

    fn opened(&self) -> MutexGuard<'_, OpenedFiles> {
        self.opened.lock()
    }

    /// Records a descriptor that SQLite has opened.
    ///
    /// # Safety
    /// `path` is null, or ends with NUL and is valid during the call.
    unsafe fn record(&self, path: *const c_char, fd: RawFd, opened: Opened) {
        self.opened().insert(fd, opened);
        // SAFETY: the caller's promise.
        if unsafe { is_index(path) } {
            self.indexes.opened(fd);
        }
        if !path.is_null() {
            // SAFETY: the caller's promise.
            self.sidecars.lock().opened(unsafe { CStr::from_ptr(path) }, fd);
        }
    }

    /// Whether this copy has a `-shm` of the database file `database` open that is not at its path.
    pub(crate) fn has_stale_index(&self, database: Inode) -> bool {
        self.sidecars.lock().has_stale_index(database)
    }

    /// Carries out a lock request.
    fn request(&self, fd: RawFd, cmd: c_int, lock: &mut libc::flock) -> Result<(), Errno> {
        if cmd == libc::F_GETLK {
            return self.space.request(fd, cmd, lock);
        }
        self.indexes.before(fd, lock);
        self.space.request(fd, cmd, lock)?;
        let kept = self.indexes.given(fd, lock);
        if kept.is_err() {
            let mut unlock = *lock;
            unlock.l_type = ofd_locks::UNLOCK;
            self.space.request(fd, libc::F_SETLK, &mut unlock)?;
        }
        kept
    }

    /// Takes or gives back SQLite's pending lock on a file: see [`LockTable::set`].
    pub(crate) fn pending(&self, file: Inode, kind: c_short) -> Result<bool, Errno> {
        const PENDING_BYTE: i64 = 0x4000_0000;
        self.space.set(file, &mut ofd_locks::flock(kind, PENDING_BYTE, 1))
    }

    /// Whether another process, or another SQLite of this one, has a lock on `length` bytes of the
    /// file from `start` on (0: to its end). This copy has a descriptor of the file.
    pub(crate) fn is_locked_by_others(&self, file: Inode, start: i64, length: i64) -> bool {
        let opened = self.opened();
        let found = opened.files.iter().find(|(_, it)| it.inode == file && it.lockable);
        let Some(fd) = found.map(|(fd, _)| *fd) else { return false };
        drop(opened);
        let mut lock = ofd_locks::flock(ofd_locks::WRITE, start, length);
        self.space.request(fd, libc::F_GETLK, &mut lock).is_ok() && lock.l_type != ofd_locks::UNLOCK
    }

    /// Whether this process has POSIX locks on `file` that are not this copy's: see
    /// [`LockTable::is_shared_with_process`]. `spare` is a descriptor of it, where this copy may have
    /// none open.
    pub(crate) fn is_shared_with_process(&self, file: Inode, spare: Option<RawFd>) -> bool {
        let own = || self.opened().files.iter().find(|(_, it)| it.inode == file).map(|(fd, _)| *fd);
        self.space.is_shared_with_process(file, spare.or_else(own))
    }

    /// Descriptors that this copy opened and that are open, and those that its space keeps.
    pub(crate) fn descriptors(&self) -> Descriptors {
        let mut descriptors = self.opened().descriptors.clone();
        descriptors.add(&self.space.kept());
        descriptors
    }

    /// The same without those of files on which its locks may be POSIX locks although the shim is
    /// installed.
    pub(crate) fn protected_descriptors(&self) -> Descriptors {
        let mut descriptors = self.descriptors();
        let excluded = self.space.excluded();
        for (fd, opened) in &self.opened().files {
            if excluded.contains(&opened.inode) {
                descriptors.remove(*fd);
            }
        }
        descriptors
    }

    /// Whether no other process or description has a lock on the file of `fd` at this moment.
    /// `false` where it cannot be known.
    pub(crate) fn is_alone(&self, fd: RawFd) -> bool {
        self.space.is_alone(fd)
    }

    /// Files whose last lock is gone and that are kept for [`Self::release`].
    pub(crate) fn idle(&self) -> Vec<Inode> {
        self.space.idle()
    }

    /// Closes what is left of `file` if it is idle.
    pub(crate) fn release(&self, file: Inode) {
        let _changing = CHANGING.read();
        self.space.release(file);
    }
}

/// A copy as a type, from which its replacements are made.
trait Hooked {
    /// Whether a close is put off while it would drop another SQLite's locks.
    const CONSIDERATE: bool;
    fn copy() -> &'static SqliteCopy;
    fn fcntl() -> Option<Syscall>;
}

/// See [`BUNDLED`].
struct Bundled;

impl Hooked for Bundled {
    const CONSIDERATE: bool = true;
    fn copy() -> &'static SqliteCopy {
        &BUNDLED
    }
    fn fcntl() -> Option<Syscall> {
        // SAFETY: stores a pointer to a static function; called once, before SQLite uses it.
        unsafe { fusion_bundled_fcntl(request::<Self>) }
    }
}

/// See [`NODES`].
struct Nodes;

impl Hooked for Nodes {
    // Its descriptors are protected from others, and others' from it as little as without us.
    const CONSIDERATE: bool = false;
    fn copy() -> &'static SqliteCopy {
        &NODES
    }
    fn fcntl() -> Option<Syscall> {
        // SAFETY: as above.
        unsafe { fusion_node_fcntl(request::<Self>) }
    }
}

/// The lock requests of a copy: 0, or an error number.
unsafe extern "C" fn request<H: Hooked>(fd: c_int, cmd: c_int, lock: *mut libc::flock) -> c_int {
    // SAFETY: SQLite passes a flock of its own to every locking command, valid and unshared
    // during the call.
    let Some(lock) = (unsafe { lock.as_mut() }) else {
        return libc::EFAULT;
    };
    // Unwind-safe: the space's mutexes tolerate poison, and an answer of EIO has no result in
    // `lock`.
    let request = AssertUnwindSafe(|| H::copy().request(fd, cmd, lock).err().unwrap_or(0));
    let errno = catch_unwind(request).unwrap_or(libc::EIO);
    if errno != 0 {
        cause::note_lock(errno);
    }
    errno
}

/// `open(2)` for a copy. SQLite calls it with exactly three arguments.
unsafe extern "C" fn open<H: Hooked>(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    let _changing = CHANGING.read();
    if H::CONSIDERATE && !path.is_null() {
        // SAFETY: SQLite passes a path that ends with NUL and is valid during the call.
        let path = unsafe { CStr::from_ptr(path) };
        let allowed = catch_unwind(AssertUnwindSafe(|| H::copy().sidecars.lock().allows(path)));
        if !allowed.unwrap_or(true) {
            cause::note_open(libc::ESTALE);
            set_errno(libc::ESTALE);
            return -1;
        }
    }
    if H::CONSIDERATE
        && let Ok(Some(fd)) = catch_unwind(|| {
            // SAFETY: SQLite passes a path that ends with NUL and is valid during the call.
            let (fd, opened) = unsafe { other_sqlite::unpark(path, flags) }?;
            // SAFETY: as above.
            unsafe { H::copy().record(path, fd, opened) };
            Some(fd)
        })
    {
        return fd;
    }
    let fd = if H::CONSIDERATE && !path.is_null() {
        // SAFETY: SQLite passes a path that ends with NUL and is valid during the call.
        regular::open_descriptor(unsafe { CStr::from_ptr(path) }, flags, mode)
    } else {
        // SAFETY: SQLite's own arguments.
        unsafe { libc::open(path, flags, mode) }
    };
    if fd < 0 {
        cause::note_open(cause::last_errno());
    } else {
        // A panic leaves the descriptor unknown: it would be taken for another SQLite's.
        let _ = catch_unwind(|| {
            if let Ok(inode) = ofd_locks::inode(fd) {
                // SAFETY: as above.
                let lockable = unsafe { is_lockable(path) };
                // SAFETY: as above.
                unsafe { H::copy().record(path, fd, Opened { inode, flags, lockable }) };
            }
        });
    }
    // errno is open's: nothing was called after it failed.
    fd
}

/// Sets the error number of the call that fails.
fn set_errno(errno: c_int) {
    #[cfg(target_vendor = "apple")]
    // SAFETY: the pointer is to this thread's error number.
    unsafe {
        *libc::__error() = errno;
    }
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: as above.
    unsafe {
        *libc::__errno_location() = errno;
    }
}

/// Whether SQLite takes locks on the file that it opens by this name.
///
/// # Safety
/// `path` is null, or ends with NUL and is valid during the call.
unsafe fn is_lockable(path: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !path.is_null() && !ends_with(path, b"-wal") && !ends_with(path, b"-journal") }
}

/// Whether SQLite opens the index of a WAL by this name.
///
/// # Safety
/// As [`is_lockable`].
unsafe fn is_index(path: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !path.is_null() && ends_with(path, b"-shm") }
}

/// # Safety
/// `path` ends with NUL and is valid during the call.
unsafe fn ends_with(path: *const c_char, end: &[u8]) -> bool {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(path) }.to_bytes().ends_with(end)
}

/// `mmap(2)` for a copy.
unsafe extern "C" fn mmap<H: Hooked>(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: SQLite's own arguments.
    let mapped = unsafe { libc::mmap(address, length, protection, flags, fd, offset) };
    if mapped != libc::MAP_FAILED {
        // What a panic leaves unknown is not looked at.
        let _ = catch_unwind(|| {
            mapped.expose_provenance();
            H::copy().indexes.mapped(fd, mapped, length, offset, protection);
        });
    }
    mapped
}

/// `close(2)` for a copy.
unsafe extern "C" fn close<H: Hooked>(fd: c_int) -> c_int {
    let copy = H::copy();
    let harmful = H::CONSIDERATE
        && catch_unwind(AssertUnwindSafe(|| {
            let opened = copy.opened().files.get(&fd).copied();
            opened.is_some_and(|it| it.lockable && other_sqlite::would_lose_locks(fd, it.inode))
        }))
        .unwrap_or(false);
    let _changing = CHANGING.read();
    // Forgotten first: once it is closed or parked, another thread may be given the same number.
    // A panic leaves the descriptor remembered, which is a leak; it stays open, since the space
    // may have kept it.
    let stays = catch_unwind(AssertUnwindSafe(|| {
        let closing = copy.space.forget(fd);
        let opened = copy.opened().remove(fd);
        copy.indexes.closed(fd);
        copy.sidecars.lock().closed(fd);
        if closing == Closing::Kept
            || harmful && opened.is_some_and(|opened| other_sqlite::park(fd, opened))
        {
            return true;
        }
        if let Closing::Last(inode) = closing {
            copy.space.release(inode);
        }
        false
    }));
    if stays.unwrap_or(true) {
        return 0;
    }
    // SAFETY: SQLite closes a descriptor that it opened itself.
    unsafe { libc::close(fd) }
}

/// Replaces the system calls of the bundled SQLite. With `locks`, its locks, too.
pub(super) fn install_bundled(locks: bool) -> Result<(), String> {
    // SAFETY: the VFS is a static of the bundled SQLite, and nothing is open yet.
    unsafe { install::<Bundled>(ffi::sqlite3_vfs_find(c"unix".as_ptr()), locks) }
}

/// Replaces the system calls of Node's SQLite, whose unix VFS is `vfs`.
///
/// # Safety
/// `vfs` is the unix VFS of another copy of SQLite than the bundled one. Its threads may be at
/// work meanwhile: a pointer of the table is read or written whole.
pub(super) unsafe fn install_nodes(vfs: *mut ffi::sqlite3_vfs) -> Result<(), String> {
    // SAFETY: the caller's promise.
    unsafe { install::<Nodes>(vfs, true) }
}

/// # Safety
/// `vfs` is null or the unix VFS of the copy that `H` stands for.
unsafe fn install<H: Hooked>(vfs: *mut ffi::sqlite3_vfs, locks: bool) -> Result<(), String> {
    // SAFETY: the unix VFSes of a copy are its statics and share one table of system calls. The
    // functions have the signatures that os_unix.c casts the entries "open", "close" and "fcntl"
    // to.
    unsafe {
        let set = vfs
            .as_ref()
            .filter(|vfs| vfs.iVersion >= 3)
            .and_then(|vfs| vfs.xSetSystemCall)
            .ok_or("this SQLite's VFS does not let its system calls be replaced")?;
        let close =
            std::mem::transmute::<unsafe extern "C" fn(c_int) -> c_int, Syscall>(close::<H>);
        let open = std::mem::transmute::<
            unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int,
            Syscall,
        >(open::<H>);
        let mmap = std::mem::transmute::<
            unsafe extern "C" fn(
                *mut c_void,
                usize,
                c_int,
                c_int,
                c_int,
                libc::off_t,
            ) -> *mut c_void,
            Syscall,
        >(mmap::<H>);
        // `close` first: with it alone nothing has changed, without it descriptors leak.
        let calls = [
            (c"close", Some(close)),
            (c"open", Some(open)),
            (c"mmap", locks.then_some(mmap)),
            (c"fcntl", if locks { H::fcntl() } else { None }),
        ];
        for (index, (name, call)) in calls.iter().enumerate() {
            // No function would mean the original one, which is there already.
            if call.is_some() && set(vfs, name.as_ptr(), *call) != ffi::SQLITE_OK {
                for (name, _) in calls.iter().take(index) {
                    set(vfs, name.as_ptr(), None);
                }
                return Err(format!(
                    "SQLite refused to have its {} replaced",
                    name.to_string_lossy()
                ));
            }
        }
    }
    Ok(())
}
