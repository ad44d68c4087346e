//! The generations of a file's connections: which of them have a `-shm` and a `-wal` open that are no
//! longer at their paths.
//!
//! SQLite maps a file's `-shm` once a process, and unmaps it when the process closes its *last*
//! connection to that file. So reopening one connection does not help while others are open. A
//! connection belongs to the generation in which it was opened; a recovery
//! ([`super::shm_recovery`]) begins the next one. A connection of an earlier generation is *stale*:
//! its owner closes it as soon as it is in no transaction, and opens it again. The reopened
//! connection waits until no stale connection has the old `-shm` open: the others have read nothing, or
//! with the new files, and enter with it ([`ConnectionTicket::enter`]). Where it is not known which
//! `-shm` is open, it waits until all stale connections are closed.
//!
//! `stat` shows whether `-wal` and `-shm` are those that SQLite opened: it compares them with the
//! files at these paths when the first connection had read the database. Any thread.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::connection::LONGEST_TIMEOUT;
use super::{DatabaseFile, Error, FileId, Result, Wal, locks};

/// The connections of this process to one file, by generation.
#[derive(Default)]
pub struct ConnectionSet {
    generation: AtomicU32,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Open connections.
    open: BTreeMap<u32, usize>,
    /// The open connections that wait in [`ConnectionTicket::enter`]: they have read nothing, so they
    /// have no mapping that other connections would have to wait for.
    entering: usize,
    /// The generations of the tickets, and of some that are dropped.
    tickets: Vec<Weak<AtomicU32>>,
    /// What `-wal` and `-shm` were when the current generation first read them.
    sidecars: Option<SidecarIds>,
}

impl State {
    /// Moves every open connection to the generation `current`.
    fn all_enter(&mut self, current: u32) {
        let open = self.open.values().sum();
        self.open = BTreeMap::from([(current, open)]);
        for ticket in self.tickets.iter().filter_map(Weak::upgrade) {
            ticket.store(current, Ordering::Release);
        }
    }
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
    generation: Arc<AtomicU32>,
}

pub(super) fn shm_path(database: &Path) -> PathBuf {
    super::sidecar_path(database, "-shm")
}

impl Error {
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
        self.state.lock()
    }

    /// The current generation.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many connections are open, of whatever generation.
    pub(super) fn open(&self) -> usize {
        self.lock().open.values().sum()
    }

    /// Whether connections of an earlier generation are open.
    pub(super) fn has_stale(&self) -> bool {
        let current = self.generation();
        self.lock().open.keys().any(|generation| *generation != current)
    }

    /// The `-shm` that the connections of the current generation have open, if they have read.
    pub(super) fn shm(&self) -> Option<FileId> {
        self.lock().sidecars.and_then(|ids| ids.shm)
    }

    /// Adds a connection that was opened and has read nothing. It shares the `-shm` mapping of the
    /// open connections, so it belongs to the oldest generation among them.
    pub(super) fn join(file: &Arc<DatabaseFile>) -> ConnectionTicket {
        let connections = &file.connection_set;
        let mut state = connections.lock();
        let oldest = state.open.keys().next().copied();
        let current = connections.generation();
        let generation = oldest.unwrap_or(current);
        if oldest.is_none() {
            state.sidecars = None;
        }
        *state.open.entry(generation).or_default() += 1;
        let generation = Arc::new(AtomicU32::new(generation));
        // Only when the list is full, so that not every open scans it.
        if state.tickets.len() == state.tickets.capacity() {
            state.tickets.retain(|ticket| ticket.strong_count() > 0);
        }
        state.tickets.push(Arc::downgrade(&generation));
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
    pub(super) fn changed(&self, database: &Path) -> Option<SidecarChange> {
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
            (true, false) => Some(SidecarChange::Index),
            // The next connection that opens the file makes both.
            (true, true) => {
                Some(SidecarChange::Both { is_unused: is.shm.is_none() && is.wal.is_none() })
            }
            (false, true) => Some(SidecarChange::WalAlone),
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
    pub(super) fn begin_generation(&self) {
        self.lock().sidecars = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// See [`ConnectionSet::changed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SidecarChange {
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
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the connection belongs to an earlier generation.
    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.generation() != self.file.connection_set.generation.load(Ordering::Acquire)
    }

    /// Moves a connection that has read nothing to the current generation, once the connections of
    /// earlier generations are closed. Waits for that up to `patience`.
    ///
    /// # Errors
    /// `ERR_FUSION_WEDGED`.
    pub(super) fn enter(&mut self, patience: Duration) -> Result<()> {
        let connections = &self.file.connection_set;
        let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
        let mut state = connections.lock();
        state.entering += 1;
        // Another thread in here may have waited for this connection only.
        connections.left.notify_all();
        let entered = loop {
            let current = connections.generation.load(Ordering::Acquire);
            if self.generation() == current {
                break Ok(());
            }
            if locks::has_stale_index((self.file.id.device, self.file.id.inode)) == Some(false) {
                // The others have read nothing, or have read with the files at the paths.
                state.all_enter(current);
                continue;
            }
            let stale = state.open.iter().filter(|(generation, _)| **generation != current);
            let stale: usize = stale.map(|(_, count)| count).sum();
            let others = stale.saturating_sub(state.entering);
            if others == 0 {
                leave(&mut state, self.generation());
                *state.open.entry(current).or_default() += 1;
                self.generation.store(current, Ordering::Release);
                break Ok(());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break Err(not_closed(others).at(&self.file.path));
            };
            connections.left.wait_for(&mut state, left);
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
        let connections = &self.file.connection_set;
        let mut state = connections.lock();
        leave(&mut state, self.generation());
        drop(state);
        connections.left.notify_all();
    }
}

impl DatabaseFile {
    /// Checks that `-wal` and `-shm` are the files that this process's connections have open. Costs
    /// two `stat` calls: cheap enough before and after each batch.
    ///
    /// # Errors
    /// `ERR_FUSION_STALE`.
    pub fn check_sidecars(&self) -> Result<()> {
        match self.connection_set.changed(&self.path) {
            None => Ok(()),
            Some(_) => Err(Error::stale().at(&self.path)),
        }
    }

    /// Whether connections of an earlier generation are open.
    pub fn is_being_reopened(&self) -> bool {
        self.connection_set.has_stale()
    }
}
