//! What the engine is and which kind of locks it found, for `engineInfo()`.

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
    })
}
