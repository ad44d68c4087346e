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
    /// How Node's own SQLite, behind node:sqlite, locks: "ofd" once `protectNodeSqlite()` has
    /// changed it.
    #[napi(ts_type = "'ofd' | 'posix' | 'windows'")]
    pub node_sqlite_locks: String,
    /// Why the last attempt to change it failed; null if none was made.
    #[napi(ts_type = "string | null")]
    pub node_sqlite_locks_reason: Option<String>,
    /// How another SQLite with the same file open is looked for: by its locks and this process's
    /// descriptors, or, where those cannot be listed ("impossible"), by its locks alone. Not "needed"
    /// on Windows, where locks belong to handles.
    #[napi(ts_type = "'descriptors' | 'impossible' | 'not needed'")]
    pub foreign_check: String,
    /// Descriptors that are kept open because their close would drop another SQLite's locks.
    pub deferred_closes: f64,
    /// Closes that were carried out all the same, because 1,024 were being kept.
    pub forced_closes: f64,
}

/// The SQLite of this process and what it found at hand.
///
/// # Errors
/// `ERR_FUSION_SQLITE_VERSION` on a version that corrupts databases.
#[napi]
pub fn engine_info() -> napi::Result<EngineInfo> {
    engine::init().map_err(|error| napi::Error::from_reason(error.to_string()))?;
    let (node_sqlite_locks, node_sqlite_locks_reason) = node_sqlite_locks();
    let deferred = engine::deferred_closes();
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
        node_sqlite_locks: node_sqlite_locks.to_owned(),
        node_sqlite_locks_reason,
        foreign_check: if cfg!(windows) {
            "not needed"
        } else if engine::foreign_check_is_possible() {
            "descriptors"
        } else {
            "impossible"
        }
        .to_owned(),
        deferred_closes: deferred.waiting as f64,
        forced_closes: deferred.forced as f64,
    })
}

fn node_sqlite_locks() -> (&'static str, Option<String>) {
    #[cfg(unix)]
    return match engine::node_sqlite::outcome() {
        Some(Ok(())) => ("ofd", None),
        Some(Err(reason)) => ("posix", Some(reason)),
        None => ("posix", None),
    };
    #[cfg(not(unix))]
    ("windows", None)
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
/// while open", pages found corrupt, statements re-prepared.
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
