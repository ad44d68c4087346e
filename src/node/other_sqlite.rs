//! Other copies of SQLite in this process: found, and protected.

use std::ffi::CStr;

use napi::sys;

use super::argument::string;
#[cfg(unix)]
use super::bind::Parameters;
use super::database::with_connection;
use super::errors::Outcome;
use super::raw_call::{Call, Raw, callback, text};
use super::value::boolean;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"foreignSqlite", callback!(foreign_sqlite)),
    (c"isFirst", callback!(is_first)),
    (c"image", callback!(image)),
    (c"notLoaded", callback!(not_loaded)),
];

/// `foreignSqlite(database)`: the file of an open database that another SQLite of this process has
/// open, if there is one.
fn foreign_sqlite(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let number = call.number(0)?;
    // On a platform without this check the result is undefined; engineInfo() reports that.
    let found = with_connection(call.env, number, |connection| {
        Ok(connection.foreign_sqlite().ok().flatten())
    })?;
    match found {
        Some(foreign) => text(call.env, foreign.file.to_string_lossy().as_bytes()),
        None => call.undefined(),
    }
}

/// `isFirst(file)`: whether this thread has not asked it before: it warns once of each file.
fn is_first(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let file = string(call, 0)?.unwrap_or_default();
    boolean(call.env, call.environment.is_first(file))
}

/// `image()`: the path of this addon, where Node's SQLite can be protected by it.
fn image(call: &Call<'_>) -> Outcome<sys::napi_value> {
    #[cfg(unix)]
    if let Some(path) = crate::engine::node_sqlite::image() {
        return text(call.env, path.to_string_lossy().as_bytes());
    }
    call.undefined()
}

/// `notLoaded(reason)`: node:sqlite did not load the addon.
fn not_loaded(call: &Call<'_>) -> Outcome<sys::napi_value> {
    #[cfg(unix)]
    {
        let mut reason = Parameters::default();
        reason.read(call.env, &[call.arg(0)?], 1)?;
        let reason = String::from_utf8_lossy(&reason.into_bytes()).into_owned();
        crate::engine::node_sqlite::not_loaded(reason);
    }
    call.undefined()
}
