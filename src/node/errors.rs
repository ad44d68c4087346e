//! Errors as node:sqlite throws them.

use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use napi::sys;
use rusqlite::ffi;

use super::raw_call::text;
use super::value::set_fields;
use crate::engine::{Cause, Error, SQLITE_ERROR, errstr, system_name};

/// Why a callback did not return a value.
#[derive(Debug)]
pub enum Thrown {
    /// A JavaScript exception is pending already.
    Pending,
    /// An error to be thrown.
    Error(Box<Exception>),
}

/// The result of a callback.
pub type Outcome<T> = std::result::Result<T, Thrown>;

/// The JavaScript class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// `Error`
    Plain,
    /// `TypeError`
    Type,
    /// `RangeError`
    Range,
}

/// A JavaScript error before it is thrown.
#[derive(Debug)]
pub struct Exception {
    /// Its class.
    pub kind: ErrorKind,
    /// Its `code`; it has none if this is empty.
    pub code: &'static str,
    /// Its `message`.
    pub message: String,
    /// Its `path`: the database file. node:sqlite's errors have none.
    pub path: Option<PathBuf>,
    /// Its `errcode`, SQLite's extended result code, and `errstr`, SQLite's text for it. Where
    /// that is empty the error has none, as some of node:sqlite's.
    pub sqlite: Option<(i32, String)>,
    /// Why the system refused it, and the number of the system's error, or 0: its `reason`, and its
    /// `errno` and `system`.
    pub system: Option<(Cause, i32)>,
    /// More properties of its: a JSON object.
    pub details: Option<Arc<str>>,
}

impl Thrown {
    /// An error that SQLite had no part in.
    pub fn of(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self::Error(Box::new(Exception {
            kind,
            code,
            message: message.into(),
            path: None,
            sqlite: None,
            system: None,
            details: None,
        }))
    }

    /// The handle is in the wrong state for the call.
    pub fn state(message: &str) -> Self {
        Self::of(ErrorKind::Plain, "ERR_INVALID_STATE", message)
    }

    /// The connection's latest error, even `SQLITE_OK`: node:sqlite reports that, too, where SQLite
    /// refuses a call without setting an error.
    ///
    /// # Safety
    /// `db` is an open connection of this thread.
    pub unsafe fn last(db: *mut ffi::sqlite3) -> Self {
        // SAFETY: the caller's.
        let error = unsafe { Error::last(db) };
        Self::Error(Box::new(Exception {
            kind: ErrorKind::Plain,
            code: error.code,
            message: error.message,
            path: None,
            sqlite: Some((error.errcode, error.errstr)),
            system: None,
            details: None,
        }))
    }

    /// SQLite's own words for a result code, where no connection has better ones.
    pub fn sqlite(errcode: i32) -> Self {
        Error::sqlite(errcode, errstr(errcode)).into()
    }

    /// An error that is a result code and nothing else: node:sqlite's, where it does not ask the
    /// connection.
    pub fn code(errcode: i32) -> Self {
        Self::Error(Box::new(Exception {
            kind: ErrorKind::Plain,
            code: SQLITE_ERROR,
            message: errstr(errcode),
            path: None,
            sqlite: Some((errcode, String::new())),
            system: None,
            details: None,
        }))
    }

    /// N-API failed without an exception of its own: it was handed what this module never hands
    /// it, or memory is exhausted.
    pub fn node(status: sys::napi_status) -> Self {
        if status == sys::Status::napi_pending_exception {
            return Self::Pending;
        }
        Self::of(
            ErrorKind::Plain,
            "ERR_INVALID_STATE",
            format!("Node-API call failed with status {status}"),
        )
    }
}

impl From<Error> for Thrown {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(Exception {
            kind: ErrorKind::Plain,
            // SQLite reports errors with code 0, too: "not an error".
            sqlite: (error.errcode != 0 || error.code == SQLITE_ERROR)
                .then_some((error.errcode, error.errstr)),
            code: error.code,
            message: error.message,
            system: error.cause.map(|cause| (cause, error.errno)),
            path: error.path,
            details: error.details,
        }))
    }
}

