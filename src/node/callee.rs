//! JavaScript functions that SQLite calls while it prepares or runs a statement.
//!
//! Such a call happens inside a native call from JavaScript, on the same thread. What the
//! function throws stays pending in the environment; SQLite is told that the call failed, unwinds,
//! and Node throws the exception when the outer native call returns. Until then every further
//! call fails by itself: N-API refuses to run JavaScript while an exception is pending, or once
//! the thread is being terminated.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::callback::text;
use super::errors::{Outcome, Thrown, check, throw};
use super::rows::{MAX_SAFE, Scope, blob, bytes, too_large};

/// Values that are passed without allocating.
const INLINE: usize = 8;

/// A JavaScript function. The reference is weak: functions capture the database that they are
/// defined on, and a strong one would keep both for ever. JavaScript keeps the functions of a
/// connection beside it.
#[derive(Debug)]
pub struct Callee {
    env: sys::napi_env,
    reference: sys::napi_ref,
}

impl Callee {
    /// Refers to `function`.
    ///
    /// # Errors
    /// N-API's, if it is no function or object.
    pub fn new(env: sys::napi_env, function: sys::napi_value) -> Outcome<Self> {
        let mut reference = ptr::null_mut();
        // SAFETY: `env` is that of the running callback and `function` a handle in it.
        check(unsafe { sys::napi_create_reference(env, function, 0, &mut reference) })?;
        Ok(Self { env, reference })
    }

    /// The environment it lives in.
    pub fn env(&self) -> sys::napi_env {
        self.env
    }

    /// Calls it with `this` undefined.
    ///
    /// # Errors
    /// `Pending` when it throws, or cannot run because something else was thrown.
    #[inline]
    pub fn call(&self, arguments: &[sys::napi_value]) -> Outcome<sys::napi_value> {
        let (mut function, mut receiver, mut result) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: SQLite calls this thread only within a native call, in whose scope, or one
        // that the caller opened, the handles are made. The reference was made in `new`.
        unsafe {
            check(sys::napi_get_reference_value(self.env, self.reference, &mut function))?;
            if function.is_null() {
                return Err(Thrown::state("the function was collected with its database"));
            }
            check(sys::napi_get_undefined(self.env, &mut receiver))?;
            check(sys::napi_call_function(
                self.env,
                receiver,
                function,
                arguments.len(),
                arguments.as_ptr(),
                &mut result,
            ))?;
        }
        Ok(result)
    }

    /// Calls it with `first`, if there is one, and SQLite's values.
    ///
    /// # Safety
    /// `argv` has `argc` values, which stay as they are during the call.
    ///
    /// # Errors
    /// As [`Self::call`]'s; `ERR_OUT_OF_RANGE` for an integer that a number cannot hold, unless
    /// `bigints`.
    #[inline]
    pub unsafe fn call_with(
        &self,
        first: Option<i32>,
        argc: c_int,
        argv: *mut *mut ffi::sqlite3_value,
        bigints: bool,
    ) -> Outcome<sys::napi_value> {
        let given = usize::try_from(argc).unwrap_or(0);
        let offset = usize::from(first.is_some());
        let count = given + offset;
        let mut inline = [ptr::null_mut(); INLINE];
        let mut many = Vec::new();
        let arguments: &mut [sys::napi_value] = if let Some(arguments) = inline.get_mut(..count) {
            arguments
        } else {
            many.resize(count, ptr::null_mut());
            &mut many
        };
        for (index, slot) in arguments.iter_mut().enumerate() {
            // SAFETY: the caller vouches for `argv`, of whose values `index - offset` is one;
            // handles are made in the caller's scope.
            unsafe {
                match first {
                    Some(first) if index == 0 => {
                        check(sys::napi_create_int32(self.env, first, slot))?;
                    }
                    _ => *slot = argument(self.env, *argv.add(index - offset), bigints)?,
                }
            }
        }
        self.call(arguments)
    }
}

/// An argument of a function as a JavaScript value.
///
/// # Safety
/// `value` is an argument of the running SQL function; `env` is this thread's, in a native call.
#[inline]
unsafe fn argument(
    env: sys::napi_env,
    value: *mut ffi::sqlite3_value,
    bigints: bool,
) -> Outcome<sys::napi_value> {
    let mut result = ptr::null_mut();
    // SAFETY: the caller's. Text and blobs are copied before the value is touched again, by the
    // length that is asked for after the pointer, since a conversion may change it.
    unsafe {
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => {
                let integer = ffi::sqlite3_value_int64(value);
                check(if bigints {
                    sys::napi_create_bigint_int64(env, integer, &mut result)
                } else if let Ok(small) = i32::try_from(integer) {
                    sys::napi_create_int32(env, small, &mut result)
                } else if integer.unsigned_abs() <= MAX_SAFE || integer == i64::MIN {
                    sys::napi_create_double(env, integer as f64, &mut result)
                } else {
                    return Err(too_large(integer));
                })?;
            }
            ffi::SQLITE_FLOAT => {
                let real = ffi::sqlite3_value_double(value);
                check(sys::napi_create_double(env, real, &mut result))?;
            }
            ffi::SQLITE_TEXT => {
                let start = ffi::sqlite3_value_text(value);
                let length = ffi::sqlite3_value_bytes(value);
                result = text(env, bytes(start, length)?)?;
            }
            ffi::SQLITE_BLOB => {
                let start = ffi::sqlite3_value_blob(value);
                let length = ffi::sqlite3_value_bytes(value);
                result = blob(env, start.cast(), length)?;
            }
            _ => check(sys::napi_get_null(env, &mut result))?,
        }
    }
    Ok(result)
}

impl Drop for Callee {
    fn drop(&mut self) {
        // SAFETY: the reference was made in `new` and is deleted once. Connections are closed,
        // and functions let go, before their environment ends.
        unsafe { sys::napi_delete_reference(self.env, self.reference) };
    }
}

/// Runs `body` for SQLite, in a scope of its own. What it fails with becomes the pending
/// exception; `None` says that there is one. A panic does not cross into SQLite.
#[inline]
pub fn attempt<R>(env: sys::napi_env, body: impl FnOnce() -> Outcome<R>) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _scope = Scope::open(env)?;
        body()
    }));
    match result {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            fail(env, error);
            None
        }
        Err(_) => {
            fail(env, Thrown::state("internal error in fusion-sqlite: a native call panicked"));
            None
        }
    }
}

#[cold]
fn fail(env: sys::napi_env, error: Thrown) {
    if let Thrown::Error(exception) = error {
        // Its handles go with the native call that SQLite runs in.
        throw(env, &exception);
    }
}
