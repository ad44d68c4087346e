//! JavaScript functions that SQLite calls while it prepares or runs a statement.
//!
//! Such a call happens inside a native call from JavaScript, on the same thread. An exception that
//! the function throws stays pending in the environment. The call returns an error to SQLite,
//! which unwinds, and Node throws the exception when the outer native call returns. Until then
//! every further call fails: N-API refuses to run JavaScript while an exception is pending, and
//! once the thread is being terminated.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::errors::{Outcome, Thrown, check, throw};
use super::raw_call::text;
use super::rows::{Scope, blob, bytes, is_number, too_large};

/// Values that are passed without allocating.
const INLINE: usize = 8;

/// A JavaScript function. The reference is weak: functions capture the database that they are
/// defined on, and a strong reference would keep both for ever. The JavaScript object of the
/// connection (`lib/statement-cache.js`) keeps its functions alive.
#[derive(Debug)]
pub struct JsCallback {
    env: sys::napi_env,
    reference: sys::napi_ref,
    /// A handle of the function, in the scope with that number.
    handle: Cell<(u64, sys::napi_value)>,
}

/// The handle scope that the calls of one step share: opening one for each call, and looking up
/// the function and `undefined` in it, costs a fifth of the call.
#[derive(Debug)]
struct Shared {
    /// A step is under way, and no JavaScript runs in it: the scope may be used.
    ready: Cell<bool>,
    /// Null until the first call of the step.
    scope: Cell<sys::napi_handle_scope>,
    /// Calls in the scope.
    calls: Cell<u32>,
    /// Numbers the scopes; 0 while no scope is open.
    number: Cell<u64>,
    undefined: Cell<sys::napi_value>,
    latest: Cell<u64>,
}

/// The most calls that share a scope, which limits its handles.
const SHARE: u32 = 64;

thread_local! {
    static SHARED: Shared = const {
        Shared {
            ready: Cell::new(false),
            scope: Cell::new(ptr::null_mut()),
            calls: Cell::new(0),
            number: Cell::new(0),
            undefined: Cell::new(ptr::null_mut()),
            latest: Cell::new(0),
        }
    };
}

impl Shared {
    fn close(&self, env: sys::napi_env) {
        let scope = self.scope.replace(ptr::null_mut());
        self.number.set(0);
        if !scope.is_null() {
            // SAFETY: `open` opened it, in the native call that still runs, and what was opened
            // after it has been closed: JavaScript has returned.
            unsafe { sys::napi_close_handle_scope(env, scope) };
        }
    }

    fn open(&self, env: sys::napi_env) -> Outcome<()> {
        let (mut scope, mut undefined) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `env` is that of the running native call.
        unsafe {
            check(sys::napi_open_handle_scope(env, &mut scope))?;
            self.scope.set(scope);
            check(sys::napi_get_undefined(env, &mut undefined))?;
        }
        self.undefined.set(undefined);
        self.calls.set(0);
        self.latest.set(self.latest.get() + 1);
        self.number.set(self.latest.get());
        Ok(())
    }

    /// Makes room for another call.
    #[inline]
    fn renew(&self, env: sys::napi_env) -> Outcome<()> {
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        if self.scope.get().is_null() || calls > SHARE {
            self.close(env);
            self.open(env)?;
        }
        Ok(())
    }
}

/// Runs `body`, which makes SQLite run statements and no handles: the functions that it calls
/// share scopes.
#[inline]
pub fn stepping<R>(env: sys::napi_env, body: impl FnOnce() -> R) -> R {
    struct Restore<'a> {
        shared: &'a Shared,
        env: sys::napi_env,
        ready: bool,
        scope: sys::napi_handle_scope,
        calls: u32,
        number: u64,
        undefined: sys::napi_value,
    }
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let shared = self.shared;
            shared.close(self.env);
            shared.ready.set(self.ready);
            shared.scope.set(self.scope);
            shared.calls.set(self.calls);
            shared.number.set(self.number);
            shared.undefined.set(self.undefined);
        }
    }
    SHARED.with(|shared| {
        let _restore = Restore {
            shared,
            env,
            ready: shared.ready.replace(true),
            scope: shared.scope.replace(ptr::null_mut()),
            calls: shared.calls.replace(0),
            number: shared.number.replace(0),
            undefined: shared.undefined.get(),
        };
        body()
    })
}

impl JsCallback {
    /// Refers to `function`.
    ///
    /// # Errors
    /// N-API's, if it is no function or object.
    pub fn new(env: sys::napi_env, function: sys::napi_value) -> Outcome<Self> {
        let mut reference = ptr::null_mut();
        // SAFETY: `env` is that of the running callback and `function` a handle in it.
        check(unsafe { sys::napi_create_reference(env, function, 0, &mut reference) })?;
        Ok(Self { env, reference, handle: Cell::new((0, ptr::null_mut())) })
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
        let (number, mut receiver) =
            SHARED.with(|shared| (shared.number.get(), shared.undefined.get()));
        let (known, mut function) = self.handle.get();
        let mut result = ptr::null_mut();
        // SAFETY: SQLite calls this thread only within a native call, in whose scope, or one
        // that the caller opened, the handles are made. The reference was made in `new`.
        unsafe {
            if number == 0 || number != known {
                check(sys::napi_get_reference_value(self.env, self.reference, &mut function))?;
                if function.is_null() {
                    return Err(Thrown::state("the function was collected with its database"));
                }
                self.handle.set((number, function));
            }
            if number == 0 {
                check(sys::napi_get_undefined(self.env, &mut receiver))?;
            }
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
                } else if is_number(integer) {
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
                result = blob(env, start.cast(), usize::try_from(length).unwrap_or(0))?;
            }
            _ => check(sys::napi_get_null(env, &mut result))?,
        }
    }
    Ok(result)
}

impl Drop for JsCallback {
    fn drop(&mut self) {
        // SAFETY: the reference was made in `new` and is deleted once. Connections are closed,
        // and functions let go, before their environment ends.
        unsafe { sys::napi_delete_reference(self.env, self.reference) };
    }
}

/// Sets a cell back.
struct Reset<'a, T: Copy>(&'a Cell<T>, T);

impl<T: Copy> Drop for Reset<'_, T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Runs `body` for SQLite, in a scope of its own. What it fails with becomes the pending
/// exception; `None` says that there is one. A panic does not cross into SQLite.
#[inline]
pub fn attempt<R>(env: sys::napi_env, body: impl FnOnce() -> Outcome<R>) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        SHARED.with(|shared| {
            // JavaScript that runs in the meantime opens scopes inside this one, so only this call
            // may close it.
            if !shared.ready.replace(false) {
                let number = shared.number.replace(0);
                let _restore = Reset(&shared.number, number);
                let _scope = Scope::open(env)?;
                return body();
            }
            let _restore = Reset(&shared.ready, true);
            shared.renew(env)?;
            body()
        })
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
