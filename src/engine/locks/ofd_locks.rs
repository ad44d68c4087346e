//! The locks of one copy of SQLite, held on open file descriptions.
//!
//! SQLite's unix VFS assumes POSIX's owner: the process. It takes a lock through the descriptor
//! of one connection and drops it through another's, and keeps its own account of which of its
//! connections may do what (`unixInodeInfo`). An OFD lock's owner is the open file description, so
//! every request for an inode has to go through *one* description, whichever descriptor SQLite
//! names: that of the first descriptor through which a lock was requested, the *canonical* one.
//! No descriptor is made for it. A [`LockTable`] *keeps* SQLite's own where SQLite closes it while
//! others of the inode are in use.
//!
//! # Invariants
//!
//! 1. A descriptor is a *member* of exactly the file that `fstat` reported at its first lock
//!    request, until the `close` hook. Descriptor numbers are reused, so the hook forgets a member
//!    before the descriptor is closed.
//! 2. All locks of a file are held by its canonical description. Otherwise two connections of
//!    this process would conflict where SQLite knows that they do not.
//! 3. The canonical description lives as long as the file has members: the `close` hook does not
//!    close its descriptor while there are others, but leaves it to the space ([`Closing::Kept`]).
//!    So a file has one descriptor more than SQLite uses at most (two after a move, see 5), and a
//!    process that opens thousands of files does not run out of them. What is kept outlives the
//!    last member only while another SQLite's POSIX locks on the inode would be dropped by its
//!    close, until [`LockTable::release`]: the file is then *idle*, without a lock.
//! 4. At the end all locks are dropped explicitly. SQLite drops the `-shm`'s dead-man-switch lock
//!    by closing alone, but a child between `fork` and `exec` holds a copy of every descriptor,
//!    and with it the description.
//! 5. Only a writable description can hold a write lock. While the canonical one is read-only
//!    (a read-only connection came first) it holds read locks only, and they are written down:
//!    the first write lock through a writable member moves them to that member's description.
//!    Read locks do not conflict, so both hold them for a moment, and no other process sees a gap.
//! 6. A write lock through a read-only member is EBADF, as it is with POSIX locks: the canonical
//!    description may be able to, but SQLite must see its own descriptor's limits.
//! 7. Where the file system refuses OFD locks at the file's first request, that file stays on
//!    POSIX locks until its last member is closed.
//! 8. A file that was open before the space got its copy of SQLite's requests may be locked with
//!    POSIX locks already, and a copy that holds both kinds on one inode conflicts with itself.
//!    Such a file is [excluded](LockTable::exclude): it stays on POSIX locks for good. So does
//!    every file that is locked while the space is still [passing requests through](LockTable::passthrough).
//!
//! # Locking
//!
//! `table` is held for look-ups, never during a lock request. `Locks` of one file is held during
//! its requests (a stalled network file system stalls its own files only). No thread holds both,
//! and nothing else is locked below them; SQLite's own mutexes are above. A request that waits
//! (`F_SETLKW`, which the bundled SQLite does not make) polls, because waiting with the mutex
//! held would keep other threads from dropping the lock that another process waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_short};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::engine::descriptors::Descriptors;

const READ: c_short = libc::F_RDLCK as c_short;
pub(super) const WRITE: c_short = libc::F_WRLCK as c_short;
pub(super) const UNLOCK: c_short = libc::F_UNLCK as c_short;
const FROM_START: c_short = libc::SEEK_SET as c_short;

/// What SQLite locks, start and length: of a database the pending, the reserved and the shared bytes
/// (<https://sqlite.org/lockingv3.html>), of a `-shm` eight locks and the dead man's switch
/// (<https://sqlite.org/walformat.html#wal_locks>).
const LOCKED: [(libc::off_t, libc::off_t); 12] = [
    (0x4000_0000, 1),
    (0x4000_0001, 1),
    (0x4000_0002, 510),
    (120, 1),
    (121, 1),
    (122, 1),
    (123, 1),
    (124, 1),
    (125, 1),
    (126, 1),
    (127, 1),
    (128, 1),
];

/// How often a waiting request tries again.
const POLL: Duration = Duration::from_millis(1);

/// A `errno` value.
pub(in crate::engine) type Errno = c_int;

/// What the table asks the system: a test replaces it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Commands {
    /// The `fcntl` commands that lock an open file description.
    set: c_int,
    get: c_int,
    /// Device and inode number of a descriptor's file.
    inode: fn(RawFd) -> Result<Inode, Errno>,
    /// Whether they are the file's for its whole life.
    identifies: fn(RawFd) -> bool,
}

impl Commands {
    /// Linux since 3.15, and XNU, where the numbers are others.
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    pub(in crate::engine) const OFD: Self =
        Self { set: libc::F_OFD_SETLK, get: libc::F_OFD_GETLK, inode, identifies };
    /// No other system has them. No command has this number: EINVAL.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    pub(in crate::engine) const OFD: Self = Self { set: -1, get: -1, inode, identifies };
}

