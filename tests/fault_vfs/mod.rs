//! A VFS whose calls fail as planned: an SQLite file system shim, for tests alone.
//!
//! [`Faults::over`] has the calls of every file below a folder counted, by kind of call and kind of
//! file, and [`Faults::plan`] says which of them fail. The VFS is registered as the default one,
//! over the real one, so that every connection that is opened afterwards, by whichever way, goes
//! through it. Files outside of such folders are not touched: tests of one process do not meet each
//! other's faults. Drop the [`Faults`] and calls are carried out again, on files that are open, too.
//!
//! A sweep: run once with an empty plan, ask [`Faults::count`] how many calls there were, and run
//! again for each `n` with [`At::Nth`].
//!
//! A fault is answered as `os_unix.c` answers the system's error, so that SQLite goes the same way
//! as on a real disk:
//!
//! | [`Kind`] | read | write | sync, truncate, size | lock | shm map | shm lock | delete |
//! |---|---|---|---|---|---|---|---|
//! | `Io` | `IOERR_CORRUPTFS` | `IOERR_WRITE` | `IOERR_FSYNC`, `_TRUNCATE`, `_FSTAT` | `IOERR_LOCK` | `IOERR_SHMMAP` | `IOERR_SHMLOCK` | `IOERR_DELETE` |
//! | `Full` | as `Io` | `FULL` | `IOERR_FSYNC`, … | as `Io` | `IOERR_SHMSIZE` | as `Io` | as `Io` |
//! | `Interrupted` | in two parts | in two parts | `IOERR_FSYNC`; others are carried out | `BUSY` | carried out | `BUSY` | carried out |
//! | `Short` | half, then zeros: `IOERR_SHORT_READ` | half, then `FULL` | as `Io` | as `Io` | as `Io` | as `Io` | as `Io` |
//! | `Busy` | as `Io` | as `Io` | as `Io` | `BUSY` | `BUSY` | `BUSY` | as `Io` |
//!
//! Not covered: what the package reads and writes without SQLite (`PrivateFile`, copies of a
//! damaged original, renames, syncs of directories, the schema snapshot), memory-mapped reads, and
//! an index that is mapped already.
//!
//! Any thread. A plan belongs to the process; a second process has its own.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use fusion_sqlite::engine;
use rusqlite::ffi;

/// A call of SQLite's to its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Read,
    Write,
    Sync,
    Truncate,
    Size,
    Lock,
    ShmMap,
    ShmLock,
    Delete,
}

/// A file next to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    Database,
    Wal,
    /// Its calls are made through the database's file.
    Shm,
    Journal,
    /// Whatever else has a name: super-journals, databases that are attached or made on the way
    /// have one of the other kinds.
    Side,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    Full,
    /// `EINTR`.
    Interrupted,
    /// Half of it.
    Short,
    /// A lock that is never granted.
    Busy,
}

/// Which of the calls that a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The n-th, from 1, and those behind it while `times` lasts.
    Nth(u64),
    /// Each n-th.
    Every(u64),
    /// Those that touch these bytes of the file, until they are written to: a bad sector.
    Sector { first: u64, last: u64 },
    /// By chance: of a hundred calls so many, the same ones for the same seed and order of calls.
    Seeded { seed: u64, percent: u64 },
}

/// Calls that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub call: Call,
    /// None: of every file.
    pub file: Option<File>,
    pub kind: Kind,
    pub at: At,
    /// How many calls at most.
    pub times: u64,
}

impl Fault {
    /// The n-th read of any file fails with `EIO`.
    pub fn nth_read(n: u64) -> Self {
        Self { call: Call::Read, file: None, kind: Kind::Io, at: At::Nth(n), times: 1 }
    }

    /// Reads of these bytes of the database fail with `EIO` until they are written to.
    pub fn bad_sector(first: u64, last: u64) -> Self {
        Self { at: At::Sector { first, last }, ..Self::reads_of(File::Database) }
    }

    /// Every read of `file` fails with `EIO`.
    pub fn reads_of(file: File) -> Self {
        let at = At::Every(1);
        Self { call: Call::Read, file: Some(file), kind: Kind::Io, at, times: u64::MAX }
    }
}

struct Planned {
    fault: Fault,
    seen: u64,
    failed: u64,
    random: u64,
    /// A bad sector was written to.
    is_over: bool,
}

/// The bytes that a call is about, first and last; none for calls about no bytes.
type Bytes = Option<(u64, u64)>;

impl Planned {
    fn touches(&self, bytes: Bytes) -> bool {
        match (self.fault.at, bytes) {
            (At::Sector { first, last }, Some(bytes)) => bytes.0 <= last && bytes.1 >= first,
            _ => false,
        }
    }

