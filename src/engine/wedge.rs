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
//! Reopening one connection would not help in the last two cases: SQLite maps a file's `-shm` once
//! a process, and unmaps it when the process closes its *last* connection to that file. So a file
//! has a *generation*. A connection belongs to the generation in which it was opened; a recovery
//! begins the next one. A connection of an earlier generation is *stale*: its owner closes it as
//! soon as it is in no transaction, and opens it again. The reopened connection waits until all
//! stale connections are closed ([`ConnectionTicket::enter`]).
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
//! `stat` shows whether `-wal` and `-shm` are those that SQLite opened: it compares them with the
//! files at these paths when the first connection had read the database. Any thread.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::connection::LONGEST_TIMEOUT;
use super::{Class, Connection, DatabaseFile, Error, FileId, Result, Wal, wal_index};

/// Called with the error and its remedy once connections work again.
type Observer = Arc<dyn Fn(Error, Remedy) + Send + Sync>;

/// After a recovery that did not help: how long further errors count as damage without a new try.
const HOPELESS: Duration = Duration::from_secs(1);

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

/// The connections of this process to one file, by generation.
#[derive(Default)]
pub struct ConnectionSet {
    generation: AtomicU32,
    healed: AtomicU64,
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
    left: Condvar,
    /// One recovery at a time.
    healing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Open connections.
    open: BTreeMap<u32, usize>,
    /// The open connections that wait in [`ConnectionTicket::enter`]: they have read nothing, so they have no
    /// mapping that other connections would have to wait for.
    entering: usize,
    /// What `-wal` and `-shm` were when the current generation first read them.
    sidecars: Option<SidecarIds>,
    failed_at: Option<Instant>,
    /// The error and its remedy, until it is known whether the remedy helped.
    pending: Option<(Error, Remedy)>,
}

impl fmt::Debug for ConnectionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSet")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The sidecar files of a database; `None` for a file that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SidecarIds {
    wal: Option<FileId>,
    shm: Option<FileId>,
}

impl SidecarIds {
    fn of(database: &Path) -> Self {
        let id = |path: &Path| FileId::of(path).ok();
        Self { wal: id(&Wal::path(database)), shm: id(&shm_path(database)) }
    }
}

/// A connection's entry in its file's [`ConnectionSet`]. It is dropped after the connection is closed.
#[derive(Debug)]
pub(super) struct ConnectionTicket {
    file: Arc<DatabaseFile>,
    generation: u32,
}

pub(super) fn shm_path(database: &Path) -> PathBuf {
    super::sidecar_path(database, "-shm")
}

impl Error {
    /// Whether a connection with a stale `-shm` or `-wal` may return this error for an intact file.
    pub fn may_be_wedge(&self) -> bool {
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

    /// The error of a call on a connection of an earlier generation.
    pub fn stale() -> Self {
        Self::fusion(
            "ERR_FUSION_STALE",
            "the -wal or -shm file of the database was replaced while it was open, and this \
             connection still has the old one. It is reopened outside a transaction",
        )
    }
}

impl ConnectionSet {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current generation.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// How often a recovery of this file has helped.
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// Sets the observer, which [`Self::confirm`] calls on its own thread.
    pub fn observe(&self, observer: Option<Observer>) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    /// Records that a recovery from `error` was attempted.
    pub fn recovery_attempted(&self, error: Error, remedy: Remedy) {
        self.lock().pending.get_or_insert((error, remedy));
    }

    /// Records that the recovery has helped: a call that had failed succeeds, or the whole file was
    /// verified.
    pub fn confirm(&self) {
        let Some((error, remedy)) = self.lock().pending.take() else {
            return;
        };
        self.healed.fetch_add(1, Ordering::Relaxed);
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            observer(error, remedy);
        }
    }

    /// Records that the error had another cause, which is removed.
    pub fn recovery_not_needed(&self) {
        self.lock().pending = None;
    }

    /// Records that the recovery has not helped: the file is damaged.
    pub fn recovery_failed(&self) {
        let mut state = self.lock();
        state.failed_at = Some(Instant::now());
        state.pending = None;
    }

    /// Adds a connection that was opened and has read nothing. It shares the `-shm` mapping of the
    /// open connections, so it belongs to the oldest generation among them.
    pub(super) fn join(file: &Arc<DatabaseFile>) -> ConnectionTicket {
        let members = &file.members;
        let mut state = members.lock();
        let oldest = state.open.keys().next().copied();
        let current = members.generation();
        let generation = oldest.unwrap_or(current);
        if oldest.is_none() {
            state.sidecars = None;
        }
        *state.open.entry(generation).or_default() += 1;
        drop(state);
        ConnectionTicket { file: Arc::clone(file), generation }
    }

