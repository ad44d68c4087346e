//! What the engine is, which kind of locks it found, and what SQLite logged.

use napi_derive::napi;

use crate::engine::{self, LockKind};

/// The SQLite of this process and what it found at hand.
#[napi(object)]
pub struct EngineInfo {
    /// SQLite's version, "3.54.1" say.
    pub sqlite_version: String,
    /// How database files are locked: "ofd" (open file description locks, which hold whatever
    /// else in this process opens and closes the file), "posix" or "windows".
    #[napi(ts_type = "'ofd' | 'posix' | 'windows'")]
    pub lock_kind: String,
    /// Why the locks are POSIX locks, where they are: then any `close()` of a database file in
    /// this process, by whatever code, drops them.
    #[napi(ts_type = "string | null")]
    pub lock_fallback_reason: Option<String>,
    /// Open database files whose file system refused open file description locks.
    pub posix_files: f64,
}

/// The SQLite of this process and what it found at hand.
///
/// # Errors
/// `ERR_FUSION_SQLITE_VERSION` on a version that corrupts databases.
#[napi]
pub fn engine_info() -> napi::Result<EngineInfo> {
    engine::init().map_err(|error| napi::Error::from_reason(error.to_string()))?;
    Ok(EngineInfo {
        sqlite_version: rusqlite::version().to_owned(),
        lock_kind: match engine::lock_kind() {
            LockKind::Ofd => "ofd",
            LockKind::Posix => "posix",
            LockKind::Windows => "windows",
        }
        .to_owned(),
        lock_fallback_reason: engine::lock_fallback_reason().map(str::to_owned),
        posix_files: engine::posix_files() as f64,
    })
}

/// One message of SQLite's error log.
#[napi(object)]
pub struct LoggedMessage {
    /// Number of the message in this process, from 1. A gap: older ones were let go.
    pub sequence: f64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time: f64,
    /// SQLite's extended result code.
    pub errcode: i32,
    /// SQLite's text.
    pub message: String,
}

/// The newest 256 messages of SQLite's error log in this process, oldest first: "file unlinked
/// while open", pages found corrupt, statements prepared anew.
#[napi]
pub fn error_log() -> Vec<LoggedMessage> {
    engine::error_log()
        .into_iter()
        .map(|logged| LoggedMessage {
            sequence: logged.sequence as f64,
            time: logged.time_ms as f64,
            errcode: logged.errcode,
            message: logged.message,
        })
        .collect()
}