    /// Whether the fault happens to a call that it is about.
    fn strikes(&mut self, bytes: Bytes) -> bool {
        self.seen += 1;
        let strikes = match self.fault.at {
            At::Nth(n) => self.seen >= n,
            At::Sector { .. } => !self.is_over && self.touches(bytes),
            At::Every(n) => self.seen.is_multiple_of(n),
            At::Seeded { percent, .. } => {
                // splitmix64
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.random;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (z ^ (z >> 31)) % 100 < percent
            }
        };
        let strikes = strikes && self.failed < self.fault.times;
        self.failed += u64::from(strikes);
        strikes
    }
}

#[derive(Default)]
struct State {
    plan: Vec<Planned>,
    calls: BTreeMap<(Call, File), u64>,
    failed: u64,
}

/// A folder whose files' calls are counted.
struct Site {
    folder: PathBuf,
    state: Mutex<State>,
}

impl Site {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and says what happens to it.
    fn call(&self, call: Call, file: File, bytes: Bytes) -> Option<Kind> {
        let mut state = self.lock();
        *state.calls.entry((call, file)).or_default() += 1;
        let mut kind = None;
        for planned in &mut state.plan {
            let is_about =
                planned.fault.call == call && planned.fault.file.is_none_or(|one| one == file);
            if is_about && planned.strikes(bytes) {
                kind = kind.or(Some(planned.fault.kind));
            }
            let is_same = planned.fault.file.is_none_or(|one| one == file);
            planned.is_over |= call == Call::Write && is_same && planned.touches(bytes);
        }
        state.failed += u64::from(kind.is_some());
        kind
    }
}

static SITES: Mutex<Vec<Arc<Site>>> = Mutex::new(Vec::new());

fn sites() -> MutexGuard<'static, Vec<Arc<Site>>> {
    SITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls of the files below a folder, counted and failing while this lives.
pub struct Faults(Arc<Site>);

impl Faults {
    /// Counts the calls of the files below `folder`. None fails yet.
    pub fn over(folder: &Path) -> Self {
        register();
        let folder = std::fs::canonicalize(folder).unwrap();
        let site = Arc::new(Site { folder, state: Mutex::default() });
        sites().push(Arc::clone(&site));
        Self(site)
    }

    /// Replaces what fails, and counts from 0 again.
    pub fn plan(&self, faults: &[Fault]) {
        let planned = |fault: &Fault| {
            let random = if let At::Seeded { seed, .. } = fault.at { seed } else { 0 };
            Planned { fault: *fault, seen: 0, failed: 0, random, is_over: false }
        };
        *self.0.lock() = State { plan: faults.iter().map(planned).collect(), ..State::default() };
    }

    /// Calls so far, of one file or of all.
    pub fn count(&self, call: Call, file: Option<File>) -> u64 {
        let state = self.0.lock();
        let counted = state
            .calls
            .iter()
            .filter(|((one, of), _)| *one == call && file.is_none_or(|file| file == *of));
        counted.map(|(_, count)| count).sum()
    }

    /// Calls that failed so far.
    pub fn failed(&self) -> u64 {
        self.0.lock().failed
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.plan(&[]);
        sites().retain(|site| !Arc::ptr_eq(site, &self.0));
    }
}

/// An open file: SQLite's structure first.
#[repr(C)]
struct Shim {
    base: ffi::sqlite3_file,
    inner: *mut ffi::sqlite3_file,
    watched: *mut Watched,
}

/// What an open file needs, in a box.
struct Watched {
    /// The inner file, aligned as SQLite allocates it.
    _memory: Vec<u64>,
    site: Option<Arc<Site>>,
    file: File,
}

/// # Safety
/// `file` was opened by [`open`].
unsafe fn shim<'a>(file: *mut ffi::sqlite3_file) -> &'a Shim {
    // SAFETY: the caller's promise.
    unsafe { &*file.cast::<Shim>() }
}

impl Shim {
    fn methods(&self) -> &'static ffi::sqlite3_io_methods {
        // SAFETY: the inner file is open; tables of methods live for ever.
        unsafe { &*(*self.inner).pMethods }
    }

    fn fault_at(&self, call: Call, offset: i64, length: c_int) -> Option<Kind> {
        let (Ok(first), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return None;
        };
        self.fault_of(call, Some((first, first + length.max(1) - 1)))
    }

    fn fault(&self, call: Call) -> Option<Kind> {
        self.fault_of(call, None)
    }

    fn fault_of(&self, call: Call, bytes: Bytes) -> Option<Kind> {
        // SAFETY: the box lives until the file is closed.
        let watched = unsafe { &*self.watched };
        let file = match call {
            Call::ShmMap | Call::ShmLock => File::Shm,
            _ => watched.file,
        };
        watched.site.as_ref()?.call(call, file, bytes)
    }
}

