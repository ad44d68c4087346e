//! Loadable extensions (<https://sqlite.org/loadext.html>), and what an open connection permits.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::bind::Parameters;
use super::database::{configure, find};
use super::errors::{ErrorKind, Outcome, Thrown};
use super::raw_call::{Call, Raw, callback};
use crate::engine::Connection;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"enableLoadExtension", callback!(enable)),
    (c"enableDefensive", callback!(enable_defensive)),
    (c"loadExtension", callback!(load)),
];

/// `enableLoadExtension(database, allow)`: for [`load`] only, not for the SQL function.
fn enable(call: &Call<'_>) -> Outcome<sys::napi_value> {
    switch(call, ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION)
}

/// `enableDefensive(database, active)`.
fn enable_defensive(call: &Call<'_>) -> Outcome<sys::napi_value> {
    switch(call, ffi::SQLITE_DBCONFIG_DEFENSIVE)
}

fn switch(call: &Call<'_>, option: c_int) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let enabled = call.flag(1);
    database.using(|connection| configure(connection, option, enabled))?;
    call.undefined()
}

/// `loadExtension(database, path, entryPoint)`; without an entry point SQLite looks for one.
fn load(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut path = Parameters::default();
    path.read(call.env, &[call.arg(1)?], 1)?;
    let mut entry = Parameters::default();
    entry.read(call.env, call.rest(2), 1)?;
    let entry = (call.args.len() > 2).then(|| entry.terminated());
    database.using(|connection| load_file(connection, path.terminated(), entry))?;
    if let Some(reopening) = database.reopening() {
        reopening.has_extensions();
    }
    call.undefined()
}

/// `path` and `entry` end with a NUL.
fn load_file(connection: &Connection, path: &[u8], entry: Option<&[u8]>) -> Outcome<()> {
    let mut message: *mut c_char = ptr::null_mut();
    // SAFETY: the connection is open and this thread's; the texts end with a NUL. What the
    // extension does is the caller's choice.
    let code = unsafe {
        ffi::sqlite3_load_extension(
            connection.raw(),
            path.as_ptr().cast(),
            entry.map_or(ptr::null(), <[u8]>::as_ptr).cast(),
            &mut message,
        )
    };
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    let said = if message.is_null() {
        crate::engine::errstr(code)
    } else {
        // SAFETY: SQLite gave a NUL-terminated text, which is freed here, once.
        unsafe {
            let said = CStr::from_ptr(message).to_string_lossy().into_owned();
            ffi::sqlite3_free(message.cast());
            said
        }
    };
    Err(Thrown::of(ErrorKind::Plain, "ERR_LOAD_SQLITE_EXTENSION", said))
}
