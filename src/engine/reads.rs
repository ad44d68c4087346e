//! Reads that fail: an error of the disk, and never damage.
//!
//! SQLite's unix file system turns `EIO` into `SQLITE_IOERR_CORRUPTFS`, its virtual machine turns
//! that into `SQLITE_CORRUPT`, and `PRAGMA integrity_check` turns any error of a read into a line
//! of its answer, some of them without a code. What comes out looks like damage, and a caller that
//! believes it repairs a file in which nothing is wrong.
//!
//! So every connection of this package uses the VFS [`NAME`]. It is the default VFS of the moment
//! at which a file is opened, with some of the file's methods replaced (`xRead`, `xShmMap`, `xWrite`,
//! also for [`commit_frame`], `xTruncate`, `xSync`, `xLock` and
//! `xShmLock`):
//!
//! 1. a read that fails is answered with `SQLITE_IOERR_READ`, which SQLite never turns into damage;
//! 2. a read or map that fails is counted, for the thread on which it failed. A connection reads on
//!    the thread that calls it, so that [`or_failed`] knows whether a call met such a failure;
//! 3. the system's error of a call that fails is noted for [`cause`], before another call clears it;
//! 4. a lock that the system could not take is an error, and not another connection's lock.
//!
//! A read behind the end of a file (`SQLITE_IOERR_SHORT_READ`) is no failure: SQLite takes the rest
//! for zeros. Memory-mapped reads are not seen; what checks or repairs does not map.
//!
//! The objects of open files belong to the VFS below, so that its methods are called without a
//! detour, apart from those. Any thread.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Class, Error, Result, advise, cause, commit_frame};

/// The VFS's name.
pub(super) const NAME: &CStr = c"fusion";

/// Bytes for a file of the VFS below. A default VFS that is registered later may need more than
/// the first one.
const FILE_SIZE: c_int = 512;

thread_local! {
    static FAILED: Cell<u64> = const { Cell::new(0) };
}

/// How many reads of this thread failed so far.
pub fn failed_reads() -> u64 {
    FAILED.get()
}

/// Carries `body` out. If a read fails on this thread meanwhile, the answer is the error of that
/// read, whatever `body` makes of it; an error of `body` that is not about the file's content stays.
///
/// # Errors
/// `body`'s; `SQLITE_IOERR_READ`, about `path`.
pub fn or_failed<T>(path: &Path, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = failed_reads();
    let answer = body();
    let count = failed_reads().wrapping_sub(before);
    match answer {
        _ if count == 0 => answer,
        Err(error) if !matches!(error.class(), Class::Corrupt | Class::Index) => Err(error),
        _ => Err(failure(path, count)),
    }
}

/// The error of reads that failed.
fn failure(path: &Path, count: u64) -> Error {
    let reads = if count == 1 { "a read".to_owned() } else { format!("{count} reads") };
    let message = format!("{reads} of the database, or of a file next to it, failed");
    advise(Error::sqlite(ffi::SQLITE_IOERR_READ, message).at(path), path)
}

/// A table of file methods, and the one that it stands for.
#[repr(C)]
struct Table {
    /// First: SQLite has the address of this.
    methods: ffi::sqlite3_io_methods,
    original: &'static ffi::sqlite3_io_methods,
}

/// One table for each table of the VFS below, by its address. They live as long as the process.
static TABLES: Mutex<BTreeMap<usize, &'static Table>> = Mutex::new(BTreeMap::new());

