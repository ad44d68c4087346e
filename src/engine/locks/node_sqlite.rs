//! The same locks for Node's own copy of SQLite, behind node:sqlite.
//!
//! The node binary exports none of SQLite's functions, but node:sqlite can load SQLite
//! extensions, and this addon is one: [`sqlite3_fusionsqlite_init`] receives the table of
//! functions of whichever copy loads it (<https://sqlite.org/loadext.html>), asks it for its unix
//! VFS and replaces the system calls there, as is done for the bundled copy. Each copy is a lock
//! owner of its own, so the two then respect each other as two processes do.
//!
//! Node's SQLite may be at work on other threads and have files open. Files that were open before
//! may be locked with POSIX locks, which a copy must not mix with the others on one inode: they
//! stay on POSIX locks, and only files that are opened later are protected. The order shuts out
//! every gap: requests are hooked first, and while the table passes requests through they
//! exclude their file; then every file that is open is excluded; then that ends.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

use parking_lot::Mutex;
use rusqlite::ffi;

use super::hooks::{self, NODES};
use super::{LockKind, fallback_reason, kind};
use crate::engine::other_sqlite;

/// Places in `sqlite3_api_routines`, to which SQLite only ever appends.
const LIBVERSION_NUMBER: usize = 67;
const VFS_FIND: usize = 141;

/// The oldest SQLite this is done to: Node never had an older one.
const OLDEST: c_int = 3_046_000;

type LibversionNumber = unsafe extern "C" fn() -> c_int;
type VfsFind = unsafe extern "C" fn(*const c_char) -> *mut ffi::sqlite3_vfs;

/// Whether it was installed; else why not, once it was tried.
static OUTCOME: Mutex<Option<Result<(), String>>> = Mutex::new(None);

/// What came of the last attempt; none if there was none.
pub fn outcome() -> Option<Result<(), String>> {
    OUTCOME.lock().clone()
}

/// Writes down why Node's SQLite did not even load this addon.
pub fn not_loaded(reason: String) {
    let mut outcome = OUTCOME.lock();
    if outcome.is_none() {
        *outcome = Some(Err(reason));
    }
}

/// The file that this code was loaded from, for a copy of SQLite to load it, too.
pub fn image() -> Option<PathBuf> {
    image_of(sqlite3_fusionsqlite_init as *const c_void)
}

fn image_of(address: *const c_void) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr compares the address with those of loaded images and fills `info` if it
    // answers other than 0; zeroes are a value of it in any case. The name lives as long as the
    // image and is copied here.
    unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        if name.is_null() {
            return None;
        }
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
    }
}

/// The entry point that SQLite looks for in a file of this name. Answers
/// `SQLITE_OK_LOAD_PERMANENTLY`, or `SQLITE_ERROR` with the reason kept for [`outcome`].
///
/// # Safety
/// SQLite's contract with an extension: `api` is its table of functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_fusionsqlite_init(
    _db: *mut c_void,
    _message: *mut *mut c_char,
    api: *const *const c_void,
) -> c_int {
    std::panic::catch_unwind(|| {
        let mut outcome = OUTCOME.lock();
        if !matches!(*outcome, Some(Ok(()))) {
            // SAFETY: the caller's promise. The mutex keeps a second thread out.
            *outcome = Some(unsafe { install(api) });
        }
        match *outcome {
            Some(Ok(())) => ffi::SQLITE_OK_LOAD_PERMANENTLY,
            _ => ffi::SQLITE_ERROR,
        }
    })
    .unwrap_or(ffi::SQLITE_ERROR)
}

/// # Safety
/// As [`sqlite3_fusionsqlite_init`].
unsafe fn install(api: *const *const c_void) -> Result<(), String> {
    crate::engine::init().map_err(|error| error.to_string())?;
    if kind() != LockKind::Ofd {
        return Err(fallback_reason().unwrap_or("the platform has no such locks").to_owned());
    }
    if api.is_null() {
        return Err("SQLite passed no functions".to_owned());
    }
    // SAFETY: both places have been in the table since 3.6, are never null, and hold functions
    // of these types; the version is asked before anything else is relied on.
    let vfs = unsafe {
        let version = std::mem::transmute::<*const c_void, Option<LibversionNumber>>(
            *api.add(LIBVERSION_NUMBER),
        )
        .map_or(0, |version| version());
        if version < OLDEST {
            return Err(format!("SQLite {version} is older than any that Node had"));
        }
        std::mem::transmute::<*const c_void, Option<VfsFind>>(*api.add(VFS_FIND))
            .map_or(std::ptr::null_mut(), |find| find(c"unix".as_ptr()))
    };
    // SAFETY: asks for a static.
    if vfs == unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) } {
        return Err("this is fusion-sqlite's own SQLite, which is protected already".to_owned());
    }
    // SAFETY: the VFS is null, or a static of the copy that loads this.
    if unsafe { is_replaced(vfs) } {
        return Err("another copy of fusion-sqlite protects it already".to_owned());
    }
    let unlisted = |error| format!("the process's open files cannot be listed: {error}");
    // Asked before anything is changed, to know that it can be answered.
    other_sqlite::unknown_descriptors().map_err(unlisted)?;
    NODES.space.passthrough(true);
    // SAFETY: it is another copy's VFS, as was just made sure.
    unsafe { hooks::install_nodes(vfs) }?;
    // If it fails now, requests pass through for good: every file stays on POSIX locks.
    for file in other_sqlite::unknown_descriptors().map_err(unlisted)? {
        NODES.space.exclude(file);
    }
    NODES.space.passthrough(false);
    Ok(())
}

/// Whether an addon has replaced this copy's `fcntl`.
///
/// # Safety
/// `vfs` is null or a VFS.
unsafe fn is_replaced(vfs: *mut ffi::sqlite3_vfs) -> bool {
    // SAFETY: the caller's promise; the function takes the VFS and a name.
    let call = unsafe {
        vfs.as_ref()
            .filter(|vfs| vfs.iVersion >= 3)
            .and_then(|vfs| vfs.xGetSystemCall)
            .and_then(|get| get(vfs, c"fcntl".as_ptr()))
    };
    call.and_then(|call| image_of(call as *const c_void))
        .is_some_and(|image| image.extension().is_some_and(|extension| extension == "node"))
}