/// The answer to a call that is not one of reading, writing or locking; none: it is carried out.
fn answer(kind: Option<Kind>, io: c_int) -> Option<c_int> {
    match kind {
        None => None,
        Some(Kind::Interrupted) if io != ffi::SQLITE_IOERR_FSYNC => None,
        Some(_) => Some(io),
    }
}

/// The answer to a request for a lock; none: it is carried out.
fn lock_answer(kind: Option<Kind>, io: c_int) -> Option<c_int> {
    match kind? {
        Kind::Busy | Kind::Interrupted => Some(ffi::SQLITE_BUSY),
        Kind::Io | Kind::Full | Kind::Short => Some(io),
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once.
    unsafe {
        let one = shim(file);
        let rc = one.methods().xClose.unwrap()(one.inner);
        drop(Box::from_raw(one.watched));
        (*file).pMethods = ptr::null();
        rc
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite's own arguments: an open file, a buffer of that length.
    unsafe {
        let one = shim(file);
        let read = one.methods().xRead.unwrap();
        let half = length / 2;
        let rest = buffer.cast::<u8>().add(half as usize).cast::<c_void>();
        match one.fault_at(Call::Read, offset, length) {
            None => read(one.inner, buffer, length, offset),
            Some(Kind::Interrupted) if half > 0 => match read(one.inner, buffer, half, offset) {
                ffi::SQLITE_OK => read(one.inner, rest, length - half, offset + i64::from(half)),
                rc => {
                    ptr::write_bytes(rest.cast::<u8>(), 0, (length - half) as usize);
                    rc
                }
            },
            Some(Kind::Interrupted) => read(one.inner, buffer, length, offset),
            Some(Kind::Short) => {
                let rc = if half > 0 { read(one.inner, buffer, half, offset) } else { 0 };
                ptr::write_bytes(rest.cast::<u8>(), 0, (length - half) as usize);
                if rc == ffi::SQLITE_OK { ffi::SQLITE_IOERR_SHORT_READ } else { rc }
            }
            Some(_) => ffi::SQLITE_IOERR_CORRUPTFS,
        }
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `read`.
    unsafe {
        let one = shim(file);
        let write = one.methods().xWrite.unwrap();
        let half = length / 2;
        let rest = buffer.cast::<u8>().add(half as usize).cast::<c_void>();
        match one.fault_at(Call::Write, offset, length) {
            None => write(one.inner, buffer, length, offset),
            Some(Kind::Interrupted) if half > 0 => match write(one.inner, buffer, half, offset) {
                ffi::SQLITE_OK => write(one.inner, rest, length - half, offset + i64::from(half)),
                rc => rc,
            },
            Some(Kind::Interrupted) => write(one.inner, buffer, length, offset),
            Some(Kind::Short) => {
                let rc = if half > 0 { write(one.inner, buffer, half, offset) } else { 0 };
                if rc == ffi::SQLITE_OK { ffi::SQLITE_FULL } else { rc }
            }
            Some(Kind::Full) => ffi::SQLITE_FULL,
            Some(_) => ffi::SQLITE_IOERR_WRITE,
        }
    }
}

/// Defines methods that fail or are carried out: name, arguments, kind of call, the answer.
macro_rules! methods {
    ($($name:ident: $method:ident($($argument:ident: $type:ty),*), $call:expr, $answer:expr;)*) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite's own arguments, about an open file.
            unsafe {
                let one = shim(file);
                let call: Option<Call> = $call;
                if let Some(rc) = call.and_then(|call| $answer(one.fault(call))) {
                    return rc;
                }
                one.methods().$method.unwrap()(one.inner $(, $argument)*)
            }
        })*
    };
}

const fn never(_: Option<Kind>) -> Option<c_int> {
    None
}