fn table_for(original: &'static ffi::sqlite3_io_methods) -> &'static ffi::sqlite3_io_methods {
    let mut tables = TABLES.lock();
    let table = tables.entry(ptr::from_ref(original).addr()).or_insert_with(|| {
        let mut methods = *original;
        methods.xRead = original.xRead.map(|_| read as _);
        methods.xWrite = original.xWrite.map(|_| write as _);
        methods.xTruncate = original.xTruncate.map(|_| truncate as _);
        methods.xSync = original.xSync.map(|_| sync as _);
        methods.xLock = original.xLock.map(|_| lock as _);
        methods.xShmLock = original.xShmLock.map(|_| shm_lock as _);
        methods.xShmMap = original.xShmMap.map(|_| shm_map as _);
        Box::leak(Box::new(Table { methods, original }))
    });
    &table.methods
}

/// The methods of the VFS below.
///
/// # Safety
/// `file` is open, and was opened by [`open`].
unsafe fn original(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: `open` set the methods to the first field of a `Table`, which lives for ever.
    unsafe { (*(*file).pMethods.cast::<Table>()).original }
}

/// Counts a failure. `rc` is the answer of a method that reads.
pub(super) fn note(rc: c_int) {
    if rc & 0xff == ffi::SQLITE_IOERR && rc != ffi::SQLITE_IOERR_SHORT_READ {
        FAILED.set(FAILED.get().wrapping_add(1));
    }
}

/// `sqlite3_io_methods.xRead`.
unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls a method of an open file with arguments that are valid for it.
    let Some(read) = (unsafe { original(file) }).xRead else { return ffi::SQLITE_IOERR_READ };
    // SAFETY: as above.
    let rc = unsafe { read(file, buffer, length, offset) };
    note(rc);
    // SAFETY: as above.
    unsafe { note_cause(file, original(file), rc) };
    if rc == ffi::SQLITE_IOERR_CORRUPTFS { ffi::SQLITE_IOERR_READ } else { rc }
}

/// `sqlite3_io_methods.xWrite`.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    content: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `read`.
    let original = unsafe { original(file) };
    let Some(write) = original.xWrite else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: as in `read`.
    let rc = unsafe { write(file, content, length, offset) };
    // SAFETY: as in `read`.
    unsafe { note_cause(file, original, rc) };
    // SAFETY: `length` bytes of content are there to be written.
    let content = unsafe {
        std::slice::from_raw_parts(content.cast::<u8>(), usize::try_from(length).unwrap_or(0))
    };
    commit_frame::note(content, offset, rc, || {
        let mut size = 0;
        // SAFETY: as in `read`; the out-pointer is valid.
        let rc = unsafe { original.xFileSize?(file, &raw mut size) };
        (rc == ffi::SQLITE_OK).then_some(size)
    });
    rc
}

/// Notes why a method of `file` failed, if it did.
///
/// # Safety
/// `file` is open, and `original` are its methods in the VFS below.
unsafe fn note_cause(file: *mut ffi::sqlite3_file, original: &ffi::sqlite3_io_methods, rc: c_int) {
    if rc == ffi::SQLITE_OK || rc == ffi::SQLITE_IOERR_SHORT_READ {
        return;
    }
    let mut errno: c_int = 0;
    if let Some(control) = original.xFileControl {
        // SAFETY: the caller's; this file control writes one int.
        unsafe { control(file, ffi::SQLITE_FCNTL_LAST_ERRNO, (&raw mut errno).cast()) };
    }
    if rc == ffi::SQLITE_FULL && errno == 0 {
        // The unix VFS keeps no number of a write for which there was no room.
        errno = FULL;
    }
    cause::begin();
    cause::note(rc, errno);
}

#[cfg(unix)]
const FULL: c_int = libc::ENOSPC;
/// `ERROR_DISK_FULL`
#[cfg(not(unix))]
const FULL: c_int = 112;

/// `sqlite3_io_methods.xTruncate`.
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as in `read`.
    let original = unsafe { original(file) };
    let Some(truncate) = original.xTruncate else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: as in `read`.
    unsafe {
        let rc = truncate(file, size);
        note_cause(file, original, rc);
        rc
    }
}

/// `sqlite3_io_methods.xSync`.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as in `read`.
    let original = unsafe { original(file) };
    let Some(sync) = original.xSync else { return ffi::SQLITE_IOERR_FSYNC };
    // SAFETY: as in `read`.
    unsafe {
        let rc = sync(file, flags);
        note_cause(file, original, rc);
        rc
    }
}

