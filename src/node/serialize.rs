//! Databases as bytes, and bytes as databases (<https://sqlite.org/c3ref/serialize.html>,
//! <https://sqlite.org/c3ref/deserialize.html>).

use std::ffi::{CStr, c_uint};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::bind::Parameters;
use super::database::{NOT_REPLACED, find, turn};
use super::errors::{Outcome, Thrown};
use super::raw_call::{Call, Raw, callback};
use super::rows::blob;
use crate::engine::{Error, with_sync_call};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] =
    &[(c"serialize", callback!(serialize)), (c"deserialize", callback!(deserialize))];

/// `serialize(database, name)`: the database `name` as a `Uint8Array`.
fn serialize(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut name = Parameters::default();
    name.read(call.env, &[call.arg(1)?], 1)?;
    let name = name.terminated();
    database.using(|connection| {
        let mut size = 0;
        // SAFETY: the connection is open and this thread's; `name` ends with a NUL.
        let data = with_sync_call(turn(connection), || unsafe {
            ffi::sqlite3_serialize(connection.raw(), name.as_ptr().cast(), &mut size, 0)
        });
        // There is no room of 0 bytes, which is what an empty database takes that is read-only.
        if data.is_null() && size != 0 {
            // SAFETY: the connection is open and this thread's.
            return Err(unsafe { Error::last(connection.raw()) }.into());
        }
        // SAFETY: SQLite allocated `size` bytes at `data`; freed once.
        unsafe {
            let value = blob(call.env, data, usize::try_from(size).unwrap_or(0));
            ffi::sqlite3_free(data.cast());
            value
        }
    })
}

/// `deserialize(database, bytes, name)`: finalises the statements and replaces the database `name`
/// by one in memory with that content.
fn deserialize(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut bytes = Parameters::default();
    bytes.read(call.env, &[call.arg(1)?], 1)?;
    let bytes = bytes.into_bytes();
    let mut name = Parameters::default();
    name.read(call.env, &[call.arg(2)?], 1)?;
    let name = name.terminated();
    database.emptied(call.environment, NOT_REPLACED, |connection| {
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        // SAFETY: the connection is open and this thread's; `name` ends with a NUL. SQLite owns
        // the copy from the call on, also if that fails, since it was allocated by SQLite and
        // FREEONCLOSE is set.
        let code = unsafe {
            let copy = ffi::sqlite3_malloc64(bytes.len() as u64).cast::<u8>();
            if copy.is_null() {
                return Err(Thrown::sqlite(ffi::SQLITE_NOMEM));
            }
            ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
            with_sync_call(turn(connection), || {
                ffi::sqlite3_deserialize(
                    connection.raw(),
                    name.as_ptr().cast(),
                    copy,
                    size,
                    size,
                    (ffi::SQLITE_DESERIALIZE_FREEONCLOSE | ffi::SQLITE_DESERIALIZE_RESIZEABLE)
                        as c_uint,
                )
            })
        };
        if code == ffi::SQLITE_OK {
            return call.undefined();
        }
        // SAFETY: the connection is open and this thread's.
        Err(unsafe { Error::last(connection.raw()) }.into())
    })
}
