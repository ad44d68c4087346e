//! Recovery from a stale or damaged `-shm` or `-wal`: the database file is intact, but every read
//! fails with `SQLITE_CORRUPT` or `SQLITE_NOTADB` (a *wedge*).
//!
//! - The WAL index is damaged (another program wrote into the `-shm`): SQLite rebuilds it, for all
//!   processes ([`wal_index::rebuild`]).
//! - The `-shm` was deleted or replaced, the `-wal` is the same: the old index is closed; every
//!   connection of this process is reopened.
//! - The `-wal` was deleted or replaced, perhaps the `-shm`, too: commits that are only in the old
//!   WAL are saved, if no process has used the file since; the old index is closed; every
//!   connection of this process is reopened.
//!
//! Reopening one connection would not help in the last two cases, so these begin another
//! [generation](super::generation) of the file's connections.
//!
//! If a WAL was deleted, the connections that have it open have the only copy of its commits that
//! are not checkpointed. So they are checkpointed before these connections are closed
//! ([`wal_index::rescue`]). That is sound only if the database file is as the old WAL's processes
//! left it. If a process has used the file with another WAL, the old WAL must not be applied, and
//! its commits are lost ([`Remedy::Lost`]).
//!
//! # Several processes
//!
//! Processes that have the deleted files open share their inodes, and so the locks of the old
//! `-shm`. The first process that detects it takes the write lock of the old index and the PENDING
//! lock of the database file. Then no process commits, and no process opens the file. It
//!
//! 1. checkpoints the old WAL, if one of its frames is not in the database;
//! 2. closes the old index, so that no transaction of any process can begin through it, and waits
//!    for the transactions of other processes that have begun;
//! 3. removes the old `-shm` if it is still at its path: the next open of the file makes another;
//! 4. begins the next generation, and releases the locks.
//!
//! A commit of another process comes before step 1, and is checkpointed, or after step 2. Then
//! SQLite refuses it (`SQLITE_CANTOPEN`), and that process takes the same steps: it finds every
//! frame copied. If a process ends in between, its locks are released with its descriptors, and the
//! next process begins with step 1. A process without this package gets `SQLITE_CANTOPEN` until it
//! reopens the file, instead of committing to a deleted WAL.
//!
//! Any thread; one recovery of a file at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{OpenFlags, ffi};

use super::generation::{SidecarChange, shm_path};
use super::{Class, Connection, DatabaseFile, Error, Result, wal_index};

/// Called with the error and its remedy once connections work again.
type Observer = Arc<dyn Fn(Error, Remedy) + Send + Sync>;

/// After a recovery that did not help: how long further errors count as damage without a new try.
const NO_NEW_TRY: Duration = Duration::from_secs(1);

/// How long a recovery waits for writers and checkpointers of other processes.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How a wedge was recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The WAL index was rebuilt.
    IndexRebuilt,
    /// Every connection of this process is reopened.
    Reopened,
    /// The same, and the last commits are lost: another program deleted the WAL that they were in
    /// and used the file without it.
    Lost,
}

