//! Sessions: what a connection changes, recorded as changesets
//! (<https://sqlite.org/sessionintro.html>).
//!
//! JavaScript has sessions as numbers. A session cannot be deleted while it records or is read. The
//! JavaScript callbacks of a connection may run at that time, and may not close a session.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use napi::sys;
use rusqlite::ffi;

use super::bind::Parameters;
use super::database::{Database, find as find_database, number, turn};
use super::environment::Environment;
use super::errors::{Outcome, Thrown};
use super::raw_call::{Call, Raw, callback};
use super::rows::blob;
use crate::engine::session_ffi::{
    Session as RawSession, sqlite3session_attach, sqlite3session_changeset, sqlite3session_create,
    sqlite3session_delete, sqlite3session_enable, sqlite3session_patchset,
};
use crate::engine::{Connection, Error, with_sync_call};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"createSession", callback!(create)),
    (c"changeset", callback!(changeset)),
    (c"closeSession", callback!(close)),
];

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Null once it is deleted.
    raw: Cell<*mut RawSession>,
    /// Keeps the connection in existence until the session is deleted.
    database: Rc<Database>,
    /// It is being read.
    reading: Cell<bool>,
}

impl Session {
    /// Deletes the session. Requires that no call is using the connection, or that no call can use
    /// it after this one.
    fn delete(&self) {
        let _entered = self.database.enter();
        let raw = self.raw.replace(ptr::null_mut());
        if !raw.is_null() {
            // SAFETY: the session was created on a connection that is still open, since closing
            // deletes its sessions first, and the pointer is forgotten here.
            unsafe { sqlite3session_delete(raw) };
        }
    }

    /// # Safety
    /// The session is not deleted.
    unsafe fn record(&self, yes: bool) {
        // SAFETY: the caller's; the connection is this thread's.
        unsafe { sqlite3session_enable(self.raw.get(), c_int::from(yes)) };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Deletes the sessions of `database`.
pub fn delete_all(environment: &Environment, database: &Rc<Database>) {
    let numbers =
        environment.sessions.borrow().numbers(|session| Rc::ptr_eq(&session.database, database));
    for number in numbers {
        let session = environment.sessions.borrow_mut().remove(number);
        if let Some(session) = session {
            session.delete();
        }
    }
}

/// Whether a database that `wanted` picks has a session.
pub fn has_any(environment: &Environment, wanted: &dyn Fn(&Rc<Database>) -> bool) -> bool {
    let sessions = environment.sessions.borrow();
    !sessions.numbers(|session| wanted(&session.database)).is_empty()
}

/// The session with `number`, unless it is closed.
fn find(environment: &Environment, number: u32) -> Outcome<Rc<Session>> {
    let session = environment.sessions.borrow().get(number).map(Rc::clone);
    session.ok_or_else(|| Thrown::state("session is not open"))
}

/// `createSession(database, table, name)`: the number of a session that records what the
/// connection changes in `table`, or in every table if that is empty, of the database `name`.
fn create(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find_database(call.environment, call.number(0)?)?;
    let mut table = Parameters::default();
    table.read(call.env, &[call.arg(1)?], 1)?;
    let mut name = Parameters::default();
    name.read(call.env, &[call.arg(2)?], 1)?;
    let (table, name) = (table.terminated(), name.terminated());
    let raw = database.using(|connection| create_raw(connection, table, name))?;
    let session = Rc::new(Session { raw: Cell::new(raw), database, reading: Cell::new(false) });
    let inserted = call.environment.sessions.borrow_mut().insert(session);
    number(call.env, inserted.ok_or_else(|| Thrown::state("too many sessions"))?)
}

/// `table` and `name` end with a NUL byte.
fn create_raw(connection: &Connection, table: &[u8], name: &[u8]) -> Outcome<*mut RawSession> {
    let table =
        if table.first() == Some(&0) { ptr::null() } else { table.as_ptr().cast::<c_char>() };
    let mut raw = ptr::null_mut();
    // SAFETY: the connection is open and this thread's; the names are NUL-terminated, and SQLite
    // copies them. A session that cannot be attached is deleted and forgotten.
    unsafe {
        let mut code = sqlite3session_create(connection.raw(), name.as_ptr().cast(), &mut raw);
        if code == ffi::SQLITE_OK {
            code = sqlite3session_attach(raw, table);
            if code != ffi::SQLITE_OK {
                sqlite3session_delete(raw);
            }
        }
        if code != ffi::SQLITE_OK {
            return Err(Error::last(connection.raw()).into());
        }
    }
    Ok(raw)
}

/// `changeset(session, patchset)`: what was recorded so far, as a changeset or a patchset.
fn changeset(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let session = find(call.environment, call.number(0)?)?;
    let read = if call.flag(1) { sqlite3session_patchset } else { sqlite3session_changeset };
    session.database.using(|connection| {
        if session.reading.replace(true) {
            return Err(Thrown::state("session is busy: it is being read"));
        }
        let (mut length, mut data): (c_int, *mut c_void) = (0, ptr::null_mut());
        // SAFETY: the session is not deleted (`find`; it cannot be deleted while the connection is
        // lent), its connection open and this thread's. It does not record meanwhile: the
        // authorizer and generated columns may run JavaScript, whose changes would alter the
        // session while SQLite reads it.
        let code = unsafe {
            session.record(false);
            let code = with_sync_call(turn(connection), || {
                read(session.raw.get(), &mut length, &mut data)
            });
            session.record(true);
            code
        };
        session.reading.set(false);
        if code != ffi::SQLITE_OK {
            // SAFETY: the connection is open and this thread's.
            return Err(unsafe { Error::last(connection.raw()) }.into());
        }
        // SAFETY: SQLite allocated `length` bytes at `data`, or none; freed once.
        unsafe {
            let value = blob(call.env, data.cast(), usize::try_from(length).unwrap_or(0));
            ffi::sqlite3_free(data);
            value
        }
    })
}

/// `closeSession(session)`.
fn close(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    if !find(call.environment, number)?.database.is_idle() {
        return Err(Thrown::state("session cannot be closed while in a callback"));
    }
    let removed = call.environment.sessions.borrow_mut().remove(number);
    drop(removed);
    call.undefined()
}
