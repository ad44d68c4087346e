//! SQL values to JavaScript values.
//!
//! Rows leave as flat lists of values, up to [`CHUNK`] of them in one call of a JavaScript
//! function, which makes objects or arrays of them: an object takes one call of N-API less per
//! property when JavaScript makes it, and one call of JavaScript is shared by many rows.

use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::sys;
use rusqlite::ffi;

use super::errors::{ErrorKind, Outcome, Thrown, check};
use super::raw_call::{Call, Raw, callback, text};

/// Values handed over in one call, unless one row has more.
pub const CHUNK: usize = 384;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"refuseSmallest", callback!(refuse_smallest))];

/// The largest integer up to which JavaScript's numbers are exact.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Whether -2^63 is refused, as by the node:sqlite of the Node that runs. A number happens to hold
/// it, and older ones let it pass.
static SMALLEST_REFUSED: AtomicBool = AtomicBool::new(false);

/// `refuseSmallest()`
fn refuse_smallest(call: &Call<'_>) -> Outcome<sys::napi_value> {
    SMALLEST_REFUSED.store(true, Ordering::Relaxed);
    call.undefined()
}

/// Whether `integer` may become a number.
#[inline]
pub(super) fn is_number(integer: i64) -> bool {
    integer.unsigned_abs() <= MAX_SAFE
        || (integer == i64::MIN && !SMALLEST_REFUSED.load(Ordering::Relaxed))
}

/// Appends the values of the current row to `values`.
///
/// # Safety
/// `statement` has a current row of `columns` columns and is used by this thread alone; `env` is
/// that of the running callback.
///
/// # Errors
/// `ERR_OUT_OF_RANGE` for an integer that a number cannot hold, unless `bigints`.
#[inline]
pub unsafe fn read(
    env: sys::napi_env,
    statement: *mut ffi::sqlite3_stmt,
    columns: c_int,
    bigints: bool,
    values: &mut Vec<sys::napi_value>,
) -> Outcome<()> {
    for column in 0..columns {
        // SAFETY: the caller vouches for all three.
        values.push(unsafe { value(env, statement, column, bigints) }?);
    }
    Ok(())
}

/// # Safety
/// As [`read`]'s, and `column` is one of the row's.
#[inline]
unsafe fn value(
    env: sys::napi_env,
    statement: *mut ffi::sqlite3_stmt,
    column: c_int,
    bigints: bool,
) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: the caller vouches for `statement` and `column`. Text and blobs are copied before
    // the statement is touched again, by the length that belongs to the pointer: it is asked
    // for after the pointer, since a conversion may change it.
    unsafe {
        match ffi::sqlite3_column_type(statement, column) {
            ffi::SQLITE_INTEGER => {
                let integer = ffi::sqlite3_column_int64(statement, column);
                check(if bigints {
                    sys::napi_create_bigint_int64(env, integer, &mut value)
                } else if let Ok(small) = i32::try_from(integer) {
                    sys::napi_create_int32(env, small, &mut value)
                } else if is_number(integer) {
                    sys::napi_create_double(env, integer as f64, &mut value)
                } else {
                    return Err(too_large(integer));
                })?;
            }
            ffi::SQLITE_FLOAT => {
                let real = ffi::sqlite3_column_double(statement, column);
                check(sys::napi_create_double(env, real, &mut value))?;
            }
            ffi::SQLITE_TEXT => {
                let start = ffi::sqlite3_column_text(statement, column);
                let length = ffi::sqlite3_column_bytes(statement, column);
                value = text(env, bytes(start, length)?)?;
            }
            ffi::SQLITE_BLOB => {
                let start = ffi::sqlite3_column_blob(statement, column);
                let length = ffi::sqlite3_column_bytes(statement, column);
                value = blob(env, start.cast(), usize::try_from(length).unwrap_or(0))?;
            }
            _ => check(sys::napi_get_null(env, &mut value))?,
        }
    }
    Ok(value)
}

/// # Safety
/// `start` has `length` readable bytes for as long as the result is used, or is null.
pub(super) unsafe fn bytes<'a>(start: *const u8, length: c_int) -> Outcome<&'a [u8]> {
    if start.is_null() {
        // A text is never null, unless there was no memory to convert it in.
        return Err(Thrown::sqlite(ffi::SQLITE_NOMEM));
    }
    // SAFETY: the caller's.
    Ok(unsafe { std::slice::from_raw_parts(start, usize::try_from(length).unwrap_or(0)) })
}

/// A `Uint8Array` of its own memory.
///
/// # Safety
/// `start` has `length` readable bytes, or `length` is 0.
///
/// # Errors
/// N-API's.
pub unsafe fn blob(
    env: sys::napi_env,
    start: *const u8,
    length: usize,
) -> Outcome<sys::napi_value> {
    let (mut data, mut buffer, mut value) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: the new buffer has room for `length` bytes.
    unsafe {
        check(sys::napi_create_arraybuffer(env, length, &mut data, &mut buffer))?;
        if length > 0 {
            ptr::copy_nonoverlapping(start, data.cast::<u8>(), length);
        }
        check(sys::napi_create_typedarray(
            env,
            sys::TypedarrayType::uint8_array,
            length,
            buffer,
            0,
            &mut value,
        ))?;
    }
    Ok(value)
}

#[cold]
pub(super) fn too_large(integer: i64) -> Thrown {
    Thrown::of(
        ErrorKind::Range,
        "ERR_OUT_OF_RANGE",
        format!("Value is too large to be represented as a JavaScript number: {integer}"),
    )
}

/// Calls the JavaScript function `receive` with `values`.
///
/// # Errors
/// What it throws.
#[inline]
pub fn emit_rows(
    env: sys::napi_env,
    receive: sys::napi_value,
    values: &[sys::napi_value],
) -> Outcome<sys::napi_value> {
    let (mut receiver, mut result) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the handles are those of the running callback in `env`; N-API checks that
    // `receive` is a function.
    unsafe {
        check(sys::napi_get_undefined(env, &mut receiver))?;
        check(sys::napi_call_function(
            env,
            receiver,
            receive,
            values.len(),
            values.as_ptr(),
            &mut result,
        ))?;
    }
    Ok(result)
}

/// Frees the handles made in it when it is dropped, so that a long result does not keep one for
/// each of its values.
#[derive(Debug)]
pub struct Scope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl Scope {
    /// Opens a scope in the running callback.
    ///
    /// # Errors
    /// N-API's.
    pub fn open(env: sys::napi_env) -> Outcome<Self> {
        let mut scope = ptr::null_mut();
        // SAFETY: `env` is that of the running callback.
        check(unsafe { sys::napi_open_handle_scope(env, &mut scope) })?;
        Ok(Self { env, scope })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: scopes are closed in the reverse order of their opening, by nesting.
        unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}