/// On macOS all empty files of a FAT volume have one inode number, and get their own with their
/// first byte (`FILENO_EMPTY` in msdosfs's `fat.h`; SQLite's `findInodeInfo` writes that byte
/// first). A `-shm` is empty when it is first locked. So files there have no key, and keep POSIX
/// locks.
#[cfg(target_vendor = "apple")]
fn identifies(fd: RawFd) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs fills the whole structure when it succeeds, and only then is it read. The
    // type's name is NUL-terminated.
    let name = unsafe {
        if libc::fstatfs(fd, stat.as_mut_ptr()) != 0 {
            return false;
        }
        std::ffi::CStr::from_ptr(stat.assume_init_ref().f_fstypename.as_ptr()).to_bytes().to_vec()
    };
    !name.starts_with(b"msdos") && !name.starts_with(b"exfat")
}

/// Elsewhere a file has one inode number.
#[cfg(not(target_vendor = "apple"))]
const fn identifies(_: RawFd) -> bool {
    true
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Set,
    Get,
}

/// The lock owner that one copy of SQLite is. See the module's documentation.
#[derive(Debug)]
pub(super) struct LockTable {
    commands: Commands,
    table: Mutex<Table>,
    posix_files: AtomicU64,
    /// Whether requests pass through as POSIX locks, and exclude their files.
    passthrough: AtomicBool,
    /// Descriptors that SQLite closed and the space keeps.
    kept: Mutex<Descriptors>,
}

/// Who belongs to which file.
#[derive(Debug)]
struct Table {
    members: BTreeMap<RawFd, Member>,
    files: BTreeMap<Inode, Listed>,
    /// Files without members or locks of which a descriptor is kept.
    idle: Vec<Arc<File>>,
    /// Files that stay on POSIX locks.
    excluded: BTreeSet<Inode>,
}

/// Device and inode number.
pub(crate) type Inode = (u64, u64);

/// A file in the table.
#[derive(Debug)]
struct Listed {
    file: Arc<File>,
    members: usize,
}

/// A descriptor of SQLite's through which a lock has been requested.
#[derive(Debug, Clone)]
struct Member {
    file: Arc<File>,
    writable: bool,
}

/// A file that has been locked.
#[derive(Debug)]
struct File {
    inode: Inode,
    locks: Mutex<Locks>,
}

/// What the `close` hook has to do about a descriptor that the space has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Close it: no lock depends on it.
    Free,
    /// Leave it open: the space keeps it.
    Kept,
    /// Close it; it was the file's last member. What is kept of the file waits for
    /// [`LockTable::release`].
    Last(Inode),
}

/// Who holds a file's locks. `Undecided` becomes one of the others at the first request that the
/// file system answers, and neither changes into the other.
#[derive(Debug)]
enum Locks {
    Undecided,
    Description(LockDescription),
    Posix,
}

/// The description that holds a file's locks.
#[derive(Debug)]
struct LockDescription {
    /// A member's, or the last of `kept`.
    fd: RawFd,
    writable: bool,
    /// The read locks held. Kept only while `writable` is false.
    reads: Ranges,
    /// Descriptors that SQLite closed while their description was the canonical one: this one's,
    /// and the read-only one's that held the locks before. See invariant 3.
    kept: Vec<OwnedFd>,
}

impl LockTable {
    /// A space that holds nothing and locks with `commands`.
    pub(super) const fn new(commands: Commands) -> Self {
        Self {
            commands,
            table: Mutex::new(Table {
                members: BTreeMap::new(),
                files: BTreeMap::new(),
                idle: Vec::new(),
                excluded: BTreeSet::new(),
            }),
            posix_files: AtomicU64::new(0),
            passthrough: AtomicBool::new(false),
            kept: Mutex::new(Descriptors::new()),
        }
    }

    /// Begins or ends passing requests through.
    pub(super) fn passthrough(&self, yes: bool) {
        self.passthrough.store(yes, Ordering::SeqCst);
    }

    /// Leaves `file` to POSIX locks for good.
    pub(super) fn exclude(&self, file: Inode) {
        self.table().excluded.insert(file);
    }

    /// Files that were left to POSIX locks.
    pub(super) fn excluded(&self) -> BTreeSet<Inode> {
        self.table().excluded.clone()
    }

