//! JavaScript values to results of SQL functions (<https://sqlite.org/c3ref/result_blob.html>).
//!
//! | JavaScript | SQL |
//! |---|---|
//! | `null`, `undefined` | NULL |
//! | number | REAL |
//! | bigint | INTEGER |
//! | string | TEXT |
//! | typed array, `DataView`, `ArrayBuffer`, `SharedArrayBuffer` | BLOB |
//!
//! Everything else, a promise say, is an error of the function in SQL, as in node:sqlite.

use std::ffi::{c_char, c_int, c_uchar, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::bind::buffer;
use super::environment::Environment;
use super::errors::{Outcome, check};

/// Bytes up to which a string is converted on the stack.
const SHORT: usize = 512;

/// Makes `value` the result of the function that `context` belongs to.
///
/// # Safety
/// `context` is that of the running SQL function, and `value` a handle of its scope.
///
/// # Errors
/// N-API's.
#[inline]
pub unsafe fn set_result(
    context: *mut ffi::sqlite3_context,
    env: sys::napi_env,
    value: sys::napi_value,
) -> Outcome<()> {
    let mut kind = 0;
    // SAFETY: here and below, the caller vouches for `context` and `value`; the out-pointers lead
    // to locals of the type that the function writes.
    unsafe {
        check(sys::napi_typeof(env, value, &mut kind))?;
        match kind {
            sys::ValueType::napi_number => {
                let mut number = 0.0;
                check(sys::napi_get_value_double(env, value, &mut number))?;
                ffi::sqlite3_result_double(context, number);
            }
            sys::ValueType::napi_string => text(context, env, value)?,
            sys::ValueType::napi_null | sys::ValueType::napi_undefined => {
                ffi::sqlite3_result_null(context);
            }
            sys::ValueType::napi_bigint => {
                let (mut number, mut lossless) = (0, false);
                check(sys::napi_get_value_bigint_int64(env, value, &mut number, &mut lossless))?;
                if lossless {
                    ffi::sqlite3_result_int64(context, number);
                } else {
                    refuse(context, "BigInt value is too large for SQLite");
                }
            }
            sys::ValueType::napi_object => object(context, env, value)?,
            _ => refuse(context, UNCONVERTIBLE),
        }
    }
    Ok(())
}

const UNCONVERTIBLE: &str = "Returned JavaScript value cannot be converted to a SQLite value";

/// Makes `message` the function's error.
///
/// # Safety
/// `context` is that of the running SQL function.
pub unsafe fn refuse(context: *mut ffi::sqlite3_context, message: &str) {
    let length = c_int::try_from(message.len()).unwrap_or(c_int::MAX);
    // SAFETY: the caller's; SQLite copies the message.
    unsafe { ffi::sqlite3_result_error(context, message.as_ptr().cast::<c_char>(), length) };
}

/// # Safety
/// As [`set_result`]'s; `value` is a string.
#[inline]
unsafe fn text(
    context: *mut ffi::sqlite3_context,
    env: sys::napi_env,
    value: sys::napi_value,
) -> Outcome<()> {
    let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
    let mut length = 0;
    // SAFETY: N-API writes at most the bytes that it is offered and reports how many; SQLite copies
    // the short text at once, and frees the long one, which SQLite's allocator gave.
    unsafe {
        check(sys::napi_get_value_string_utf8(
            env,
            value,
            short.as_mut_ptr().cast(),
            SHORT,
            &mut length,
        ))?;
        // A text that was cut ends less than one character, of up to 4 bytes, and the NUL before
        // the end.
        if length + 5 < SHORT {
            ffi::sqlite3_result_text64(
                context,
                short.as_ptr().cast(),
                length as u64,
                ffi::SQLITE_TRANSIENT(),
                ffi::SQLITE_UTF8 as c_uchar,
            );
            return Ok(());
        }
        check(sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut length))?;
        let room = ffi::sqlite3_malloc64(length as u64 + 1).cast::<c_char>();
        if room.is_null() {
            ffi::sqlite3_result_error_nomem(context);
            return Ok(());
        }
        let status = sys::napi_get_value_string_utf8(env, value, room, length + 1, &mut length);
        if status != sys::Status::napi_ok {
            ffi::sqlite3_free(room.cast());
        }
        check(status)?;
        ffi::sqlite3_result_text64(
            context,
            room,
            length as u64,
            Some(ffi::sqlite3_free),
            ffi::SQLITE_UTF8 as c_uchar,
        );
    }
    Ok(())
}

/// # Safety
/// As [`set_result`]'s; `value` is an object.
unsafe fn object(
    context: *mut ffi::sqlite3_context,
    env: sys::napi_env,
    value: sys::napi_value,
) -> Outcome<()> {
    // SAFETY: the caller's. The bytes of a buffer are copied before anything else happens to it.
    unsafe {
        if let Some((start, length)) = buffer(env, value)? {
            blob(context, start, length);
            return Ok(());
        }
        let mut promise = false;
        check(sys::napi_is_promise(env, value, &mut promise))?;
        if promise {
            refuse(context, "Asynchronous user-defined functions are not supported");
            return Ok(());
        }
        match Environment::of(env)?.view_of(value)? {
            Some(view) => match buffer(env, view)? {
                Some((start, length)) => blob(context, start, length),
                None => refuse(context, UNCONVERTIBLE),
            },
            None => refuse(context, UNCONVERTIBLE),
        }
    }
    Ok(())
}

/// # Safety
/// `context` is that of the running SQL function; `start` has `length` readable bytes or is null.
unsafe fn blob(context: *mut ffi::sqlite3_context, start: *const u8, length: usize) {
    // SAFETY: the caller's; SQLite copies the bytes.
    unsafe {
        ffi::sqlite3_result_blob64(
            context,
            start.cast::<c_void>(),
            length as u64,
            ffi::SQLITE_TRANSIENT(),
        );
    }
}
