//! The N-API surface: converts values, holds no logic.
//!
//! | module | owns |
//! |---|---|
//! | [`argument`], [`value`] | arguments of raw callbacks, and values for JavaScript |
//! | [`raw_call`] | how a JavaScript call enters Rust: arguments, panics, exceptions |
//! | [`environment`] | what one JavaScript thread has open, and the numbers it is handed |
//! | [`database`] | opening, closing, scripts |
//! | [`statement`] | preparing, running, iterating |
//! | [`function`], [`aggregate`] | SQL functions in JavaScript |
//! | [`authorizer`] | JavaScript's word on what statements may do |
//! | [`js_callback`] | JavaScript functions that SQLite calls |
//! | [`extension`], [`limits`] | loadable extensions, and what a connection permits |
//! | [`bind`] | JavaScript values to SQL parameters |
//! | [`result`] | JavaScript values to results of SQL functions |
//! | [`rows`] | SQL values to JavaScript values |
//! | [`session`] | sessions: changesets of what a connection changed |
//! | [`changeset`] | applying changesets |
//! | [`serialize`] | databases as bytes, and bytes as databases |
//! | [`backup_api`] | backups off the event loop |
//! | [`backup_tasks`] | verified, rotated backups, and restores |
//! | [`backup_gate`] | keeping backups and this thread off a connection at the same time |
//! | [`reopen`] | transparent reopen of hardened connections |
//! | [`other_sqlite`] | other copies of SQLite in this process |
//! | [`info`] | what the engine is |
//! | [`agent_log`] | hardened connections and their logs |
//! | [`log_options`], [`log_entry`], [`log_stats`] | a log's options and entries out of arguments, its entries and figures as objects |
//! | [`js_events`] | a log's events, and mail, handed to a JavaScript thread |
//! | [`promise`] | promises that other threads settle, by ticket |
//! | [`realm`] | what belongs to the addon's own global, and outlives every JavaScript that is loaded |
//! | [`doctor`] | facts of a file, and its page map |
//! | [`recovery`] | repairs, asked for and before a file is opened |
//! | [`health`] | checks, and what is known of a file's health |
//! | [`task`] | operations that take long, on threads of their own |
//! | [`js_queue`] | answers and events on their way to a JavaScript thread |
//! | [`errors`] | errors as node:sqlite throws them |
//! | [`schema_effect`] | which statements leave prepared statements valid |
//!
//! All state belongs to an [`environment`]: any number of copies of the package's JavaScript may be
//! loaded with one addon in one thread, and come and go.
//!
//! The classes, their argument checks and the statement cache are JavaScript (`lib/`). It hands
//! connections and statements back as numbers, which [`environment`] looks up: a wrong or stale
//! number is an error, never a wrong pointer. Calls that are made per statement are raw
//! callbacks, because the wrappers that `#[napi]` generates cost as much as a short statement;
//! what is called rarely may use `#[napi]`.

pub(crate) mod agent_log;
pub(crate) mod aggregate;
pub(crate) mod argument;
pub(crate) mod authorizer;
pub(crate) mod backup_api;
pub(crate) mod backup_gate;
pub(crate) mod backup_tasks;
pub(crate) mod bind;
pub(crate) mod changeset;
pub(crate) mod database;
pub(crate) mod doctor;
pub(crate) mod environment;
pub(crate) mod errors;
pub(crate) mod extension;
pub(crate) mod function;
pub(crate) mod handle_table;
pub(crate) mod health;
pub mod info;
pub(crate) mod js_callback;
pub(crate) mod js_events;
pub(crate) mod js_queue;
pub(crate) mod limits;
pub(crate) mod log_entry;
pub(crate) mod log_options;
pub(crate) mod log_stats;
pub(crate) mod other_sqlite;
pub(crate) mod profile;
pub(crate) mod promise;
pub(crate) mod raw_call;
pub(crate) mod realm;
pub(crate) mod recovery;
pub(crate) mod reopen;
pub(crate) mod result;
pub(crate) mod rows;
pub(crate) mod schema_effect;
pub(crate) mod serialize;
pub(crate) mod session;
pub(crate) mod statement;
pub(crate) mod task;
pub(crate) mod value;

use napi::bindgen_prelude::Object;
use napi::{Env, JsValue};
use napi_derive::napi;

/// Adds the raw callbacks to the addon's exports, once for each JavaScript thread.
///
/// # Errors
/// When Node could not create them.
#[napi(module_exports)]
pub fn register(exports: Object, env: Env) -> napi::Result<()> {
    let environment = environment::Environment::create(env.raw()).map_err(|thrown| {
        napi::Error::from_reason(format!("the addon cannot start: {thrown:?}"))
    })?;
    for functions in [
        database::FUNCTIONS,
        statement::FUNCTIONS,
        session::FUNCTIONS,
        changeset::FUNCTIONS,
        serialize::FUNCTIONS,
        backup_api::FUNCTIONS,
        function::FUNCTIONS,
        aggregate::FUNCTIONS,
        authorizer::FUNCTIONS,
        extension::FUNCTIONS,
        limits::FUNCTIONS,
        profile::FUNCTIONS,
        rows::FUNCTIONS,
        agent_log::FUNCTIONS,
        other_sqlite::FUNCTIONS,
        recovery::FUNCTIONS,
        task::FUNCTIONS,
        health::FUNCTIONS,
    ] {
        for (name, function) in functions {
            raw_call::export(env.raw(), exports.raw(), name, *function, &environment)?;
        }
    }
    Ok(())
}