    /// Descriptors that SQLite closed and the space keeps.
    pub(super) fn kept(&self) -> MutexGuard<'_, Descriptors> {
        self.kept.lock()
    }

    /// Whether this process has POSIX locks on `file` that are not this space's: those of another
    /// SQLite, which the close of a descriptor would drop. The system says so exactly, in one question
    /// or a dozen, whatever else is open. One that another process's lock hides is not seen: of
    /// several on one byte the system names the first.
    ///
    /// `spare` is a descriptor of the file, for one that has no members yet. False where it cannot be
    /// known: where locks of this space may be POSIX locks, too.
    pub(super) fn is_shared_with_process(&self, file: Inode, spare: Option<RawFd>) -> bool {
        let table = self.table();
        let listed = table.files.get(&file).map(|listed| &listed.file);
        let listed = listed.or_else(|| table.idle.iter().find(|it| it.inode == file)).cloned();
        drop(table);
        let locks = listed.as_deref().map(File::locks);
        let fd = match (locks.as_deref(), spare) {
            (Some(Locks::Description(canonical)), _) => canonical.fd,
            (Some(Locks::Undecided) | None, Some(spare)) if (self.commands.identifies)(spare) => {
                spare
            }
            _ => return false,
        };
        let own = std::process::id();
        let is_own = |(start, length): (libc::off_t, libc::off_t)| {
            in_the_way(fd, start, length, self.commands)
                .map(|found| found.map(|it| u32::try_from(it.process) == Ok(own)))
        };
        match is_own((0, 0)) {
            Ok(Some(false)) => LOCKED.iter().any(|range| is_own(*range) == Ok(Some(true))),
            answer => answer == Ok(Some(true)),
        }
    }

    /// Whether only this space holds locks on the file of `fd` at this moment: no other
    /// process, and no other SQLite of this one. `false` where it cannot be known.
    pub(super) fn is_alone(&self, fd: RawFd) -> bool {
        let member = self.table().members.get(&fd).cloned();
        let locks = member.as_ref().map(|member| member.file.locks());
        let fd = match locks.as_deref() {
            Some(Locks::Description(canonical)) => canonical.fd,
            // A process does not see its own POSIX locks.
            Some(Locks::Posix) => return false,
            Some(Locks::Undecided) | None => fd,
        };
        in_the_way(fd, 0, 0, self.commands) == Ok(None)
    }

    /// The descriptor that holds the locks of `file`, if one does. It stays open as long as the
    /// file has members.
    pub(super) fn canonical(&self, file: Inode) -> Option<RawFd> {
        let file = Arc::clone(&self.table().files.get(&file)?.file);
        match &*file.locks() {
            Locks::Description(canonical) => Some(canonical.fd.as_raw_fd()),
            Locks::Undecided | Locks::Posix => None,
        }
    }

    /// Sets `lock` on `file` through the description that holds its locks. `Ok(false)`: it has none
    /// that can, because its locks are POSIX locks, or it is not open.
    pub(super) fn set(&self, file: Inode, lock: &mut libc::flock) -> Result<bool, Errno> {
        let Some(file) = self.table().files.get(&file).map(|listed| Arc::clone(&listed.file))
        else {
            return Ok(false);
        };
        match &mut *file.locks() {
            Locks::Description(canonical) if canonical.writable => {
                canonical.request(Request::Set, lock, self.commands).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Files that have no members and are kept for [`Self::release`].
    pub(super) fn idle(&self) -> Vec<Inode> {
        self.table().idle.iter().map(|file| file.inode).collect()
    }

    /// Closes what is left of `inode` if it is idle.
    pub(super) fn release(&self, inode: Inode) {
        let gone: Vec<_> = self.table().idle.extract_if(.., |file| file.inode == inode).collect();
        for file in gone {
            self.disown(&file);
        }
    }

    /// Forgets what is kept of `file`, which is about to be closed.
    fn disown(&self, file: &File) {
        if let Locks::Description(canonical) = &*file.locks() {
            let mut kept = self.kept();
            for fd in &canonical.kept {
                kept.remove(fd.as_raw_fd());
            }
        }
    }

    /// Files that fell back to POSIX locks so far.
    pub(super) fn posix_files(&self) -> u64 {
        self.posix_files.load(Ordering::Relaxed)
    }

    /// `fcntl(fd, F_SETLK | F_SETLKW | F_GETLK, lock)`.
    pub(super) fn request(
        &self,
        fd: RawFd,
        cmd: c_int,
        lock: &mut libc::flock,
    ) -> Result<(), Errno> {
        // SQLite's requests all have this form, and ranges are kept in it.
        if lock.l_whence != FROM_START || lock.l_start < 0 || lock.l_len < 0 {
            return Err(libc::EINVAL);
        }
        let request = if cmd == libc::F_GETLK { Request::Get } else { Request::Set };
        if self.passthrough.load(Ordering::SeqCst) {
            // SQLite makes one request for an inode at a time, so the next one finds it excluded.
            self.exclude((self.commands.inode)(fd)?);
            return posix(fd, request, lock);
        }
        let known = self.table().members.get(&fd).cloned();
        let member = match known {
            Some(member) => member,
            None if !(self.commands.identifies)(fd) => return posix(fd, request, lock),
            // A question decides nothing and allocates nothing. Where it fails, SQLite on macOS
            // locks with a file of its own for the connection's life (`autolockIoFinder`).
            None if request == Request::Get => {
                return ofd(fd, request, lock, self.commands).or_else(|_| posix(fd, request, lock));
            }
            None => self.member(fd)?,
        };
        loop {
            match self.attempt(&member, fd, request, lock) {
                Err(libc::EAGAIN | libc::EACCES) if cmd == libc::F_SETLKW => {
                    std::thread::sleep(POLL);
                }
                answer => return answer,
            }
        }
    }

    /// Forgets `fd`, which SQLite closes. Afterwards the file's locks do not depend on whether it
    /// is closed, unless it is kept. With the last member all locks are dropped.
    pub(super) fn forget(&self, fd: RawFd) -> Closing {
        let mut table = self.table();
        let Some(member) = table.members.remove(&fd) else { return Closing::Free };
        let inode = member.file.inode;
        let Some(listed) = table.files.get_mut(&inode) else { return Closing::Free };
        listed.members = listed.members.saturating_sub(1);
        if listed.members > 0 {
            drop(table);
            return self.keep(&member.file, fd);
        }
        // A member that comes before this one is idle gets a description of its own.
        table.files.remove(&inode);
        drop(table);
        if member.file.retire(self.commands) {
            self.table().idle.push(member.file);
        }
        Closing::Last(inode)
    }

    /// Keeps `fd`, which was a member of `file`, if its description has the locks.
    fn keep(&self, file: &File, fd: RawFd) -> Closing {
        let Locks::Description(canonical) = &mut *file.locks() else { return Closing::Free };
        if canonical.fd != fd {
            return Closing::Free;
        }
        self.kept().insert(fd);
        // SAFETY: SQLite closes a descriptor that it opened, and does not use it again; the hook
        // leaves it open.
        canonical.kept.push(unsafe { OwnedFd::from_raw_fd(fd) });
        Closing::Kept
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// The membership of `fd`, made at its first request.
    fn member(&self, fd: RawFd) -> Result<Member, Errno> {
        let inode = (self.commands.inode)(fd)?;
        let writable = is_writable(fd)?;
        let mut table = self.table();
        if let Some(member) = table.members.get(&fd) {
            // Another thread's first request came in between.
            return Ok(member.clone());
        }
        let Table { files, idle, excluded, .. } = &mut *table;
        let listed = files.entry(inode).or_insert_with(|| {
            let again = idle.iter().position(|file| file.inode == inode);
            let file = again.map(|index| idle.swap_remove(index)).unwrap_or_else(|| {
                let posix = excluded.contains(&inode);
                let locks = if posix { Locks::Posix } else { Locks::Undecided };
                Arc::new(File { inode, locks: Mutex::new(locks) })
            });
            Listed { file, members: 0 }
        });
        listed.members += 1;
        let member = Member { file: Arc::clone(&listed.file), writable };
        table.members.insert(fd, member.clone());
        Ok(member)
    }

    fn attempt(
        &self,
        member: &Member,
        fd: RawFd,
        request: Request,
        lock: &mut libc::flock,
    ) -> Result<(), Errno> {
        let writes = request == Request::Set && lock.l_type == WRITE;
        if writes && !member.writable {
            return Err(libc::EBADF);
        }
        let mut locks = member.file.locks();
        match &mut *locks {
            Locks::Posix => posix(fd, request, lock),
            Locks::Description(canonical) => {
                if writes && !canonical.writable {
                    canonical.migrate(fd, self.commands)?;
                }
                canonical.request(request, lock, self.commands)
            }
            Locks::Undecided => {
                // Through SQLite's own descriptor, which is of the description to be.
                match ofd(fd, request, lock, self.commands) {
                    // EINVAL and its kin may mean that the file system has no OFD locks. If it
                    // has no locks at all, POSIX's answer is the one to give.
                    Err(error) if may_be_unsupported(error) => {
                        let answer = posix(fd, request, lock);
                        if matches!(answer, Ok(()) | Err(libc::EAGAIN | libc::EACCES)) {
                            *locks = Locks::Posix;
                            self.posix_files.fetch_add(1, Ordering::Relaxed);
                        }
                        answer
                    }
                    answer => {
                        let mut canonical = LockDescription::new(fd, member.writable);
                        if answer.is_ok() {
                            canonical.remember(request, lock);
                        }
                        *locks = Locks::Description(canonical);
                        answer
                    }
                }
            }
        }
    }
}

impl File {
    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock()
    }

    /// Drops every lock; the last member is about to be closed. Answers whether a descriptor is
    /// kept.
    fn retire(&self, commands: Commands) -> bool {
        let mut locks = self.locks();
        let Locks::Description(canonical) = &mut *locks else { return false };
        unlock_all(canonical.fd, commands);
        canonical.reads = Ranges::default();
        let Some(kept) = canonical.kept.last().map(AsRawFd::as_raw_fd) else {
            *locks = Locks::Undecided;
            return false;
        };
        if canonical.fd != kept {
            // What is kept is the description of before a move.
            canonical.fd = kept;
            canonical.writable = false;
        }
        true
    }
}

impl LockDescription {
    fn new(fd: RawFd, writable: bool) -> Self {
        Self { fd, writable, reads: Ranges::default(), kept: Vec::new() }
    }

    fn request(
        &mut self,
        request: Request,
        lock: &mut libc::flock,
        commands: Commands,
    ) -> Result<(), Errno> {
        ofd(self.fd, request, lock, commands)?;
        self.remember(request, lock);
        Ok(())
    }

    /// Writes down what a successful request changed.
    fn remember(&mut self, request: Request, lock: &libc::flock) {
        if self.writable || request == Request::Get {
            return;
        }
        let range = Range::of(lock);
        self.reads.remove(range);
        if lock.l_type == READ {
            self.reads.0.push(range);
        }
    }

    /// Moves the read locks held to the description of `fd`, a writable member.
    fn migrate(&mut self, fd: RawFd, commands: Commands) -> Result<(), Errno> {
        for range in &self.reads.0 {
            let mut lock = range.lock(READ);
            if let Err(error) = ofd(fd, Request::Set, &mut lock, commands) {
                unlock_all(fd, commands);
                return Err(error);
            }
        }
        // Explicitly: the read-only description stays open.
        unlock_all(self.fd, commands);
        self.fd = fd;
        self.writable = true;
        self.reads = Ranges::default();
        Ok(())
    }
}

/// Bytes `start..=last` of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: libc::off_t,
    last: libc::off_t,
}

impl Range {
    fn of(lock: &libc::flock) -> Self {
        let last = match lock.l_len {
            0 => libc::off_t::MAX,
            len => lock.l_start.saturating_add(len - 1),
        };
        Self { start: lock.l_start, last }
    }

    fn lock(self, kind: c_short) -> libc::flock {
        let len = if self.last == libc::off_t::MAX { 0 } else { self.last - self.start + 1 };
        flock(kind, self.start, len)
    }
}

/// Disjoint ranges, in no order. SQLite holds at most a handful on a file.
#[derive(Debug, Default)]
struct Ranges(Vec<Range>);

impl Ranges {
    fn remove(&mut self, gone: Range) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for range in self.0.drain(..) {
            if range.last < gone.start || gone.last < range.start {
                left.push(range);
                continue;
            }
            if range.start < gone.start {
                left.push(Range { last: gone.start - 1, ..range });
            }
            if gone.last < range.last {
                left.push(Range { start: gone.last + 1, ..range });
            }
        }
        self.0 = left;
    }
}