methods! {
    truncate: xTruncate(size: ffi::sqlite3_int64), Some(Call::Truncate),
        |kind| answer(kind, ffi::SQLITE_IOERR_TRUNCATE);
    sync: xSync(flags: c_int), Some(Call::Sync), |kind| answer(kind, ffi::SQLITE_IOERR_FSYNC);
    file_size: xFileSize(size: *mut ffi::sqlite3_int64), Some(Call::Size),
        |kind| answer(kind, ffi::SQLITE_IOERR_FSTAT);
    lock: xLock(level: c_int), Some(Call::Lock), |kind| lock_answer(kind, ffi::SQLITE_IOERR_LOCK);
    unlock: xUnlock(level: c_int), None, never;
    check_reserved_lock: xCheckReservedLock(answer: *mut c_int), None, never;
    file_control: xFileControl(operation: c_int, argument: *mut c_void), None, never;
    sector_size: xSectorSize(), None, never;
    device_characteristics: xDeviceCharacteristics(), None, never;
    shm_map: xShmMap(page: c_int, size: c_int, extend: c_int, at: *mut *mut c_void),
        Some(Call::ShmMap), |kind| match kind {
            Some(Kind::Busy) => Some(ffi::SQLITE_BUSY),
            Some(Kind::Full) => Some(ffi::SQLITE_IOERR_SHMSIZE),
            kind => answer(kind, ffi::SQLITE_IOERR_SHMMAP),
        };
    shm_lock: xShmLock(first: c_int, count: c_int, flags: c_int),
        (flags & ffi::SQLITE_SHM_LOCK != 0).then_some(Call::ShmLock),
        |kind| lock_answer(kind, ffi::SQLITE_IOERR_SHMLOCK);
    shm_unmap: xShmUnmap(delete: c_int), None, never;
    fetch: xFetch(offset: ffi::sqlite3_int64, length: c_int, at: *mut *mut c_void), None, never;
    unfetch: xUnfetch(offset: ffi::sqlite3_int64, at: *mut c_void), None, never;
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite's own argument.
    unsafe {
        let one = shim(file);
        one.methods().xShmBarrier.unwrap()(one.inner);
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// The VFS below.
///
/// # Safety
/// `vfs` is the one that [`register`] made.
unsafe fn below(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: the caller's promise.
    unsafe { (*vfs).pAppData.cast() }
}

/// # Safety
/// `name` is null, or ends with NUL.
unsafe fn site_of(name: *const c_char) -> Option<(Arc<Site>, PathBuf)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = PathBuf::from(unsafe { CStr::from_ptr(name) }.to_str().ok()?);
    let site = sites().iter().find(|site| name.starts_with(&site.folder)).map(Arc::clone)?;
    Some((site, name))
}

fn file_of(name: &Path, flags: c_int) -> File {
    let name = name.to_string_lossy();
    if flags & ffi::SQLITE_OPEN_WAL != 0 || name.ends_with("-wal") {
        File::Wal
    } else if name.ends_with("-shm") {
        File::Shm
    } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 || name.ends_with("-journal") {
        File::Journal
    } else if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        File::Database
    } else {
        File::Side
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's own arguments. The inner file has the memory that its VFS asks for, zeroed,
    // and stays where it is when the vector is moved.
    unsafe {
        (*file).pMethods = ptr::null();
        let below = below(vfs);
        let size = usize::try_from((*below).szOsFile).unwrap();
        let mut memory = vec![0_u64; size.div_ceil(8)];
        let inner: *mut ffi::sqlite3_file = memory.as_mut_ptr().cast();
        let rc = (*below).xOpen.unwrap()(below, name, inner, flags, out_flags);
        if (*inner).pMethods.is_null() {
            return rc;
        }
        assert_eq!((*(*inner).pMethods).iVersion, 3, "a VFS of the platform");
        let (site, kind) = match site_of(name) {
            Some((site, name)) => (Some(site), file_of(&name, flags)),
            None => (None, File::Side),
        };
        let watched = Box::into_raw(Box::new(Watched { _memory: memory, site, file: kind }));
        file.cast::<Shim>().write(Shim {
            base: ffi::sqlite3_file { pMethods: &raw const METHODS },
            inner,
            watched,
        });
        rc
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe {
        let below = below(vfs);
        let fault =
            site_of(name).and_then(|(site, name)| site.call(Call::Delete, file_of(&name, 0), None));
        match answer(fault, ffi::SQLITE_IOERR_DELETE) {
            Some(rc) => rc,
            None => (*below).xDelete.unwrap()(below, name, sync),
        }
    }
}

/// Registers the VFS as the default one, over the one that was the default.
fn register() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // It replaces system calls of the VFS below, and settings of SQLite's that come first.
        engine::init().unwrap();
        // SAFETY: the default VFS lives for ever; what is not replaced of it asks for nothing of
        // the structure that it is called for. The new one lives for ever.
        unsafe {
            let below = ffi::sqlite3_vfs_find(ptr::null());
            let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
                szOsFile: c_int::try_from(size_of::<Shim>()).unwrap(),
                pNext: ptr::null_mut(),
                zName: c"fault".as_ptr(),
                pAppData: below.cast(),
                xOpen: Some(open),
                xDelete: Some(delete),
                ..*below
            }));
            assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
        }
    });
}
