//! SQLite's session functions, which `libsqlite3-sys` declares only where it runs bindgen.
//!
//! They are compiled in by `SQLITE_ENABLE_SESSION` and `SQLITE_ENABLE_PREUPDATE_HOOK` (see
//! `.cargo/config.toml`); the signatures are those of `sqlite3.h`, documented at
//! <https://sqlite.org/session/funclist.html>. Use is bound to the thread of the connection.

use std::ffi::{c_char, c_int, c_void};
use std::marker::{PhantomData, PhantomPinned};

use rusqlite::ffi::sqlite3;

/// <https://sqlite.org/session/session.html>
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    _opaque: [u8; 0],
    _pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

/// <https://sqlite.org/session/changeset_iter.html>
#[derive(Debug)]
#[repr(C)]
pub struct ChangesetIter {
    _opaque: [u8; 0],
    _pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

/// Return value of a conflict handler: leave the conflicting change out.
pub const CHANGESET_OMIT: c_int = 0;
/// Return value of a conflict handler: undo everything.
pub const CHANGESET_ABORT: c_int = 2;

/// Asked for each table of a changeset: 0 leaves its changes out.
pub type Filter = unsafe extern "C" fn(context: *mut c_void, table: *const c_char) -> c_int;
/// Called for each conflict; returns what to do.
pub type Conflict =
    unsafe extern "C" fn(context: *mut c_void, kind: c_int, change: *mut ChangesetIter) -> c_int;

unsafe extern "C" {
    /// <https://sqlite.org/session/sqlite3session_create.html>
    pub fn sqlite3session_create(
        db: *mut sqlite3,
        name: *const c_char,
        session: *mut *mut Session,
    ) -> c_int;
    /// <https://sqlite.org/session/sqlite3session_delete.html>
    pub fn sqlite3session_delete(session: *mut Session);
    /// <https://sqlite.org/session/sqlite3session_enable.html>
    pub fn sqlite3session_enable(session: *mut Session, enable: c_int) -> c_int;
    /// <https://sqlite.org/session/sqlite3session_attach.html>
    pub fn sqlite3session_attach(session: *mut Session, table: *const c_char) -> c_int;
    /// <https://sqlite.org/session/sqlite3session_changeset.html>
    pub fn sqlite3session_changeset(
        session: *mut Session,
        size: *mut c_int,
        changeset: *mut *mut c_void,
    ) -> c_int;
    /// <https://sqlite.org/session/sqlite3session_patchset.html>
    pub fn sqlite3session_patchset(
        session: *mut Session,
        size: *mut c_int,
        patchset: *mut *mut c_void,
    ) -> c_int;
    /// <https://sqlite.org/session/sqlite3changeset_apply.html>
    pub fn sqlite3changeset_apply(
        db: *mut sqlite3,
        size: c_int,
        changeset: *mut c_void,
        filter: Option<Filter>,
        conflict: Conflict,
        context: *mut c_void,
    ) -> c_int;
}
