//! Checks for JavaScript. See [`crate::health`].
//!
//! Results are JSON: a process makes only a few, for people.

use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use napi::sys;
use rusqlite::ffi;
use serde::Deserialize;

use super::argument::string;
use super::database::{with_connection, with_connection_as_is};
use super::errors::{Outcome, Thrown};
use super::raw_call::{Call, Raw, callback, text};
use super::task::Work;
use crate::engine::{Error, NoProgress, Progress, Result};
use crate::health::{self, CheckKind, Health, Startup, StartupResult};
use crate::recovery::snapshot_file;

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[
    (c"startupCheck", callback!(startup_check)),
    (c"startupOpened", callback!(startup_opened)),
    (c"lastHealth", callback!(last_health)),
    (c"putWalAside", callback!(put_wal_aside)),
    (c"checksEnded", callback!(checks_ended)),
];

/// What can be started as a task, by name.
pub const WORKS: &[(&str, Work)] =
    &[("check", check), ("checksEnded", ended), ("startupCheck", startup), ("putWalAside", aside)];

/// How long a database that is being closed waits for its cancelled checks to be gone.
const LEAVING: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct Arguments {
    path: String,
    /// `quick`, `full`; for a start-up check also `ahead`, `background`, `off`, or nothing.
    #[serde(default)]
    kind: Option<String>,
}

impl Arguments {
    fn startup(&self) -> Startup {
        match self.kind.as_deref() {
            Some("quick") => Startup::AtOnce(CheckKind::Quick),
            Some("full") => Startup::AtOnce(CheckKind::Full),
            Some("ahead") => Startup::Ahead,
            Some("background") => Startup::Background,
            Some("off") => Startup::Off,
            _ => Startup::Auto,
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::fusion("ERR_FUSION_INTERNAL", format!("internal error in fusion-sqlite: {error}"))
    })
}

/// Task `check`: a [`health::Health`].
fn check(arguments: &str, task: &dyn Progress) -> Result<String> {
    let arguments: Arguments = super::task::arguments(arguments)?;
    let kind =
        if arguments.kind.as_deref() == Some("quick") { CheckKind::Quick } else { CheckKind::Full };
    let health = health::check(Path::new(&arguments.path), kind, task)?;
    doubt(&health);
    json(&health)
}

/// Task `startupCheck`: a [`health::StartupResult`].
fn startup(arguments: &str, task: &dyn Progress) -> Result<String> {
    let arguments: Arguments = super::task::arguments(arguments)?;
    json(&look(&arguments, task)?)
}

fn look(arguments: &Arguments, task: &dyn Progress) -> Result<StartupResult> {
    let path = Path::new(&arguments.path);
    let look = health::before_open(path, arguments.startup(), snapshot_file::note, task)?;
    look.health.iter().for_each(doubt);
    Ok(look)
}

/// After a finding, removes the note of the last check that found the file sound.
fn doubt(health: &Health) {
    if !health.findings.is_empty() && !health.is_locked() {
        // Where this write fails, no earlier check could write a note either.
        drop(snapshot_file::doubt(&health.path));
    }
}

/// Task `putWalAside`: the WAL's new path.
fn aside(arguments: &str, _: &dyn Progress) -> Result<String> {
    let arguments: Arguments = super::task::arguments(arguments)?;
    json(&health::put_wal_aside(Path::new(&arguments.path), false)?.to_string_lossy())
}

/// Task `checksEnded`: once the file's checks are gone.
fn ended(arguments: &str, _: &dyn Progress) -> Result<String> {
    let arguments: Arguments = super::task::arguments(arguments)?;
    health::wait_until_none(Path::new(&arguments.path), LEAVING);
    json(&())
}

/// `checksEnded(path)`: blocks the thread until the file's checks have ended.
fn checks_ended(call: &Call<'_>) -> Outcome<sys::napi_value> {
    if let Some(path) = string(call, 0)? {
        health::wait_until_none(Path::new(&path), LEAVING);
    }
    call.undefined()
}

/// `startupCheck(path, mode)`: a [`health::StartupResult`] as JSON, on this thread.
fn startup_check(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let path = string(call, 0)?.unwrap_or_default();
    let arguments = Arguments { path, kind: string(call, 1)? };
    text(call.env, json(&look(&arguments, &NoProgress)?)?.as_bytes())
}

/// `startupOpened(database)`: the file that was looked at is open.
fn startup_opened(call: &Call<'_>) -> Outcome<sys::napi_value> {
    with_connection(call.env, call.number(0)?, |connection| {
        if let Some(file) = connection.file() {
            health::opened(file);
        }
        Ok(())
    })?;
    call.undefined()
}

/// `lastHealth(database)`: what was found last in the file, as JSON; undefined if nothing was.
fn last_health(call: &Call<'_>) -> Outcome<sys::napi_value> {
    // Asked for whatever state the connection is in, and where an event is reported.
    let found = with_connection_as_is(call.env, call.number(0)?, |connection| {
        Ok(connection.file().and_then(|file| health::last(file.id)))
    })?;
    match found {
        Some(health) => text(call.env, json(&health)?.as_bytes()),
        None => call.undefined(),
    }
}

/// `putWalAside(path)`: renames a WAL that is not the file's own, and answers its new path.
fn put_wal_aside(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let Some(path) = string(call, 0)? else {
        return Err(Thrown::sqlite(ffi::SQLITE_MISUSE));
    };
    let aside = health::put_wal_aside(Path::new(&path), false)?;
    text(call.env, aside.to_string_lossy().as_bytes())
}