impl From<napi::Error> for Thrown {
    fn from(error: napi::Error) -> Self {
        Self::of(ErrorKind::Plain, "ERR_INVALID_STATE", error.reason.clone())
    }
}

/// Turns a status of N-API into a result.
///
/// # Errors
/// Any status but `napi_ok`.
#[inline]
pub fn check(status: sys::napi_status) -> Outcome<()> {
    if status == sys::Status::napi_ok { Ok(()) } else { Err(Thrown::node(status)) }
}

/// Whether a failed statement says nothing about the schema: contention and constraints.
pub fn is_schema_neutral(errcode: i32) -> bool {
    matches!(errcode & 0xff, ffi::SQLITE_CONSTRAINT | ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED)
}

/// `error` as a JavaScript error with all it has: `code`, `errcode` and `errstr` where SQLite
/// reported it, `path` where a file is known, and its details.
///
/// # Errors
/// N-API's.
pub fn error_value(env: sys::napi_env, error: &Error) -> Outcome<sys::napi_value> {
    let Thrown::Error(exception) = Thrown::from(error.clone()) else {
        return Err(Thrown::Pending);
    };
    exception_value(env, &exception)
}

/// Throws `exception` in `env`. What fails on the way leaves another exception pending.
pub fn throw(env: sys::napi_env, exception: &Exception) {
    let _ = try_throw(env, exception);
}

fn try_throw(env: sys::napi_env, exception: &Exception) -> Outcome<()> {
    let error = exception_value(env, exception)?;
    // SAFETY: `env` is the environment of the running callback; the handle was made in it.
    check(unsafe { sys::napi_throw(env, error) })
}

/// `exception` as a JavaScript error.
///
/// # Errors
/// N-API's.
pub(super) fn exception_value(
    env: sys::napi_env,
    exception: &Exception,
) -> Outcome<sys::napi_value> {
    let code = match exception.code {
        "" => ptr::null_mut(),
        code => text(env, code.as_bytes())?,
    };
    let message = text(env, exception.message.as_bytes())?;
    let mut error = ptr::null_mut();
    // SAFETY: `env` is the environment of the running callback; the handles were made in it.
    unsafe {
        check(match exception.kind {
            ErrorKind::Plain => sys::napi_create_error(env, code, message, &mut error),
            ErrorKind::Type => sys::napi_create_type_error(env, code, message, &mut error),
            ErrorKind::Range => sys::napi_create_range_error(env, code, message, &mut error),
        })?;
        if let Some((errcode, errstr)) = &exception.sqlite {
            let mut number = ptr::null_mut();
            check(sys::napi_create_int32(env, *errcode, &mut number))?;
            check(sys::napi_set_named_property(env, error, c"errcode".as_ptr(), number))?;
            if !errstr.is_empty() {
                let errstr = text(env, errstr.as_bytes())?;
                check(sys::napi_set_named_property(env, error, c"errstr".as_ptr(), errstr))?;
            }
        }
        if let Some((cause, errno)) = exception.system {
            let reason = text(env, cause.name().as_bytes())?;
            check(sys::napi_set_named_property(env, error, c"reason".as_ptr(), reason))?;
            if errno != 0 {
                let mut number = ptr::null_mut();
                // As Node has it: negative.
                check(sys::napi_create_int32(env, errno.wrapping_neg(), &mut number))?;
                check(sys::napi_set_named_property(env, error, c"errno".as_ptr(), number))?;
            }
            if let Some(name) = system_name(errno) {
                let name = text(env, name.as_bytes())?;
                check(sys::napi_set_named_property(env, error, c"system".as_ptr(), name))?;
            }
        }
        if let Some(path) = &exception.path {
            let path = text(env, path.to_string_lossy().as_bytes())?;
            check(sys::napi_set_named_property(env, error, c"path".as_ptr(), path))?;
        }
    }
    if let Some(details) = &exception.details
        && let Ok(details) = serde_json::from_str(details)
    {
        set_fields(env, error, &details)?;
    }
    Ok(error)
}
