//! Applying changesets (<https://sqlite.org/session/sqlite3changeset_apply.html>).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::bind::Parameters;
use super::database::{find, turn};
use super::environment::flag;
use super::errors::{Outcome, Thrown, check};
use super::raw_call::{Call, Raw, callback, text};
use super::rows::Scope;
use super::value::boolean;
use crate::engine::session_ffi::{
    CHANGESET_ABORT, CHANGESET_OMIT, ChangesetIter, sqlite3changeset_apply,
};
use crate::engine::with_sync_call;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"applyChangeset", callback!(apply))];

/// What a conflict handler answers that SQLite does not know: the changeset fails with
/// `SQLITE_MISUSE`.
const NO_ANSWER: c_int = -1;

/// The caller's functions, for the callbacks of one changeset.
struct Handlers {
    env: sys::napi_env,
    filter: Option<sys::napi_value>,
    conflict: Option<sys::napi_value>,
    /// One of them threw; the exception is pending, and neither is called again.
    thrown: Cell<bool>,
}

impl Handlers {
    /// Calls `function`, whose receiver is null, as node:sqlite's, and hands what it returns to
    /// `read`. `None` if something was thrown.
    fn call<R>(
        &self,
        function: sys::napi_value,
        argument: impl FnOnce() -> Outcome<sys::napi_value>,
        read: impl FnOnce(sys::napi_value) -> Outcome<R>,
    ) -> Option<R> {
        if self.thrown.get() {
            return None;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _scope = Scope::open(self.env)?;
            let argument = argument()?;
            let (mut receiver, mut result) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: `env` is that of the running callback, in which the handles were made.
            unsafe {
                check(sys::napi_get_null(self.env, &mut receiver))?;
                check(sys::napi_call_function(
                    self.env,
                    receiver,
                    function,
                    1,
                    &argument,
                    &mut result,
                ))?;
            }
            read(result)
        }));
        match outcome {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(Thrown::Error(exception))) => super::errors::throw(self.env, &exception),
            Ok(Err(Thrown::Pending)) | Err(_) => {}
        }
        self.thrown.set(true);
        None
    }
}

/// Whether the changes of `table` are applied.
unsafe extern "C" fn filter(context: *mut c_void, table: *const c_char) -> c_int {
    // SAFETY: `apply` passed its handlers, which live until it returns.
    let handlers = unsafe { &*context.cast::<Handlers>() };
    let Some(function) = handlers.filter else { return 1 };
    // SAFETY: a table's name is NUL-terminated.
    let name = unsafe { CStr::from_ptr(table) };
    let wanted = handlers.call(
        function,
        || text(handlers.env, name.to_bytes()),
        |result| {
            let (mut boolean, mut wanted) = (ptr::null_mut(), false);
            // SAFETY: handles of the running callback; converting to a boolean runs no code.
            unsafe {
                check(sys::napi_coerce_to_bool(handlers.env, result, &mut boolean))?;
                check(sys::napi_get_value_bool(handlers.env, boolean, &mut wanted))?;
            }
            Ok(wanted)
        },
    );
    c_int::from(wanted.unwrap_or(false))
}

/// The conflict handler of a changeset.
unsafe extern "C" fn conflict(
    context: *mut c_void,
    kind: c_int,
    _change: *mut ChangesetIter,
) -> c_int {
    // SAFETY: `apply` passed its handlers, which live until it returns.
    let handlers = unsafe { &*context.cast::<Handlers>() };
    let Some(function) = handlers.conflict else { return CHANGESET_ABORT };
    let env = handlers.env;
    let answer = handlers.call(
        function,
        || {
            let mut value = ptr::null_mut();
            // SAFETY: `env` is that of the running callback.
            check(unsafe { sys::napi_create_int32(env, kind, &mut value) })?;
            Ok(value)
        },
        |result| {
            let mut number = f64::NAN;
            // SAFETY: a handle of the running callback. What is no number leaves NaN.
            unsafe { sys::napi_get_value_double(env, result, &mut number) };
            Ok(answer(number))
        },
    );
    answer.unwrap_or(CHANGESET_ABORT)
}

/// The conflict handler's result for SQLite. node:sqlite accepts only integers, and not -0.
fn answer(number: f64) -> c_int {
    let whole = number as c_int;
    let is_integer = f64::from(whole).to_bits() == number.to_bits();
    if is_integer && (CHANGESET_OMIT..=CHANGESET_ABORT).contains(&whole) {
        whole
    } else {
        NO_ANSWER
    }
}

/// `applyChangeset(database, changeset, onConflict, filter)`: whether it was applied; it was not
/// if a conflict was answered with ABORT. The functions may be `undefined`.
fn apply(call: &Call<'_>) -> Outcome<sys::napi_value> {
    call.environment.report(0);
    let database = find(call.environment, call.number(0)?)?;
    // A copy: the functions may detach the buffer.
    let mut parameters = Parameters::default();
    parameters.read(call.env, &[call.arg(1)?], 1)?;
    let mut changeset = parameters.into_bytes();
    let size = c_int::try_from(changeset.len()).map_err(|_| Thrown::code(ffi::SQLITE_TOOBIG))?;
    let handlers = Handlers {
        env: call.env,
        conflict: function(call, 2)?,
        filter: function(call, 3)?,
        thrown: Cell::new(false),
    };
    let (code, flags) = database.using(|connection| {
        let db = connection.raw();
        // SAFETY: the connection is open and this thread's.
        let in_transaction = || unsafe { ffi::sqlite3_get_autocommit(db) } == 0;
        let before = in_transaction();
        let code = with_sync_call(turn(connection), || {
            // SAFETY: as above; `changeset` has `size` bytes and outlives the call, as do the
            // handlers, which the callbacks alone use.
            unsafe {
                sqlite3changeset_apply(
                    db,
                    size,
                    changeset.as_mut_ptr().cast(),
                    handlers.filter.is_some().then_some(filter),
                    conflict,
                    (&raw const handlers).cast_mut().cast(),
                )
            }
        });
        let ended = before && !in_transaction();
        Ok((code, if ended { flag::TRANSACTION_ENDED | flag::SCHEMA_UNSURE } else { 0 }))
    })?;
    call.environment.report(flags);
    if handlers.thrown.get() {
        return Err(Thrown::Pending);
    }
    if code != ffi::SQLITE_OK
        && let Some(refused) = database.take_refusal()
    {
        return Err(refused);
    }
    if !matches!(code, ffi::SQLITE_OK | ffi::SQLITE_ABORT) {
        return Err(Thrown::code(code));
    }
    boolean(call.env, code == ffi::SQLITE_OK)
}

/// Argument `index`, unless it is `undefined`.
fn function(call: &Call<'_>, index: usize) -> Outcome<Option<sys::napi_value>> {
    let value = call.arg(index)?;
    let mut kind = 0;
    // SAFETY: a handle of the running callback.
    check(unsafe { sys::napi_typeof(call.env, value, &mut kind) })?;
    Ok((kind != sys::ValueType::napi_undefined).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sqlites_own_answers_pass() {
        for (number, expected) in [
            (0.0, 0),
            (1.0, 1),
            (2.0, 2),
            (3.0, -1),
            (-1.0, -1),
            (-0.0, -1),
            (0.5, -1),
            (f64::NAN, -1),
            (4_294_967_297.0, -1),
        ] {
            assert_eq!(answer(number), expected, "{number}");
        }
    }
}