pub(super) fn flock(kind: c_short, start: libc::off_t, len: libc::off_t) -> libc::flock {
    // SAFETY: flock consists of integers, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = FROM_START;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn may_be_unsupported(error: Errno) -> bool {
    [libc::EINVAL, libc::ENOSYS, libc::ENOTSUP, libc::EOPNOTSUPP].contains(&error)
}

/// A lock that keeps another owner from a write lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct InTheWay {
    /// The process that has a POSIX lock; -1 for an open file description's, and 0 for a process that
    /// this one's namespace does not have.
    pub(in crate::engine) process: libc::pid_t,
}

/// The first lock in the system's order that keeps the description of `fd` from a write lock on
/// `length` bytes from `start` on (0: to the file's end).
pub(in crate::engine) fn in_the_way(
    fd: RawFd,
    start: libc::off_t,
    length: libc::off_t,
    commands: Commands,
) -> Result<Option<InTheWay>, Errno> {
    let mut lock = flock(WRITE, start, length);
    ofd(fd, Request::Get, &mut lock, commands)?;
    Ok((lock.l_type != UNLOCK).then_some(InTheWay { process: lock.l_pid }))
}

/// A POSIX lock for writing on the whole file, and whether the system answers a question about such
/// locks: for [`crate::engine::platform`].
pub(in crate::engine) fn try_posix(fd: RawFd) -> (Result<(), Errno>, Result<(), Errno>) {
    let question = posix(fd, Request::Get, &mut flock(WRITE, 0, 0));
    (question, posix(fd, Request::Set, &mut flock(WRITE, 0, 0)))
}

