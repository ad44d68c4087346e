//! Run-time limits (<https://sqlite.org/c3ref/limit.html>).

use std::ffi::{CStr, c_int};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::database::find;
use super::errors::{Outcome, check};
use super::raw_call::{Call, Raw, callback};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] =
    &[(c"limit", callback!(limit)), (c"setLimit", callback!(set_limit))];

/// `limit(database, id)`: its value.
fn limit(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let id = call.number(1)?.cast_signed();
    database.asking(|connection| {
        let mut value = ptr::null_mut();
        // SAFETY: the connection is open and this thread's; a negative value changes nothing, and
        // of an unknown limit it returns -1. `env` is that of the running callback.
        unsafe {
            let limit = ffi::sqlite3_limit(connection.raw(), id, -1);
            check(sys::napi_create_int32(call.env, limit, &mut value))?;
        }
        Ok(value)
    })
}

/// `setLimit(database, id, value)`; SQLite lowers what is beyond its own limit.
fn set_limit(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let id = call.number(1)?.cast_signed();
    let value = c_int::try_from(call.number(2)?).unwrap_or(c_int::MAX);
    database.using(|connection| {
        // SAFETY: the connection is open and this thread's; an unknown limit changes nothing.
        unsafe { ffi::sqlite3_limit(connection.raw(), id, value) };
        Ok(())
    })?;
    call.undefined()
}
