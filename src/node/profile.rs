//! Statements that have run, for the subscribers of the diagnostics channel `sqlite.db.query`.
//!
//! SQLite calls [`ended`] when a statement has run, also while it is reset or finalised, where
//! JavaScript must not run. So what it says is noted here, and `lib/queries.js` fetches it when the
//! call returns. A connection without subscribers is not traced. All on the connection's own
//! JavaScript thread.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::database::{find, look_up};
use super::errors::Outcome;
use super::raw_call::{Call, Raw, callback, text};
use super::value::{new_array, number_value, set_element};
use crate::engine::Connection;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] =
    &[(c"traceQueries", callback!(trace)), (c"takeQueries", callback!(take))];

/// A statement that has run.
#[derive(Debug)]
struct Query {
    /// With the values in place of the parameters.
    sql: Vec<u8>,
    nanoseconds: i64,
}

/// What a connection notes of its statements. SQLite has its address while it is installed.
#[derive(Debug, Default)]
pub struct Profile {
    wanted: Cell<bool>,
    /// A statement of this package's own is running.
    muted: Cell<bool>,
    queries: RefCell<Vec<Query>>,
}

impl Profile {
    /// Has SQLite say what ran on `connection`, if that is wanted. The profile must not move, and
    /// must outlive the connection, or [`Self::remove`] be called before it goes.
    pub fn install(&self, connection: &Connection) {
        if self.wanted.get() {
            // SAFETY: the connection is open and this thread's; the address stays valid, see above.
            unsafe {
                ffi::sqlite3_trace_v2(
                    connection.raw(),
                    ffi::SQLITE_TRACE_PROFILE as c_uint,
                    Some(ended),
                    ptr::from_ref(self).cast_mut().cast::<c_void>(),
                );
            }
        }
    }

    /// Has SQLite say nothing.
    pub fn remove(connection: &Connection) {
        // SAFETY: the connection is open and this thread's, or null, which API_ARMOR refuses.
        unsafe { ffi::sqlite3_trace_v2(connection.raw(), 0, None, ptr::null_mut()) };
    }

    /// Runs `body`, whose statements are not noted.
    pub fn muted<R>(&self, body: impl FnOnce() -> R) -> R {
        let outer = self.muted.replace(true);
        let result = body();
        self.muted.set(outer);
        result
    }
}

/// A statement has run.
unsafe extern "C" fn ended(
    _kind: c_uint,
    context: *mut c_void,
    statement: *mut c_void,
    nanoseconds: *mut c_void,
) -> c_int {
    // SAFETY: `install` passed the profile, whose connection is running the statement.
    let profile = unsafe { &*context.cast::<Profile>() };
    if !profile.muted.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: SQLite passes the statement and a 64-bit number; a text is null or
            // NUL-terminated. The expanded text is freed once.
            let query = unsafe {
                let statement = statement.cast::<ffi::sqlite3_stmt>();
                let expanded = ffi::sqlite3_expanded_sql(statement);
                let start = if expanded.is_null() { ffi::sqlite3_sql(statement) } else { expanded };
                let sql = if start.is_null() {
                    Vec::new()
                } else {
                    CStr::from_ptr(start).to_bytes().to_vec()
                };
                ffi::sqlite3_free(expanded.cast());
                Query { sql, nanoseconds: *nanoseconds.cast::<i64>() }
            };
            profile.queries.borrow_mut().push(query);
        }));
    }
    0
}

/// `traceQueries(database, wanted)`: from here on what runs is noted, or is not.
fn trace(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = find(call.environment, call.number(0)?)?;
    let profile = database.profile();
    profile.wanted.set(call.flag(1));
    database.asking(|connection| {
        Profile::remove(connection);
        profile.install(connection);
        Ok(())
    })?;
    call.undefined()
}

/// `takeQueries(database)`: text and nanoseconds of each that was noted, one after the other.
fn take(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let database = look_up(call.environment, call.number(0)?)?;
    let list = new_array(call.env)?;
    let queries = database.profile().queries.take();
    for (index, query) in (0..).step_by(2).zip(queries) {
        set_element(call.env, list, index, text(call.env, &query.sql)?)?;
        set_element(call.env, list, index + 1, number_value(call.env, query.nanoseconds as f64)?)?;
    }
    Ok(list)
}