    /// Records which files `-wal` and `-shm` are, once the first connection of a generation has
    /// read the database.
    pub(super) fn have_read(&self, database: &Path) {
        let mut state = self.lock();
        if state.sidecars.is_none() {
            state.sidecars = Some(SidecarIds::of(database));
        }
    }

    /// The journal mode was changed, which makes or removes the files.
    pub(super) fn have_changed_mode(&self) {
        self.lock().sidecars = None;
    }

    /// Which sidecar file was replaced; `None`: the files at the paths are the open ones.
    fn moved(&self, database: &Path) -> Option<Moved> {
        let mut state = self.lock();
        if state.open.is_empty() {
            // The last connection may have removed them as it closed.
            return None;
        }
        let was = state.sidecars?;
        let is = SidecarIds::of(database);
        let differs = |was: Option<FileId>, is: Option<FileId>| was.is_some() && was != is;
        match (differs(was.shm, is.shm), differs(was.wal, is.wal)) {
            (false, false) => {
                // A database that was just put into WAL mode gets its files with the next read.
                let (wal, shm) = (was.wal.or(is.wal), was.shm.or(is.shm));
                state.sidecars = Some(SidecarIds { wal, shm });
                None
            }
            (true, false) => Some(Moved::Index),
            // The next connection that opens the file makes both.
            (true, true) => Some(Moved::Both { is_unused: is.shm.is_none() && is.wal.is_none() }),
            (false, true) => Some(Moved::WalAlone),
        }
    }

    /// Whether the `-wal` and the `-shm` at the path of the database are the files that this file's
    /// connections have open; `None` where that is not known.
    pub(super) fn has_left(&self, database: &Path) -> Option<(bool, bool)> {
        let (was, is) = (self.lock().sidecars?, SidecarIds::of(database));
        let same = |was: Option<FileId>, is: Option<FileId>| was.is_some() && was == is;
        Some((same(was.wal, is.wal), same(was.shm, is.shm)))
    }

    /// Begins the next generation.
    fn reopen(&self) {
        self.lock().sidecars = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// See [`ConnectionSet::moved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// `-shm`; the WAL is the same.
    Index,
    /// `-shm` and `-wal`. `is_unused`: no process has used the database since. A process that opens
    /// it makes both files, and its close neither checkpoints nor removes them: `sqlite3WalClose`
    /// needs the EXCLUSIVE lock, and the processes with the deleted files have a SHARED lock.
    Both { is_unused: bool },
    /// `-wal`.
    WalAlone,
}

impl ConnectionTicket {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the connection belongs to an earlier generation.
    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.generation != self.file.members.generation.load(Ordering::Acquire)
    }

    /// Moves a connection that has read nothing to the current generation, once the connections of
    /// earlier generations are closed. Waits for that up to `patience`.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED`.
    pub(super) fn enter(&mut self, patience: Duration) -> Result<()> {
        let members = &self.file.members;
        let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
        let mut state = members.lock();
        state.entering += 1;
        // Another thread in here may have waited for this connection only.
        members.left.notify_all();
        let entered = loop {
            let current = members.generation.load(Ordering::Acquire);
            if self.generation == current {
                break Ok(());
            }
            let stale = state.open.iter().filter(|(generation, _)| **generation != current);
            let stale: usize = stale.map(|(_, count)| count).sum();
            let others = stale.saturating_sub(state.entering);
            if others == 0 {
                leave(&mut state, self.generation);
                *state.open.entry(current).or_default() += 1;
                self.generation = current;
                break Ok(());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break Err(not_closed(others).at(&self.file.path));
            };
            state =
                members.left.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.entering -= 1;
        entered
    }
}

fn not_closed(others: usize) -> Error {
    Error::fusion(
        "ERR_FUSION_WEDGED",
        format!(
            "the -wal or -shm file of the database was replaced while it was open. It can be \
             reopened once every connection of this process to it is closed, and {others} still \
             are not: close each DatabaseSync, and end the transactions and iterations of each \
             HardenedDatabase"
        ),
    )
}

fn leave(state: &mut State, generation: u32) {
    if let Some(count) = state.open.get_mut(&generation) {
        *count -= 1;
        if *count == 0 {
            state.open.remove(&generation);
        }
    }
}

impl Drop for ConnectionTicket {
    fn drop(&mut self) {
        let members = &self.file.members;
        leave(&mut members.lock(), self.generation);
        members.left.notify_all();
    }
}

impl DatabaseFile {
    /// Checks that `-wal` and `-shm` are the files that this process's connections have open. Costs
    /// two `stat` calls: cheap enough before and after each batch.
    ///
    /// # Errors
    /// `ERR_FUSION_STALE`.
    pub fn check_sidecars(&self) -> Result<()> {
        match self.members.moved(&self.path) {
            None => Ok(()),
            Some(_) => Err(Error::stale().at(&self.path)),
        }
    }

