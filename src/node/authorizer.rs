//! The authorizer (<https://sqlite.org/c3ref/set_authorizer.html>): a JavaScript function that
//! says which actions a statement may take, while SQLite prepares it.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use napi::sys;
use rusqlite::ffi;

use super::database::find;
use super::errors::{ErrorKind, Outcome, Thrown, check};
use super::js_callback::{JsCallback, attempt};
use super::raw_call::{Call, Raw, callback, text};
use crate::engine::Connection;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"setAuthorizer", callback!(set_authorizer))];

/// What SQLite has as the authorizer's user data; the database keeps it.
#[derive(Debug)]
pub struct Authorizer {
    callee: JsCallback,
    /// The database's: see `Database::using`.
    preparing: Rc<Cell<bool>>,
}

impl Authorizer {
    /// Has `connection` ask it. The connection's database keeps it until after SQLite is given
    /// another.
    pub fn install(self: &Rc<Self>, connection: &Connection) {
        // SAFETY: the connection is open and this thread's; the pointer is kept, see above.
        unsafe {
            ffi::sqlite3_set_authorizer(
                connection.raw(),
                Some(authorize),
                Rc::as_ptr(self).cast_mut().cast::<c_void>(),
            );
        }
    }

    /// Leaves `connection` without an authorizer.
    pub fn remove(connection: &Connection) {
        // SAFETY: the connection is open and this thread's.
        unsafe { ffi::sqlite3_set_authorizer(connection.raw(), None, ptr::null_mut()) };
    }
}

/// `setAuthorizer(database, function)`, or none.
fn set_authorizer(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let authorizer = if call.args.len() > 1 {
        let callee = JsCallback::new(call.env, call.arg(1)?)?;
        Some(Rc::new(Authorizer { callee, preparing: Rc::clone(database.preparing()) }))
    } else {
        None
    };
    database.using(|connection| {
        match &authorizer {
            Some(authorizer) => authorizer.install(connection),
            None => Authorizer::remove(connection),
        }
        Ok(())
    })?;
    database.keep_authorizer(authorizer);
    call.undefined()
}

/// SQLite asks about an action.
unsafe extern "C" fn authorize(
    data: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    third: *const c_char,
    fourth: *const c_char,
) -> c_int {
    // SAFETY: SQLite passes what `set_authorizer` gave it, which the database keeps until another
    // takes its place; this call's own count lasts until it returns.
    let authorizer = unsafe {
        let data = data.cast::<Authorizer>().cast_const();
        Rc::increment_strong_count(data);
        Rc::from_raw(data)
    };
    let env = authorizer.callee.env();
    let outer = authorizer.preparing.replace(true);
    let answer = attempt(env, || {
        let mut arguments = [ptr::null_mut(); 5];
        let [code, names @ ..] = &mut arguments;
        // SAFETY: `env` is this thread's, in a native call; SQLite's texts are null or
        // NUL-terminated.
        unsafe {
            check(sys::napi_create_int32(env, action, code))?;
            for (name, start) in names.iter_mut().zip([first, second, third, fourth]) {
                *name = if start.is_null() {
                    let mut null = ptr::null_mut();
                    check(sys::napi_get_null(env, &mut null))?;
                    null
                } else {
                    text(env, CStr::from_ptr(start).to_bytes())?
                };
            }
        }
        decision(env, authorizer.callee.call(&arguments)?)
    });
    authorizer.preparing.set(outer);
    answer.unwrap_or(ffi::SQLITE_DENY)
}

/// What the function's result says.
fn decision(env: sys::napi_env, value: sys::napi_value) -> Outcome<c_int> {
    let mut number = f64::NAN;
    // SAFETY: `value` is a handle of the running call; what is no number leaves `number` as it is.
    unsafe { sys::napi_get_value_double(env, value, &mut number) };
    let code = number as i32;
    // Bits: -0 is no integer to node:sqlite.
    if f64::from(code).to_bits() != number.to_bits() {
        let message = "Authorizer callback must return an integer authorization code";
        return Err(Thrown::of(ErrorKind::Type, "", message));
    }
    match code {
        ffi::SQLITE_OK | ffi::SQLITE_DENY | ffi::SQLITE_IGNORE => Ok(code),
        _ => {
            let message = "Authorizer callback returned a invalid authorization code";
            Err(Thrown::of(ErrorKind::Range, "", message))
        }
    }
}
