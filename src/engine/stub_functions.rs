//! Functions and collations that only the application knows.
//!
//! SQLite reads a schema that names unknown functions or collations, but it can neither make nor
//! check its tables. During that work temporary stubs are registered under the missing names.
//! Nothing that is kept has been computed or ordered by a stub.
//!
//! Thread: the connection's. May call: the format.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use rusqlite::ffi;

use super::{Connection, Result};
use crate::format::sql;

/// The result of stub functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StubResult {
    /// An error: nothing may be computed by one.
    Error,
    /// NULL, which satisfies a CHECK constraint.
    Null,
}

/// Runs `work` while a stub is registered for every unknown function that `statements` may call,
/// and for every unknown collation (which compares bytes).
///
/// # Errors
/// `work`'s; SQLite's.
pub fn with_stubs<R>(
    connection: &Connection,
    statements: &str,
    answer: StubResult,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let mut known = Known { connection, functions: Vec::new(), collations: Vec::new() };
    let compute: Compute = match answer {
        StubResult::Error => compute_nothing,
        StubResult::Null => compute_null,
    };
    for name in unknown_functions(connection, statements)? {
        // A name that SQLite refuses stays undefined: `work` reports the error.
        if define(connection, &name, Some(compute)) {
            known.functions.push(name);
        }
    }
    let collations: *mut Vec<CString> = &raw mut known.collations;
    // SAFETY: the connection is open. `known` stays where it is and removes the callback before it
    // drops the vector; until then only the callback uses the vector.
    unsafe { ffi::sqlite3_collation_needed(connection.raw(), collations.cast(), Some(needed)) };
    work()
}

/// The registered stubs. Dropping this removes them, even if the work unwinds.
struct Known<'a> {
    connection: &'a Connection,
    functions: Vec<CString>,
    /// The callback adds to it.
    collations: Vec<CString>,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        // SAFETY: the connection is open while it is borrowed.
        unsafe { ffi::sqlite3_collation_needed(self.connection.raw(), ptr::null_mut(), None) };
        for name in &self.collations {
            collate(self.connection.raw(), name, None);
        }
        for name in &self.functions {
            define(self.connection, name, None);
        }
    }
}

/// Names that a parenthesis follows and that are not functions of SQLite. Some are types or
/// keywords: a function with such a name does no harm.
fn unknown_functions(connection: &Connection, statements: &str) -> Result<Vec<CString>> {
    let sql = connection.sql()?;
    let mut known = sql.prepare("SELECT DISTINCT lower(name) FROM pragma_function_list")?;
    let mut known: HashSet<String> =
        known.query_map([], |row| row.get(0))?.collect::<std::result::Result<_, _>>()?;
    let tokens = sql::tokens(statements);
    Ok(tokens
        .clone()
        .zip(tokens.skip(1))
        .filter(|(_, next)| next.text == "(")
        .map(|(name, _)| sql::unquoted(name.text).to_ascii_lowercase())
        .filter(|name| known.insert(name.clone()))
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

type Compute = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Defines a function with any number of arguments, or removes it. Returns whether SQLite did so.
fn define(connection: &Connection, name: &CStr, compute: Option<Compute>) -> bool {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    // SAFETY: the connection is open and the name NUL-terminated; the function has no data.
    let rc = unsafe {
        ffi::sqlite3_create_function_v2(
            connection.raw(),
            name.as_ptr(),
            -1,
            flags,
            ptr::null_mut(),
            compute,
            None,
            None,
            None,
        )
    };
    rc == ffi::SQLITE_OK
}

/// A stub that returns NULL, which every result is at first
/// (<https://sqlite.org/c3ref/result_blob.html>).
unsafe extern "C" fn compute_null(
    _: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
}

/// A stub that fails.
unsafe extern "C" fn compute_nothing(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    let message = c"a function of the application";
    // SAFETY: SQLite hands in the context of this call, and copies the message.
    unsafe { ffi::sqlite3_result_error(context, message.as_ptr(), -1) };
}

/// Registers a collation, or removes it.
fn collate(
    db: *mut ffi::sqlite3,
    name: &CStr,
    compare: Option<
        unsafe extern "C" fn(*mut c_void, c_int, *const c_void, c_int, *const c_void) -> c_int,
    >,
) {
    // SAFETY: the connection is open and the name NUL-terminated; the collation has no data.
    unsafe {
        ffi::sqlite3_create_collation_v2(
            db,
            name.as_ptr(),
            ffi::SQLITE_UTF8,
            ptr::null_mut(),
            compare,
            None,
        );
    }
}

unsafe extern "C" fn needed(
    context: *mut c_void,
    db: *mut ffi::sqlite3,
    _encoding: c_int,
    name: *const c_char,
) {
    // SAFETY: `with_stubs` registered this pointer, and removes the callback before it returns;
    // SQLite passes a NUL-terminated name.
    let (collations, name) =
        unsafe { (&mut *context.cast::<Vec<CString>>(), CStr::from_ptr(name)) };
    // In a UTF-16 database SQLite asks for its built-in collations, too. If nothing is registered
    // it uses the UTF-8 variant. A stub would replace that, and its removal would leave none.
    let own = [c"BINARY", c"NOCASE", c"RTRIM"];
    if own.iter().any(|own| own.to_bytes().eq_ignore_ascii_case(name.to_bytes())) {
        return;
    }
    collations.push(name.to_owned());
    collate(db, name, Some(compare));
}

/// A stub collation: compares bytes. No index is built with it.
unsafe extern "C" fn compare(
    _: *mut c_void,
    left_length: c_int,
    left: *const c_void,
    right_length: c_int,
    right: *const c_void,
) -> c_int {
    // SAFETY: SQLite hands in texts with their lengths.
    let bytes = |at: *const c_void, length: c_int| unsafe {
        match usize::try_from(length) {
            Ok(length) if length > 0 => std::slice::from_raw_parts(at.cast::<u8>(), length),
            _ => &[],
        }
    };
    match bytes(left, left_length).cmp(bytes(right, right_length)) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}
