//! What this process's commits put into a file's WAL, for the checkpointer.
//!
//! A watched connection reports the WAL's length after each of its commits
//! (<https://sqlite.org/c3ref/wal_hook.html>) instead of checkpointing inside them. The report
//! costs two atomic operations on the committing thread; the checkpointer is woken only when the
//! WAL ceases to be empty and when a checkpoint falls due.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Connection, DatabaseFile};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// The WAL of one file as this process knows it.
#[derive(Default)]
pub struct Wal {
    frames: AtomicU32,
    commits: AtomicU32,
    due: AtomicU32,
    asleep: AtomicBool,
    wake: Mutex<Option<Wake>>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Wal {
    /// Frames in the WAL after the latest commit of a watched connection.
    pub fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Corrects [`Self::frames`] by what a checkpoint found.
    pub fn set_frames(&self, frames: u32) {
        self.frames.store(frames, Ordering::Relaxed);
    }

    /// Commits of watched connections so far; wraps.
    pub fn commits(&self) -> u32 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Sets `wake` to be called, on the committing thread, when the WAL reaches `due` frames.
    pub fn set_wake(&self, due: u32, wake: Option<Wake>) {
        self.due.store(due, Ordering::Relaxed);
        *self.wake.lock() = wake;
    }

    /// Whether the next commit shall wake the checkpointer, however short the WAL.
    pub fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    /// Counts a commit to a file with a rollback journal, which SQLite's hook does not report.
    pub fn committed_without(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn committed(&self, frames: u32) {
        let before = self.frames.swap(frames, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        let due = self.due.load(Ordering::Relaxed);
        if self.asleep.swap(false, Ordering::SeqCst) || (before < due && due <= frames) {
            self.wake();
        }
    }

    /// Wakes the checkpointer, if one runs, for whatever reason.
    pub(super) fn wake(&self) {
        let wake = self.wake.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Where SQLite keeps the WAL of `database`.
    pub fn path(database: &Path) -> PathBuf {
        super::sidecar_path(database, "-wal")
    }
}

impl Connection {
    /// How many frames the WAL has, and how many of them are checkpointed. Does not checkpoint; not
    /// inside a transaction. `None` without a WAL, or if the file cannot be read now.
    pub fn wal_frames(&self) -> Option<(u64, u64)> {
        // A connection that has not read yet does not know that there is a WAL.
        self.sql().ok()?.query_row("PRAGMA main.schema_version", [], |_| Ok(())).ok()?;
        let (mut frames, mut checkpointed): (c_int, c_int) = (-1, -1);
        // SAFETY: the connection is open and used by this thread alone, or null, which SQLite
        // answers as misuse; the call writes the two ints.
        let rc = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                self.raw(),
                c"main".as_ptr(),
                ffi::SQLITE_CHECKPOINT_NOOP,
                &raw mut frames,
                &raw mut checkpointed,
            )
        };
        if rc != ffi::SQLITE_OK {
            return None;
        }
        Some((u64::try_from(frames).ok()?, u64::try_from(checkpointed).ok()?))
    }
}

/// Reports the commits of `connection` to its file's [`Wal`]. Replaces SQLite's own automatic
/// checkpoints, which use the same hook. Without a file there is nothing to watch.
pub fn watch(connection: &Connection) {
    let Some(file) = connection.file() else {
        return;
    };
    // SAFETY: the connection is open and used by this thread alone. The pointer stays valid as
    // long as the hook can be called, because the connection holds the file's Arc until after
    // it is closed.
    unsafe {
        ffi::sqlite3_wal_hook(connection.raw(), Some(on_commit), Arc::as_ptr(file) as *mut c_void);
    }
}

unsafe extern "C" fn on_commit(
    file: *mut c_void,
    _: *mut ffi::sqlite3,
    schema: *const c_char,
    frames: c_int,
) -> c_int {
    // SAFETY: `file` is what `watch` passed; `schema` is SQLite's NUL-terminated name.
    let (file, schema) =
        unsafe { (&*file.cast::<DatabaseFile>(), std::ffi::CStr::from_ptr(schema)) };
    if schema == c"main" {
        file.wal.committed(u32::try_from(frames).unwrap_or(0));
    }
    ffi::SQLITE_OK
}
