//! Wedged connections: an intact file whose connections answer `SQLITE_CORRUPT` or
//! `SQLITE_NOTADB` for ever.
//!
//! | what happened to the sidecar files | what is done |
//! |---|---|
//! | the WAL index lies (another program wrote into the `-shm`) | it is built again, for all processes: [`wal_index::rebuild`] |
//! | `-shm` was deleted or made again, the `-wal` is the same | the old index is closed; every connection of this process is reopened |
//! | `-wal` was deleted or made again, perhaps `-shm`, too | what is in the old WAL only is saved, if no process has used the file since; the old index is closed; every connection of this process is reopened |
//!
//! Reopening one connection would not help in the last two cases: SQLite maps a file's `-shm` once
//! a process, and lets go of the mapping with the process's *last* connection to that file. So
//! the file has a *generation*. Connections belong to the one in which they were opened; healing
//! begins another. A connection of an earlier one is *stale*: its owner closes it as soon as it
//! is in no transaction, and opens it again, which waits for the others ([`Member::enter`]).
//!
//! Connections that have a deleted WAL open have the only copy of what was committed to it and not
//! checkpointed, so it is, before they are closed ([`wal_index::rescue`]). That is sound only if
//! the database file is as the old WAL's processes left it: where a process has used it with
//! another WAL, the old one must not be applied, and its commits are lost ([`Remedy::Lost`]).
//!
//! # Several processes
//!
//! Processes that have deleted files open share their inodes, and so the locks of the old `-shm`.
//! The first one to notice does, with the writer's lock of the old index and the pending lock of the
//! database file, so that no process commits and none opens the file:
//!
//! 1. checkpoints the old WAL, if a frame of it is not in the database;
//! 2. closes the old index: no transaction can begin through it any more, in any process; those of other
//!    processes that have begun are waited for;
//! 3. where the `-shm` is still at its path, removes it: whoever opens the file makes another one;
//! 4. begins another generation, and gives the locks back.
//!
//! A commit of another process comes before step 1, and is copied; or it comes after step 2, and is
//! refused by SQLite (`SQLITE_CANTOPEN`), which has that process do the same: it finds every frame
//! copied. A process that ends on the way gives its locks back with its descriptors, and the next
//! one begins with step 1. A process without this package gets `SQLITE_CANTOPEN` until it opens the
//! file again, instead of committing to a WAL without a name.
//!
//! Whether `-wal` and `-shm` are those that SQLite opened is known from `stat`, against what the
//! paths led to when the first connection had read the file. Any thread.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::connection::LONGEST_TIMEOUT;
use super::{Class, Connection, DatabaseFile, Error, FileId, Result, Wal, wal_index};

/// Is told that connections work again, which an error had put in doubt.
type Observer = Arc<dyn Fn(Error, Remedy) + Send + Sync>;

/// After healing did not help, how long further errors count as damage without another try.
const HOPELESS: Duration = Duration::from_secs(1);

/// How long healing waits for writers and checkpointers of other processes.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What healed a wedge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The WAL index was built anew.
    IndexRebuilt,
    /// Every connection of this process is opened anew.
    Reopened,
    /// The same, and what was committed last is lost: somebody deleted the WAL that it was in and
    /// used the file without it.
    Lost,
}