/// `sqlite3_io_methods.xLock`.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `read`.
    let Some(lock) = (unsafe { original(file) }).xLock else { return ffi::SQLITE_IOERR_LOCK };
    cause::begin_lock();
    // SAFETY: as in `read`.
    let rc = unsafe { lock(file, level) };
    cause::end_lock(rc, ffi::SQLITE_IOERR_LOCK)
}

/// `sqlite3_io_methods.xShmLock`.
unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: as in `read`.
    let Some(lock) = (unsafe { original(file) }).xShmLock else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    cause::begin_lock();
    // SAFETY: as in `read`.
    let rc = unsafe { lock(file, first, count, flags) };
    cause::end_lock(rc, ffi::SQLITE_IOERR_SHMLOCK)
}

/// `sqlite3_io_methods.xShmMap`.
unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    address: *mut *mut c_void,
) -> c_int {
    // SAFETY: as in `read`.
    let Some(map) = (unsafe { original(file) }).xShmMap else { return ffi::SQLITE_IOERR_SHMMAP };
    cause::begin();
    // SAFETY: as in `read`.
    let rc = unsafe { map(file, region, size, extend, address) };
    if rc != ffi::SQLITE_OK {
        cause::note(rc, cause::last_errno());
    }
    note(rc);
    rc
}

/// The default VFS now, which is never this one.
fn below() -> (*mut ffi::sqlite3_vfs, Option<ffi::sqlite3_vfs>) {
    // SAFETY: null, or the default VFS, which stays registered for good. Its fields do not change.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(ptr::null());
        (vfs, vfs.as_ref().copied())
    }
}

/// `sqlite3_vfs.xOpen`.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let (vfs, below) = below();
    let Some(open) = below.filter(|vfs| vfs.szOsFile <= FILE_SIZE).and_then(|vfs| vfs.xOpen) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite's own arguments; `file` has `FILE_SIZE` bytes, which is enough.
    unsafe {
        cause::begin();
        let rc = open(vfs, name, file, flags, out_flags);
        if rc != ffi::SQLITE_OK {
            cause::note(rc, cause::last_errno());
        }
        // The methods of a file that was not opened are null, or for closing it.
        if let Some(methods) = (*file).pMethods.as_ref() {
            (*file).pMethods = table_for(methods);
        }
        rc
    }
}

/// `sqlite3_vfs.xDelete`.
unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let (vfs, below) = below();
    let Some(delete) = below.and_then(|vfs| vfs.xDelete) else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: SQLite's own arguments.
    unsafe { delete(vfs, name, sync) }
}

/// `sqlite3_vfs.xAccess`.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    let (vfs, below) = below();
    let Some(access) = below.and_then(|vfs| vfs.xAccess) else { return ffi::SQLITE_IOERR_ACCESS };
    // SAFETY: SQLite's own arguments.
    unsafe { access(vfs, name, flags, answer) }
}

/// Registers the VFS. Called once, before the first connection is opened, and when the default VFS
/// is as it stays.
///
/// # Errors
/// `SQLITE_CANTOPEN` where the files of this SQLite's VFS are larger than usual.
pub(super) fn install() -> Result<()> {
    let Some(default) = below().1.filter(|vfs| vfs.szOsFile <= FILE_SIZE) else {
        return Err(Error::sqlite(ffi::SQLITE_CANTOPEN, "this SQLite has no usual file system"));
    };
    // What is not replaced is the default's: of the built-in VFSes `xOpen` alone asks which VFS it
    // is called for.
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        szOsFile: FILE_SIZE,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        ..default
    }));
    // SAFETY: the structure lives for ever, and is SQLite's from here on (0: not the default).
    let rc = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    if rc == ffi::SQLITE_OK { Ok(()) } else { Err(Error::sqlite(rc, super::errstr(rc))) }
}
