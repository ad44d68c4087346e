//! Arguments of raw callbacks: JavaScript values to Rust ones, read once each.

use std::ffi::c_char;
use std::ptr;
use std::time::Duration;

use napi::sys;

use super::errors::{ErrorKind, Outcome, Thrown, check};
use super::raw_call::Call;

/// A number argument, as JavaScript has it.
pub(super) fn double(call: &Call<'_>, index: usize) -> Outcome<f64> {
    let mut value = 0.0;
    // SAFETY: the argument is a handle of the running callback.
    check(unsafe { sys::napi_get_value_double(call.env, call.arg(index)?, &mut value) })?;
    Ok(value)
}

/// A number argument of milliseconds.
pub(super) fn millis(call: &Call<'_>, index: usize) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(double(call, index)? / 1000.0).unwrap_or(Duration::MAX))
}

/// A number argument as an integer, bounded to its type.
pub(super) fn integer(call: &Call<'_>, index: usize) -> Outcome<u64> {
    Ok(double(call, index)? as u64)
}

/// A string argument; none if it is something else.
pub(super) fn string(call: &Call<'_>, index: usize) -> Outcome<Option<String>> {
    let mut bytes = Vec::new();
    if read_string(call.env, call.arg(index)?, &mut bytes)? {
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    } else {
        Ok(None)
    }
}

/// Appends `value` to `bytes` as UTF-8, lone surrogates as U+FFFD; `false` if it is no string.
#[inline]
pub(super) fn read_string(
    env: sys::napi_env,
    value: sys::napi_value,
    bytes: &mut Vec<u8>,
) -> Outcome<bool> {
    bytes.reserve(256);
    loop {
        let (length, room) = (bytes.len(), bytes.capacity() - bytes.len());
        let mut written = 0;
        // SAFETY: the spare capacity behind `length` is writable for `room` bytes; `value` is a
        // handle of the running callback.
        let status = unsafe {
            sys::napi_get_value_string_utf8(
                env,
                value,
                bytes.as_mut_ptr().add(length).cast::<c_char>(),
                room,
                &mut written,
            )
        };
        if status == sys::Status::napi_string_expected {
            return Ok(false);
        }
        check(status)?;
        // One byte is for the NUL; up to three are left where a character did not fit.
        if written + 4 < room {
            // SAFETY: V8 wrote `written` bytes of UTF-8 behind `length`.
            unsafe { bytes.set_len(length + written) };
            return Ok(true);
        }
        let mut needed = 0;
        // SAFETY: without a buffer the call only measures.
        check(unsafe {
            sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut needed)
        })?;
        bytes.try_reserve(needed + 8).map_err(|_| {
            Thrown::of(ErrorKind::Plain, "ERR_FUSION_MEMORY", "not enough memory for a log entry")
        })?;
    }
}

/// Whether `value` is null or undefined.
pub(super) fn is_absent(env: sys::napi_env, value: sys::napi_value) -> bool {
    let mut kind = sys::ValueType::napi_undefined;
    // SAFETY: `value` is a handle of the running callback.
    unsafe { sys::napi_typeof(env, value, &mut kind) };
    kind == sys::ValueType::napi_undefined || kind == sys::ValueType::napi_null
}