/// The connections of this process to one file, by generation.
#[derive(Default)]
pub struct Members {
    generation: AtomicU32,
    healed: AtomicU64,
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
    left: Condvar,
    /// One healing at a time.
    healing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Open connections.
    open: BTreeMap<u32, usize>,
    /// Those of them that wait in [`Member::enter`]: they have read nothing, so that they have
    /// nothing mapped that others would have to wait for.
    entering: usize,
    /// What `-wal` and `-shm` were when the current generation first read them.
    beside: Option<Beside>,
    hopeless: Option<Instant>,
    /// What was done about which error, while it is not known whether it helped.
    pending: Option<(Error, Remedy)>,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The files beside a database; none where there was none to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beside {
    wal: Option<FileId>,
    shm: Option<FileId>,
}

impl Beside {
    fn of(database: &Path) -> Self {
        let id = |path: &Path| FileId::of(path).ok();
        Self { wal: id(&Wal::path(database)), shm: id(&shm_path(database)) }
    }
}

/// A connection's part in its file's [`Members`]; it leaves when this is dropped, which is after
/// it is closed.
#[derive(Debug)]
pub(super) struct Member {
    file: Arc<DatabaseFile>,
    generation: u32,
}

pub(super) fn shm_path(database: &Path) -> PathBuf {
    super::beside(database, "-shm")
}

impl Error {
    /// Whether a connection that is wedged may say this of an intact file.
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
            "the files beside the database (-wal, -shm) were replaced while it was open, and this \
             connection still has the old ones. It is reopened outside of a transaction",
        )
    }
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation that is not stale.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// How often connections to this file were healed.
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// Has `observer` told, on the thread that finds out, what healed.
    pub fn observe(&self, observer: Option<Observer>) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    /// Something was done about `error`, and may have helped.
    pub fn hope(&self, error: Error, remedy: Remedy) {
        self.lock().pending.get_or_insert((error, remedy));
    }

    /// What was done has helped: a call that had failed succeeds, or the file was looked through.
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

    /// It was no wedge after all, and what it was is mended by now.
    pub fn dismiss(&self) {
        self.lock().pending = None;
    }

    /// What was done has not helped: the file is damaged.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.hopeless = Some(Instant::now());
        state.pending = None;
    }

    /// A connection was opened and has read nothing. It shares the mapping of those that are
    /// open, so it belongs to the oldest generation among them.
    pub(super) fn join(file: &Arc<DatabaseFile>) -> Member {
        let members = &file.members;
        let mut state = members.lock();
        let oldest = state.open.keys().next().copied();
        let current = members.generation();
        let generation = oldest.unwrap_or(current);
        if oldest.is_none() {
            state.beside = None;
        }
        *state.open.entry(generation).or_default() += 1;
        drop(state);
        Member { file: Arc::clone(file), generation }
    }

    /// What `-wal` and `-shm` are, once the first connection of a generation has read the file.
    pub(super) fn have_read(&self, database: &Path) {
        let mut state = self.lock();
        if state.beside.is_none() {
            state.beside = Some(Beside::of(database));
        }
    }

    /// The journal mode was changed, which makes or removes the files.
    pub(super) fn have_changed_mode(&self) {
        self.lock().beside = None;
    }

    /// What became of the files beside the database; none: they are those that are open.
    fn moved(&self, database: &Path) -> Option<Moved> {
        let mut state = self.lock();
        if state.open.is_empty() {
            // The last connection may have removed them as it closed.
            return None;
        }
        let was = state.beside?;
        let is = Beside::of(database);
        let differs = |was: Option<FileId>, is: Option<FileId>| was.is_some() && was != is;
        match (differs(was.shm, is.shm), differs(was.wal, is.wal)) {
            (false, false) => {
                // A database that was put into WAL mode just now gets them with the next read.
                let (wal, shm) = (was.wal.or(is.wal), was.shm.or(is.shm));
                state.beside = Some(Beside { wal, shm });
                None
            }
            (true, false) => Some(Moved::Index),
            // Whoever opens the file makes both.
            (true, true) => Some(Moved::Both { is_unused: is.shm.is_none() && is.wal.is_none() }),
            (false, true) => Some(Moved::WalAlone),
        }
    }

    /// Whether the `-wal` and the `-shm` at the path of the database are those that this file's
    /// connections have open.
    /// None where nothing is known.
    pub(super) fn has_left(&self, database: &Path) -> Option<(bool, bool)> {
        let (was, is) = (self.lock().beside?, Beside::of(database));
        let same = |was: Option<FileId>, is: Option<FileId>| was.is_some() && was == is;
        Some((same(was.wal, is.wal), same(was.shm, is.shm)))
    }

    /// Begins another generation.
    fn reopen(&self) {
        self.lock().beside = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// See [`Members::moved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// `-shm`; the WAL is the same.
    Index,
    /// `-shm` and `-wal`. Whether no process has used the file since: one that opens it makes both,
    /// and as it closes it can neither checkpoint nor remove them, because whoever has the deleted
    /// ones open has a lock on the database (`sqlite3WalClose` wants it exclusively).
    Both { is_unused: bool },
    /// `-wal`.
    WalAlone,
}