/// Whether a file has one inode number for its whole life where `fd` is.
pub(in crate::engine) fn has_identity(fd: RawFd) -> bool {
    identifies(fd)
}

/// A write lock on the whole file, for the probe.
pub(in crate::engine) fn try_write_lock(fd: RawFd, commands: Commands) -> Result<(), Errno> {
    ofd(fd, Request::Set, &mut flock(WRITE, 0, 0), commands)
}

/// Releasing a held lock does not fail. If it did, no caller could act on it: other connections
/// would wait for the lock, which is the safe side.
fn unlock_all(fd: RawFd, commands: Commands) {
    let _ = ofd(fd, Request::Set, &mut flock(UNLOCK, 0, 0), commands);
}

fn ofd(
    fd: RawFd,
    request: Request,
    lock: &mut libc::flock,
    commands: Commands,
) -> Result<(), Errno> {
    let mut copy = *lock;
    // The kernel requires 0 for OFD requests (EINVAL otherwise).
    copy.l_pid = 0;
    match request {
        Request::Set => fcntl(fd, commands.set, &mut copy),
        Request::Get => {
            fcntl(fd, commands.get, &mut copy)?;
            *lock = copy;
            Ok(())
        }
    }
}

fn posix(fd: RawFd, request: Request, lock: &mut libc::flock) -> Result<(), Errno> {
    let command = match request {
        Request::Set => libc::F_SETLK,
        Request::Get => libc::F_GETLK,
    };
    fcntl(fd, command, lock)
}

fn fcntl(fd: RawFd, command: c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: locking commands read and write one flock, which is borrowed for the call.
    let result = unsafe { libc::fcntl(fd, command, std::ptr::from_mut(lock)) };
    if result == -1 { Err(errno()) } else { Ok(()) }
}

fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[allow(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
pub(super) fn inode(fd: RawFd) -> Result<Inode, Errno> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the whole structure when it succeeds, and only then is it read.
    unsafe {
        if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
            return Err(errno());
        }
        let stat = stat.assume_init();
        Ok((stat.st_dev as u64, stat.st_ino as u64))
    }
}

