//! The one SQLite of this process. Knows nothing of logs or of Node.
//!
//! [`init`] must have succeeded before anything is opened; [`Connection::open`] sees to it.

mod backup;
mod canonical;
mod cause;
mod commit_frame;
mod connection;
mod database_with_wal;
#[cfg(unix)]
mod descriptors;
mod directory;
mod disk_space;
mod displaced;
mod empty_wal;
mod error;
mod error_log;
mod file_id;
mod file_lock;
mod file_mount;
mod file_registry;
mod file_system;
mod generation;
mod image;
mod journal_mode;
mod kept;
mod likeness;
mod locks;
mod open_files;
mod other_sqlite;
mod page_size;
mod page_source;
mod place;
mod platform;
mod profile;
mod progress;
mod read_connection;
mod reads;
mod regular;
mod rename;
mod rolled_back;
pub mod session_ffi;
mod shm_recovery;
mod shown;
mod sidecar;
mod snapshot_reader;
mod sqlite_file;
mod still_file;
mod storage_vfs;
pub mod stub_functions;
mod sync;
mod wal;
mod wal_index;
mod wal_page_index;
mod write_lock;

use std::sync::OnceLock;

pub use backup::{Backup, BackupProgress};
pub use canonical::canonicalize;
pub use cause::{Cause, advise, explain, refused_side_file, system_name};
pub use commit_frame::commit_frames;
pub use connection::Connection;
pub use database_with_wal::DatabaseWithWal;
pub use directory::was_opened;
pub use disk_space::free_bytes;
pub use error::{Class, Error, Result, SQLITE_ERROR, classify, errstr};
pub use error_log::{Logged, recent as error_log};
pub use file_id::{FileId, Presence, hard_links, replaced as file_moved};
pub use file_lock::{Owned, remove_left_lock, try_lock_exclusive};
pub use file_mount::is_mount_root;
pub use file_registry::DatabaseFile;
pub use file_system::{FileSystem, describe as describe_file_system, new_network};
pub use generation::ConnectionSet;
pub use image::{Image, PageImage};
pub use journal_mode::JournalMode;
pub use kept::{
    KEEP, KeptCopy, KeptKind, bound, find_same, is_in, is_kept, kept, put_wal_aside, removable,
    rescue_wal,
};
pub use likeness::Likeness;
#[cfg(unix)]
pub use locks::node_sqlite;
pub use locks::{
    LockKind, fallback_reason as lock_fallback_reason, kind as lock_kind, posix_files,
};
pub use open_files::OpenFiles;
pub use other_sqlite::{
    DeferredClose, OtherSqlite, deferred as deferred_closes,
    is_possible as foreign_check_is_possible,
};
pub use page_size::{Votes, guess_format, is_whole, sample};
pub use page_source::{PageSource, PrivateFile};
pub use place::Place;
pub use platform::{Answer, Topic, ask as ask_platform};
pub use profile::{Extent, Profile, Synchronous, check_length};
pub use progress::{NoProgress, Progress, Stage};
pub use read_connection::{Access, Reader, roll_back};
pub use reads::{failed_reads, or_failed};
pub use regular::{check_files, not_a_file, open_file};
pub use rename::rename;
pub use rolled_back::{HotJournal, RolledBack};
pub use shm_recovery::{PATIENCE, Recovery, Remedy, commits_lost};
pub use shown::shown;
pub use sidecar::{sidecar_path, stamp, utc};
pub use snapshot_reader::PageSnapshot;
pub use sqlite_file::{CommitLock, Generation, PageSizePatch, SqliteFile, WAITING};
pub use still_file::{Marks, StillFile, is_read_only};
pub use sync::{sync, sync_folder_of, sync_piece};
pub use wal::{Wal, watch as watch_wal};
pub use wal_page_index::WalPageIndex;
pub use write_lock::{Waiter, WriteGate, WriteGuard, with_sync_call};

/// Versions of SQLite whose checkpointer can lose committed frames (the WAL-reset bug, fixed in
/// 3.51.3), or that were withdrawn (3.52.0), or whose rollback journal regressed (3.53.3).
fn refused(version: i32) -> bool {
    version < 3_051_003 || version == 3_052_000 || version == 3_053_003
}

/// Whether this process took over the WAL of `database`, a path as SQLite resolves it, from a
/// process that had ended, since this was last asked.
pub fn took_over_wal(database: &std::path::Path) -> bool {
    error_log::recovered(&Wal::path(database))
}

/// Whether SQLite gets as much memory as a connection needs at a time: 16 MiB. Where it does, and
/// says all the same that it is out of memory, it was asked for a size that no memory suffices for.
pub fn is_memory_left() -> bool {
    const SOME: u64 = 16 << 20;
    // SAFETY: may be called at any time, by any thread; null may be freed.
    unsafe {
        let memory = rusqlite::ffi::sqlite3_malloc64(SOME);
        rusqlite::ffi::sqlite3_free(memory);
        !memory.is_null()
    }
}

/// Makes this process's SQLite ready: version gate, error log, lock shim, turns, the VFS.
/// Idempotent, any
/// thread. The first call decides; later ones repeat its answer.
pub fn init() -> Result<()> {
    static INIT: OnceLock<Result<()>> = OnceLock::new();
    INIT.get_or_init(|| {
        let version = rusqlite::version_number();
        if refused(version) {
            return Err(Error::fusion(
                "ERR_FUSION_SQLITE_VERSION",
                format!(
                    "SQLite {} corrupts or may corrupt WAL databases, so fusion-sqlite does not \
                     run on it. Build with 3.51.3 or newer, but not with 3.52.0 or 3.53.3.",
                    rusqlite::version()
                ),
            ));
        }
        // Before sqlite3_initialize: the log hook can be set only then.
        error_log::install();
        // SAFETY: may be called at any time, by any thread.
        let rc = unsafe { rusqlite::ffi::sqlite3_initialize() };
        if rc != rusqlite::ffi::SQLITE_OK {
            return Err(Error::sqlite(rc, "SQLite could not be initialised"));
        }
        locks::install();
        write_lock::install();
        reads::install()
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn versions_that_corrupt_are_refused() {
        for version in [3_050_004, 3_051_002, 3_052_000, 3_053_003] {
            assert!(refused(version), "{version}");
        }
        for version in [3_051_003, 3_052_001, 3_053_004, 3_054_001] {
            assert!(!refused(version), "{version}");
        }
    }
}