/// The recoveries of one file: whether the last one has helped.
#[derive(Default)]
pub struct Recovery {
    /// Recoveries that have helped.
    count: AtomicU64,
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
    /// One recovery at a time.
    running: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    failed_at: Option<Instant>,
    /// The error and its remedy, until it is known whether the remedy helped.
    pending: Option<(Error, Remedy)>,
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Recovery {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How often a recovery of this file has helped.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Sets the observer, which [`Self::confirmed`] calls on its own thread.
    pub fn observe(&self, observer: Option<Observer>) {
        *self.observer.lock() = observer;
    }

    /// Records that a recovery from `error` was attempted.
    pub fn attempted(&self, error: Error, remedy: Remedy) {
        self.lock().pending.get_or_insert((error, remedy));
    }

    /// Records that the recovery has helped: a call that had failed succeeds, or the whole file was
    /// verified.
    pub fn confirmed(&self) {
        let Some((error, remedy)) = self.lock().pending.take() else {
            return;
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        let observer = self.observer.lock().clone();
        if let Some(observer) = observer {
            observer(error, remedy);
        }
    }

    /// Records that the error had another cause, which is removed.
    pub fn not_needed(&self) {
        self.lock().pending = None;
    }

    /// Records that the recovery has not helped: the file is damaged.
    pub fn failed(&self) {
        let mut state = self.lock();
        state.failed_at = Some(Instant::now());
        state.pending = None;
    }

    fn has_just_failed(&self) -> bool {
        self.lock().failed_at.is_some_and(|at| at.elapsed() < NO_NEW_TRY)
    }
}

impl Error {
    /// Whether a connection with a stale `-shm` or `-wal` may return this error for an intact file.
    pub fn may_be_stale(&self) -> bool {
        let of_shm = [
            ffi::SQLITE_IOERR_SHORT_READ,
            ffi::SQLITE_IOERR_SHMOPEN,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_SHMMAP,
        ];
        self.code == "ERR_FUSION_STALE"
            || (self.errcode != 0
                && (self.class() == Class::Corrupt || of_shm.contains(&self.errcode)))
    }
}

impl DatabaseFile {
    /// Recovers the file's connections: see the module's documentation. The caller holds no transaction, and
    /// reopens `connection`, if it passed one, afterwards. If the reopened connection fails as
    /// before, the file is damaged, and the caller calls [`Recovery::failed`].
    ///
    /// # Errors
    /// * `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`: the path leads to another file, or to none;
    /// * `ERR_FUSION_WAL_LOST`: commits would be lost; nothing was changed;
    /// * `ERR_FUSION_WEDGED`: another connection or process has to close the file first;
    /// * SQLite's: `SQLITE_BUSY`; that the file is damaged.
    pub fn recover_connections(
        &self,
        connection: Option<&Connection>,
        patience: Duration,
    ) -> Result<Remedy> {
        let _one_at_a_time = self.recovery.running.lock();
        self.check_identity()?;
        match self.connection_set.changed(&self.path) {
            Some(change) => {
                let remedy = self.abandon_old_wal(connection, change, patience)?;
                // The writer closes its connection, and has the other threads close theirs.
                self.wal.wake();
                Ok(remedy)
            }
            // Another call has begun a recovery: stale connections are still open.
            None if self.is_being_reopened() => Ok(Remedy::Reopened),
            None => {
                if self.recovery.has_just_failed() {
                    return Err(
                        Error::sqlite(ffi::SQLITE_CORRUPT, "the file is damaged").at(&self.path)
                    );
                }
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
                let connection = Connection::open(&self.path, flags, patience)?;
                connection.checkpoint_on_close(false);
                let rebuilt = wal_index::rebuild(&connection, patience);
                if let Err(error) = rebuilt {
                    if error.class() == Class::Corrupt {
                        self.recovery.failed();
                    }
                    return Err(error);
                }
                Ok(Remedy::IndexRebuilt)
            }
        }
    }

    /// Saves the commits of a WAL that is no longer at its path, if possible, and begins the next
    /// generation.
    fn abandon_old_wal(
        &self,
        connection: Option<&Connection>,
        change: SidecarChange,
        patience: Duration,
    ) -> Result<Remedy> {
        let connections = &self.connection_set;
        let own = usize::from(connection.is_some());
        let connection = connection.filter(|connection| !connection.is_stale());
        let done = || {
            if change == SidecarChange::WalAlone
                && connections.has_left(&self.path).is_some_and(|it| it.1)
            {
                // If the removal fails, a closed index stays there, which no SQLite uses.
                drop(std::fs::remove_file(shm_path(&self.path)));
            }
            connections.begin_generation();
        };
        let shm = connections.shm();
        let untouched = match change {
            // The WAL is at its path: the reopened connections find all commits.
            SidecarChange::Index => {
                match connection {
                    Some(connection) => wal_index::retire(connection, shm, patience, done)?,
                    None => done(),
                }
                return Ok(Remedy::Reopened);
            }
            SidecarChange::Both { is_unused } => is_unused,
            // Other processes share the index, and its locks, with this one.
            SidecarChange::WalAlone => true,
        };
        if let Some(connection) = connection {
            let is_untouched = || untouched && connections.changed(&self.path) == Some(change);
            if wal_index::rescue(connection, shm, patience, is_untouched, done)? {
                return Ok(Remedy::Reopened);
            }
        }
        if change == SidecarChange::WalAlone {
            return Err(wal_gone().at(&self.path));
        }
        // Another connection of this process may have the old WAL open, though this one has not.
        if connections.open() > own && (untouched || own == 0) {
            return Err(wal_gone().at(&self.path));
        }
        connections.begin_generation();
        Ok(Remedy::Lost)
    }

    /// Whether `error` of a connection to this file may come from deleted or replaced sidecar
    /// files.
    pub fn may_be_stale(&self, error: &Error) -> bool {
        let is_closed = error.errcode == ffi::SQLITE_CANTOPEN && self.check_sidecars().is_err();
        is_closed || error.may_be_stale()
    }
}

fn wal_gone() -> Error {
    Error::fusion(
        "ERR_FUSION_WAL_LOST",
        "the -wal was deleted or replaced while the database was open. Commits that are not in the \
         database file yet could not be saved so far. Only the processes that have the database \
         open now still have them. Saving them is tried again",
    )
}

/// What [`Remedy::Lost`] says.
pub fn commits_lost() -> Error {
    Error::fusion(
        "ERR_FUSION_WAL_LOST",
        "the -wal was deleted while the database was open, and the file was used without it, so \
         that the last commits that were not checkpointed are lost. Writing goes on. The -wal \
         belongs to the database: never delete it",
    )
}