fn is_writable(fd: RawFd) -> Result<bool, Errno> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(errno());
    }
    Ok(flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::path::{Path, PathBuf};

    const SHARED_FIRST: libc::off_t = 0x4000_0002;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"x").unwrap();
        (directory, path)
    }

    fn writable(path: &Path) -> std::fs::File {
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    fn read_only(path: &Path) -> std::fs::File {
        std::fs::File::open(path).unwrap()
    }

    fn set(
        space: &LockTable,
        file: &std::fs::File,
        kind: c_short,
        start: i64,
        len: i64,
    ) -> Result<(), Errno> {
        let lock = &mut flock(kind, start, len);
        space.request(file.as_raw_fd(), libc::F_SETLK, lock)
    }

    /// What the `close` hook does.
    fn close(space: &LockTable, file: std::fs::File) -> Closing {
        let closing = space.forget(file.as_raw_fd());
        if closing == Closing::Kept {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(file);
        }
        closing
    }

    /// What another owner finds on the range: a read lock, a write lock or nothing.
    fn seen(path: &Path, start: i64, len: i64) -> c_short {
        let file = writable(path);
        let mut lock = flock(WRITE, start, len);
        ofd(file.as_raw_fd(), Request::Get, &mut lock, Commands::OFD).unwrap();
        lock.l_type
    }

    fn canonicals(space: &LockTable) -> usize {
        space.table().files.len()
    }

    /// As msdosfs on macOS answers: one inode number for all empty files.
    fn fat_inode(fd: RawFd) -> Result<Inode, Errno> {
        // SAFETY: the descriptor is open, and the wrapper does not close it.
        let file = unsafe { std::mem::ManuallyDrop::new(std::fs::File::from_raw_fd(fd)) };
        let is_empty = file.metadata().is_ok_and(|it| it.len() == 0);
        if is_empty { Ok((1, 999_999_999)) } else { inode(fd) }
    }

    #[test]
    fn two_empty_files_with_one_inode_number_have_their_own_locks() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a-shm", "b-shm"].map(|name| folder.path().join(name));
        for identifies in [(|_| false) as fn(RawFd) -> bool, |_| true] {
            let commands = Commands { inode: fat_inode, identifies, ..Commands::OFD };
            let space = LockTable::new(commands);
            let files = paths.each_ref().map(|path| {
                std::fs::write(path, "").unwrap();
                writable(path)
            });
            for file in &files {
                assert_eq!(set(&space, file, WRITE, 0, 1), Ok(()));
            }
            let locked = paths.each_ref().map(|path| seen(path, 0, 1) == WRITE);
            // The other answer is what the rule is for: one file's lock goes to the other.
            assert_eq!(locked, [true, !identifies(0)]);
            for file in files {
                close(&space, file);
            }
        }
    }

    #[test]
    fn a_question_needs_no_descriptor_and_makes_no_member() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let asked = writable(&path);
        let mut lock = flock(WRITE, 0, 1);
        // No fstat, no OFD lock: SQLite still gets an answer.
        let fails = Commands { set: -1, get: -1, inode: |_| Err(libc::EIO), identifies: |_| true };
        for space in [&space, &LockTable::new(fails)] {
            assert_eq!(space.request(asked.as_raw_fd(), libc::F_GETLK, &mut lock), Ok(()));
            assert_eq!(lock.l_type, UNLOCK);
            assert_eq!(canonicals(space), 0);
            lock = flock(WRITE, 0, 1);
        }
    }

    #[test]
    fn descriptors_of_one_file_are_one_owner_and_other_spaces_are_others() {
        let (_directory, path) = file();
        let (space, other) = (LockTable::new(Commands::OFD), LockTable::new(Commands::OFD));
        let (a, b, c) = (writable(&path), writable(&path), writable(&path));
        set(&space, &a, WRITE, 0, 1).unwrap();
        set(&space, &b, WRITE, 0, 1).unwrap();
        assert_eq!(set(&other, &c, READ, 0, 1), Err(libc::EAGAIN));
        set(&space, &b, UNLOCK, 0, 0).unwrap();
        set(&other, &c, READ, 0, 1).unwrap();
        assert_eq!(set(&space, &a, WRITE, 0, 1), Err(libc::EAGAIN));
    }

    #[test]
    fn locks_outlive_the_descriptor_that_took_them_but_not_the_last_one() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let (a, b) = (writable(&path), writable(&path));
        set(&space, &a, WRITE, 0, 1).unwrap();
        set(&space, &b, READ, 5, 1).unwrap();
        close(&space, a);
        drop(read_only(&path));
        assert_eq!(seen(&path, 0, 1), WRITE);
        let file = inode(b.as_raw_fd()).unwrap();
        assert_eq!(space.forget(b.as_raw_fd()), Closing::Last(file));
        // Before the descriptor itself is closed: a child's copy of it must not matter.
        assert_eq!(seen(&path, 0, 0), UNLOCK);
        assert_eq!(space.idle(), [file]);
        space.release(file);
        assert_eq!(canonicals(&space), 0);
        assert!(space.kept().len() == 0);
    }

    #[test]
    fn a_descriptor_is_kept_only_while_others_need_its_description() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let (a, b, c) = (writable(&path), writable(&path), writable(&path));
        for file in [&a, &b, &c] {
            set(&space, file, READ, 5, 1).unwrap();
        }
        assert_eq!(close(&space, b), Closing::Free);
        assert!(space.kept().len() == 0);
        assert_eq!(close(&space, a), Closing::Kept);
        assert_eq!(seen(&path, 5, 1), READ);
        for _ in 0..3 {
            let another = writable(&path);
            set(&space, &another, WRITE, 0, 1).unwrap();
            set(&space, &another, UNLOCK, 0, 1).unwrap();
            assert_eq!(close(&space, another), Closing::Free);
        }
        assert_eq!(space.kept().len(), 1);
        let file = inode(c.as_raw_fd()).unwrap();
        assert_eq!(close(&space, c), Closing::Last(file));
        space.release(file);
        assert!(space.kept().len() == 0);
        // One alone leaves nothing to release.
        let alone = writable(&path);
        set(&space, &alone, WRITE, 0, 1).unwrap();
        assert_eq!(close(&space, alone), Closing::Last(file));
        assert_eq!((space.idle().len(), seen(&path, 0, 0)), (0, UNLOCK));
    }

    #[test]
    fn a_lock_of_this_process_that_is_not_the_spaces_is_seen() {
        const SHM_READER: libc::off_t = 123;
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let inode = inode(writable(&path).as_raw_fd()).unwrap();
        let (own, foreign) = (writable(&path), read_only(&path));
        let seen = |spare: Option<&std::fs::File>| {
            space.is_shared_with_process(inode, spare.map(AsRawFd::as_raw_fd))
        };
        let foreign_lock = |kind, start, length| {
            posix(foreign.as_raw_fd(), Request::Set, &mut flock(kind, start, length)).unwrap();
        };
        assert!(!seen(None) && !seen(Some(&own)), "there is no lock");
        foreign_lock(READ, SHARED_FIRST, 510);
        assert!(!seen(None), "no descriptor to ask by");
        assert!(seen(Some(&own)), "before the space's first request");
        set(&space, &own, READ, SHARED_FIRST, 510).unwrap();
        assert!(seen(None), "through the space's description");
        foreign_lock(UNLOCK, 0, 0);
        assert!(!seen(None), "its own locks have no owner");
        // Another owner's lock comes first in the system's order, and does not hide one on another byte.
        let other = writable(&path);
        let other_lock = &mut flock(READ, 0x4000_0000, 1);
        ofd(other.as_raw_fd(), Request::Set, other_lock, Commands::OFD).unwrap();
        assert!(!seen(None));
        foreign_lock(READ, SHM_READER, 1);
        assert!(seen(None));
        // The close of any descriptor of the file drops it: what the sign warns of.
        drop(read_only(&path));
        assert!(!seen(None));
        let _ = close(&space, own);
    }

    #[test]
    fn a_space_on_posix_locks_cannot_know_whose_they_are() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands { set: -1, ..Commands::OFD });
        let own = writable(&path);
        set(&space, &own, READ, SHARED_FIRST, 510).unwrap();
        let inode = inode(own.as_raw_fd()).unwrap();
        assert!(!space.is_shared_with_process(inode, Some(own.as_raw_fd())));
        let _ = close(&space, own);
    }

    #[test]
    fn a_file_is_alone_unless_another_owner_has_a_lock_anywhere_on_it() {
        let (_directory, path) = file();
        let (space, other) = (LockTable::new(Commands::OFD), LockTable::new(Commands::OFD));
        let (a, b, c) = (writable(&path), writable(&path), read_only(&path));
        assert!(space.is_alone(a.as_raw_fd()), "before its first request");
        set(&space, &a, WRITE, 0, 1).unwrap();
        assert!(space.is_alone(a.as_raw_fd()));
        assert_eq!(set(&space, &b, READ, 200, 1), Ok(()));
        assert!(space.is_alone(b.as_raw_fd()), "through whichever member");
        set(&other, &c, READ, SHARED_FIRST, 510).unwrap();
        assert!(!space.is_alone(a.as_raw_fd()));
        set(&other, &c, UNLOCK, 0, 0).unwrap();
        assert!(space.is_alone(a.as_raw_fd()));
        // Another SQLite of this process, which has POSIX locks.
        let posix_lock = &mut flock(READ, 128, 1);
        posix(c.as_raw_fd(), Request::Set, posix_lock).unwrap();
        assert!(!space.is_alone(a.as_raw_fd()));
    }

    #[test]
    fn after_a_move_both_descriptions_are_kept_until_the_file_is_released() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let (reader, second, writer) = (read_only(&path), read_only(&path), writable(&path));
        set(&space, &reader, READ, SHARED_FIRST, 510).unwrap();
        set(&space, &second, READ, 120, 1).unwrap();
        assert_eq!(close(&space, reader), Closing::Kept);
        set(&space, &writer, WRITE, 0, 1).unwrap();
        assert_eq!(close(&space, writer), Closing::Kept);
        assert_eq!((seen(&path, 0, 1), seen(&path, 120, 1)), (WRITE, READ));
        assert_eq!(space.kept().len(), 2);
        let file = inode(second.as_raw_fd()).unwrap();
        assert_eq!(close(&space, second), Closing::Last(file));
        assert_eq!(seen(&path, 0, 0), UNLOCK);
        space.release(file);
        assert!(space.kept().len() == 0);
        // The other way about: only the one of before the move is kept.
        let (reader, second, writer) = (read_only(&path), read_only(&path), writable(&path));
        set(&space, &reader, READ, 120, 1).unwrap();
        set(&space, &second, READ, 120, 1).unwrap();
        assert_eq!(close(&space, reader), Closing::Kept);
        set(&space, &writer, WRITE, 0, 1).unwrap();
        assert_eq!(close(&space, second), Closing::Free);
        assert_eq!(close(&space, writer), Closing::Last(file));
        assert_eq!((space.idle(), seen(&path, 0, 0)), (vec![file], UNLOCK));
        let again = writable(&path);
        set(&space, &again, WRITE, 0, 1).unwrap();
        assert_eq!((seen(&path, 0, 1), space.kept().len()), (WRITE, 1));
    }

    #[test]
    fn an_idle_file_that_is_opened_again_keeps_its_description() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let (a, b) = (writable(&path), writable(&path));
        set(&space, &a, WRITE, 0, 1).unwrap();
        set(&space, &b, READ, 5, 1).unwrap();
        close(&space, a);
        close(&space, b);
        for _ in 0..3 {
            let a = writable(&path);
            set(&space, &a, WRITE, 0, 1).unwrap();
            assert_eq!(seen(&path, 0, 1), WRITE);
            let file = inode(a.as_raw_fd()).unwrap();
            assert_eq!(close(&space, a), Closing::Last(file));
            assert_eq!(seen(&path, 0, 1), UNLOCK);
            assert_eq!(space.kept().len(), 1);
        }
    }

    #[test]
    fn a_file_that_was_open_before_stays_on_posix_locks() {
        let (_first, before) = file();
        let (_second, meanwhile) = file();
        let (_third, after) = file();
        let space = LockTable::new(Commands::OFD);
        let (a, b, c) = (writable(&before), writable(&meanwhile), writable(&after));
        space.passthrough(true);
        set(&space, &b, WRITE, 0, 1).unwrap();
        space.exclude(inode(a.as_raw_fd()).unwrap());
        space.passthrough(false);
        for file in [&a, &b, &c] {
            set(&space, file, WRITE, 0, 1).unwrap();
        }
        for (path, left) in [(&before, UNLOCK), (&meanwhile, UNLOCK), (&after, WRITE)] {
            drop(read_only(path));
            assert_eq!(seen(path, 0, 1), left);
        }
    }

    #[test]
    fn read_locks_move_to_the_first_writable_description() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands::OFD);
        let (reader, writer) = (read_only(&path), writable(&path));
        set(&space, &reader, READ, SHARED_FIRST, 510).unwrap();
        set(&space, &reader, READ, 120, 5).unwrap();
        set(&space, &reader, UNLOCK, 122, 1).unwrap();
        assert_eq!(set(&space, &reader, WRITE, 0, 1), Err(libc::EBADF));
        set(&space, &writer, WRITE, 0, 1).unwrap();
        assert_eq!(seen(&path, 0, 1), WRITE);
        assert_eq!(seen(&path, SHARED_FIRST, 510), READ);
        assert_eq!(seen(&path, 120, 2), READ);
        assert_eq!(seen(&path, 122, 1), UNLOCK);
        assert_eq!(seen(&path, 123, 2), READ);
        // SQLite's way to an exclusive lock: over its own shared one.
        set(&space, &writer, WRITE, SHARED_FIRST, 510).unwrap();
        assert_eq!(set(&space, &reader, WRITE, 7, 1), Err(libc::EBADF));
        set(&space, &reader, UNLOCK, 0, 0).unwrap();
        assert_eq!(seen(&path, 0, 0), UNLOCK);
    }

    #[test]
    fn a_file_system_without_such_locks_gets_posix_locks_and_is_counted() {
        let (_directory, path) = file();
        let space = LockTable::new(Commands { set: -1, get: -1, ..Commands::OFD });
        let a = writable(&path);
        set(&space, &a, WRITE, 0, 1).unwrap();
        set(&space, &a, READ, 4, 1).unwrap();
        assert_eq!(seen(&path, 0, 1), WRITE);
        assert_eq!(space.posix_files(), 1);
        // What they are known for.
        drop(read_only(&path));
        assert_eq!(seen(&path, 0, 1), UNLOCK);
    }

    #[test]
    fn errors_are_the_kernels() {
        let space = LockTable::new(Commands::OFD);
        let lock = &mut flock(WRITE, 0, 1);
        assert_eq!(space.request(-1, libc::F_SETLK, lock), Err(libc::EBADF));
        let (_directory, path) = file();
        let a = writable(&path);
        let lock = &mut flock(WRITE, 0, -1);
        assert_eq!(space.request(a.as_raw_fd(), libc::F_SETLK, lock), Err(libc::EINVAL));
    }

    #[test]
    fn a_number_used_again_belongs_to_its_new_file() {
        let (_first, one) = file();
        let (_second, two) = file();
        let space = LockTable::new(Commands::OFD);
        let a = writable(&one);
        set(&space, &a, WRITE, 0, 1).unwrap();
        space.forget(a.as_raw_fd());
        let b = writable(&two);
        // SAFETY: both descriptors are open and owned here; `a` stays owned, of another file now.
        assert!(unsafe { libc::dup2(b.as_raw_fd(), a.as_raw_fd()) } >= 0);
        set(&space, &a, WRITE, 0, 1).unwrap();
        assert_eq!(seen(&one, 0, 1), UNLOCK);
        assert_eq!(seen(&two, 0, 1), WRITE);
    }

    #[test]
    fn a_waiting_request_waits_for_the_other_owner() {
        let (_directory, path) = file();
        let other = writable(&path);
        let range = &mut flock(WRITE, 0, 1);
        ofd(other.as_raw_fd(), Request::Set, range, Commands::OFD).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let space = LockTable::new(Commands::OFD);
                let a = writable(&path);
                let answer = space.request(a.as_raw_fd(), libc::F_SETLKW, &mut flock(WRITE, 0, 1));
                (answer, seen(&path, 0, 1))
            });
            std::thread::yield_now();
            unlock_all(other.as_raw_fd(), Commands::OFD);
            assert_eq!(waiting.join().unwrap(), (Ok(()), WRITE));
        });
    }
}