    /// Recovers a wedge: see the module's documentation. The caller holds no transaction, and
    /// reopens `connection`, if it passed one, afterwards. If the reopened connection fails as
    /// before, the file is damaged, and the caller calls [`ConnectionSet::recovery_failed`].
    ///
    /// # Errors
    /// * `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`: the path leads to another file, or to none;
    /// * `ERR_FUSION_WAL_LOST`: commits would be lost; nothing was changed;
    /// * `ERR_FUSION_WEDGED`: another connection or process has to close the file first;
    /// * SQLite's: `SQLITE_BUSY`; that the file is damaged.
    pub fn heal(&self, connection: Option<&Connection>, patience: Duration) -> Result<Remedy> {
        let members = &self.members;
        let _one_at_a_time = members.healing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_identity()?;
        match members.moved(&self.path) {
            Some(moved) => {
                let remedy = self.leave_behind(connection, moved, patience)?;
                // The writer closes its connection, and has the other threads close theirs.
                self.wal.wake();
                Ok(remedy)
            }
            // Another call has begun a recovery: stale connections are still open.
            None if self.is_being_reopened() => Ok(Remedy::Reopened),
            None => {
                let recently = |at: Instant| at.elapsed() < HOPELESS;
                if members.lock().failed_at.is_some_and(recently) {
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
                        members.recovery_failed();
                    }
                    return Err(error);
                }
                Ok(Remedy::IndexRebuilt)
            }
        }
    }

    /// Saves the commits of a WAL that is no longer at its path, if possible, and begins the next
    /// generation.
    fn leave_behind(
        &self,
        connection: Option<&Connection>,
        moved: Moved,
        patience: Duration,
    ) -> Result<Remedy> {
        let members = &self.members;
        let own = usize::from(connection.is_some());
        let connection = connection.filter(|connection| !connection.is_stale());
        let done = || {
            if moved == Moved::WalAlone && members.has_left(&self.path).is_some_and(|it| it.1) {
                // If the removal fails, a closed index stays there, which no SQLite uses.
                drop(std::fs::remove_file(shm_path(&self.path)));
            }
            members.reopen();
        };
        let shm = members.lock().sidecars.and_then(|ids| ids.shm);
        let untouched = match moved {
            // The WAL is at its path: the reopened connections find all commits.
            Moved::Index => {
                match connection {
                    Some(connection) => wal_index::retire(connection, shm, patience, done)?,
                    None => done(),
                }
                return Ok(Remedy::Reopened);
            }
            Moved::Both { is_unused } => is_unused,
            // Other processes share the index, and its locks, with this one.
            Moved::WalAlone => true,
        };
        if let Some(connection) = connection {
            let is_untouched = || untouched && members.moved(&self.path) == Some(moved);
            if wal_index::rescue(connection, shm, patience, is_untouched, done)? {
                return Ok(Remedy::Reopened);
            }
        }
        if moved == Moved::WalAlone {
            return Err(wal_gone().at(&self.path));
        }
        // Another connection of this process may have the old WAL open, though this one has not.
        if members.lock().open.values().sum::<usize>() > own && (untouched || own == 0) {
            return Err(wal_gone().at(&self.path));
        }
        members.reopen();
        Ok(Remedy::Lost)
    }

    /// Whether `error` of a connection to this file may come from deleted or replaced sidecar
    /// files.
    pub fn may_be_wedge(&self, error: &Error) -> bool {
        let is_closed = error.errcode == ffi::SQLITE_CANTOPEN && self.check_sidecars().is_err();
        is_closed || error.may_be_wedge()
    }

    /// Whether connections of an earlier generation are open.
    pub fn is_being_reopened(&self) -> bool {
        let current = self.members.generation.load(Ordering::Acquire);
        self.members.lock().open.keys().any(|generation| *generation != current)
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