impl Member {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the connection belongs to an earlier generation.
    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.generation != self.file.members.generation.load(Ordering::Acquire)
    }

    /// Makes a connection that has read nothing one of the current generation, once those of
    /// earlier ones are closed. Waits for them up to `patience`.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED`.
    pub(super) fn enter(&mut self, patience: Duration) -> Result<()> {
        let members = &self.file.members;
        let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
        let mut state = members.lock();
        state.entering += 1;
        // This may be the last one that another in here has waited for.
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
            "the files beside the database (-wal, -shm) were replaced while it was open. It can be \
             opened anew once every connection of this process to it is closed, and {others} still \
             are not: close those that are DatabaseSync, end transactions and iterations of those \
             that are HardenedDatabase"
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

impl Drop for Member {
    fn drop(&mut self) {
        let members = &self.file.members;
        leave(&mut members.lock(), self.generation);
        members.left.notify_all();
    }
}

impl DatabaseFile {
    /// That `-wal` and `-shm` are the files that this process's connections have open. Two
    /// `stat`s: cheap enough before and after each batch.
    ///
    /// # Errors
    /// `ERR_FUSION_STALE`.
    pub fn check_beside(&self) -> Result<()> {
        match self.members.moved(&self.path) {
            None => Ok(()),
            Some(_) => Err(Error::stale().at(&self.path)),
        }
    }

    /// Does what can be done about a wedge: see the module's documentation. The caller holds no
    /// transaction, and opens `connection`, if it has one, anew afterwards; where that fails as before, the
    /// file is damaged, and [`Members::give_up`] is told.
    ///
    /// # Errors
    /// * `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`: it is another file;
    /// * `ERR_FUSION_WAL_LOST`: commits would be lost; nothing was changed;
    /// * `ERR_FUSION_WEDGED`: it has to wait for somebody;
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
            // Begun by another call, and not over: connections are left to be closed.
            None if self.is_being_reopened() => Ok(Remedy::Reopened),
            None => {
                let recently = |at: Instant| at.elapsed() < HOPELESS;
                if members.lock().hopeless.is_some_and(recently) {
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
                        members.give_up();
                    }
                    return Err(error);
                }
                Ok(Remedy::IndexRebuilt)
            }
        }
    }

    /// Saves what can be saved of a WAL that is not at its path any more, and begins another
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
                // Where it cannot be removed it is a closed index, which no SQLite uses.
                drop(std::fs::remove_file(shm_path(&self.path)));
            }
            members.reopen();
        };
        let shm = members.lock().beside.and_then(|beside| beside.shm);
        let untouched = match moved {
            // The WAL is at its path: whoever opens it finds all commits.
            Moved::Index => {
                match connection {
                    Some(connection) => wal_index::retire(connection, shm, patience, done)?,
                    None => done(),
                }
                return Ok(Remedy::Reopened);
            }
            Moved::Both { is_unused } => is_unused,
            // Other processes have the index in common with this one, and use its locks.
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
        // Another connection of this process may have the WAL open that this one, or none, has not.
        if members.lock().open.values().sum::<usize>() > own && (untouched || own == 0) {
            return Err(wal_gone().at(&self.path));
        }
        members.reopen();
        Ok(Remedy::Lost)
    }

    /// Whether a connection to this file may say `error` because its sidecar files were deleted or
    /// replaced.
    pub fn may_be_wedge(&self, error: &Error) -> bool {
        let is_closed = error.errcode == ffi::SQLITE_CANTOPEN && self.check_beside().is_err();
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
        "the -wal was deleted or replaced while the database was open. What was committed and is \
         not in the database file yet could not be saved so far; it is known to the processes \
         that have the database open now, and to nobody else. It is tried again",
    )
}

/// What [`Remedy::Lost`] says.
pub fn commits_lost() -> Error {
    Error::fusion(
        "ERR_FUSION_WAL_LOST",
        "somebody deleted the -wal while the database was open and used the file without it, so \
         that what was committed last and not checkpointed is lost. Writing goes on. The -wal \
         belongs to the database: never delete it",
    )
}
