//! Scalar SQL functions in JavaScript (<https://sqlite.org/appfunc.html>).

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use napi::sys;
use rusqlite::ffi;

use super::bind::Parameters;
use super::database::find;
use super::errors::{Outcome, Thrown};
use super::js_callback::{JsCallback, attempt};
use super::raw_call::{Call, Raw, callback};
use super::result::{refuse, set_result};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"defineFunction", callback!(define))];

/// Settings of a function, as bits.
pub mod setting {
    pub const DETERMINISTIC: u32 = 1;
    pub const DIRECT_ONLY: u32 = 2;
    pub const BIGINTS: u32 = 4;
}

/// The function's user data in SQLite, as one count of an `Rc`. A call takes another count, because
/// the function may be redefined while it runs.
#[derive(Debug)]
struct Function {
    callee: JsCallback,
    bigints: bool,
    deterministic: bool,
}

/// Name and flags of a function to be defined.
#[derive(Debug)]
pub struct Signature {
    name: Parameters,
    /// Arguments; -1 for any number.
    pub argc: c_int,
    settings: u32,
}

impl Signature {
    /// Reads arguments 1 to 3 of `call`: name, number of arguments, settings.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_TYPE`.
    pub fn read(call: &Call<'_>) -> Outcome<Self> {
        let mut name = Parameters::default();
        name.read(call.env, &[call.arg(1)?], 1)?;
        Ok(Self { name, argc: call.number(2)?.cast_signed(), settings: call.number(3)? })
    }

    /// The name, up to its first NUL.
    pub fn owned_name(&mut self) -> CString {
        CStr::from_bytes_until_nul(self.name.terminated()).unwrap_or_default().to_owned()
    }

    /// Whether the bit `setting` is set.
    pub fn is(&self, setting: u32) -> bool {
        self.settings & setting != 0
    }

    /// The flags for `sqlite3_create_function_v2`.
    pub fn flags(&self) -> c_int {
        let mut flags = ffi::SQLITE_UTF8;
        if self.is(setting::DETERMINISTIC) {
            flags |= ffi::SQLITE_DETERMINISTIC;
        }
        if self.is(setting::DIRECT_ONLY) {
            flags |= ffi::SQLITE_DIRECTONLY;
        }
        flags
    }
}

/// `defineFunction(database, name, argc, settings, function)`.
fn define(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let mut signature = Signature::read(call)?;
    let function = Rc::new(Function {
        callee: JsCallback::new(call.env, call.arg(4)?)?,
        bigints: signature.is(setting::BIGINTS),
        deterministic: signature.is(setting::DETERMINISTIC),
    });
    let (name, argc, flags) = (signature.owned_name(), signature.argc, signature.flags());
    database.define(call.env, signature.owned_name(), argc, move |connection| {
        // SAFETY: the connection is open and this thread's; the name ends with a NUL. SQLite
        // takes a count of the function, also when it fails: it gives it to `forget` then.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                connection.raw(),
                name.as_ptr(),
                argc,
                flags,
                Rc::into_raw(Rc::clone(&function)).cast_mut().cast::<c_void>(),
                Some(run),
                None,
                None,
                Some(forget),
            )
        };
        // SAFETY: the connection is open and this thread's.
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(unsafe { Thrown::last(connection.raw()) }) }
    })?;
    call.undefined()
}

/// SQLite drops a function (`xDestroy`).
unsafe extern "C" fn forget(data: *mut c_void) {
    // SAFETY: `define` gave this count to SQLite.
    drop(unsafe { Rc::<Function>::from_raw(data.cast()) });
}

/// SQLite calls a function.
unsafe extern "C" fn run(
    context: *mut ffi::sqlite3_context,
    argc: c_int,
    argv: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes what `define` gave it, with a count that lasts until the function is
    // redefined; the call's own count lasts until it returns.
    let function = unsafe {
        let data = ffi::sqlite3_user_data(context).cast::<Function>().cast_const();
        Rc::increment_strong_count(data);
        Rc::from_raw(data)
    };
    // SAFETY: `context` is that of this call.
    if function.deterministic && !unsafe { is_statement(context) } {
        return;
    }
    let env = function.callee.env();
    let done = attempt(env, || {
        // SAFETY: SQLite's arguments are those of this call, for as long as it takes.
        unsafe {
            let value = function.callee.call_with(None, argc, argv, function.bigints)?;
            set_result(context, env, value)
        }
    });
    if done.is_none() {
        // SAFETY: `context` is that of this call.
        unsafe { refuse(context, "") };
    }
}

/// Whether a statement runs the function. The planner also evaluates deterministic functions of
/// constants, to guess how many rows a comparison selects (`SQLITE_ENABLE_STAT4`); JavaScript
/// could then change the schema under the statement that is being prepared, so the planner gets
/// NULL, which only makes its guess worse.
///
/// # Safety
/// `context` is that of the running SQL function.
unsafe fn is_statement(context: *mut ffi::sqlite3_context) -> bool {
    // Only auxiliary data shows it: SQLite keeps it for a statement, and discards it where no
    // statement runs. With a negative number it lasts as long as the statement runs.
    const MARK: c_int = -1;
    // SAFETY: the caller's; the pointer is never followed.
    unsafe {
        if !ffi::sqlite3_get_auxdata(context, MARK).is_null() {
            return true;
        }
        ffi::sqlite3_set_auxdata(context, MARK, ptr::dangling_mut::<c_void>(), None);
        !ffi::sqlite3_get_auxdata(context, MARK).is_null()
    }
}
