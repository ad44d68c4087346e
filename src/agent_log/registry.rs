//! One log per database file for the whole process: the map from file identity to log, and the
//! handles through which JavaScript threads use one.
//!
//! Any thread. A log lives while a handle does, and until what was accepted through it is
//! written; another open of the same file meanwhile starts a new one.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::borrowed::Borrowed;
use super::entry::{Entries, Position};
use super::event::{Event, Listener};
use super::options::{END_DEADLINE, Options};
use super::queue::{Batch, Refusal, Reply, Waiting};
use super::shared::Shared;
use super::stats::{Stats, WalStatus};
use super::{table, thread};
use crate::checkpoint;
use crate::engine::{Class, Connection, DatabaseFile, Error, FileId, Result, file_moved, shown};

/// Logs whose writer has not ended, closing ones included, with their number of handles.
static RUNNING: Mutex<Vec<(Arc<Shared>, usize)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(Arc<Shared>, usize)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle on a file's log. Dropping it does not wait; what was accepted is still written.
pub struct Log {
    shared: Arc<Shared>,
    id: u64,
    closed: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

/// A handle on the log of `file`, whose writer is started if there is none. `options` count
/// for the first handle; a later one gets what the first one set, or, where it `insists` on its
/// own, an error if they differ.
///
/// # Errors
/// `ERR_FUSION_OPTIONS_CONFLICT`, `ERR_FUSION_THREAD`.
pub fn open(
    file: &Arc<DatabaseFile>,
    options: Options,
    insists: bool,
    listener: Arc<dyn Listener>,
) -> Result<Log> {
    flush_at_exit();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut logs = running();
    let found = logs
        .iter_mut()
        // Not by the id: the inode may be another file's by now, where no connection held the first.
        .find(|(shared, _)| Arc::ptr_eq(&shared.file, file) && !shared.queue.lock().closing);
    let shared = if let Some((shared, handles)) = found {
        if insists && shared.options != options {
            return Err(Error::fusion(
                "ERR_FUSION_OPTIONS_CONFLICT",
                "this process already has a log open on this file, with other options. The first \
                 open decides for the file's one writer: use the same options everywhere.",
            )
            .at(&file.path));
        }
        *handles += 1;
        shared.listen(id, listener);
        Arc::clone(shared)
    } else {
        let shared = Arc::new(Shared::new(Arc::clone(file), options));
        // Before the writer looks at the file: it may have something to tell at once.
        shared.listen(id, listener);
        thread::start(&shared, forget)?;
        logs.push((Arc::clone(&shared), 1));
        shared
    };
    drop(logs);
    Ok(Log { shared, id, closed: false })
}

/// The log of a database without a file: no writer, no other handles. What is appended is
/// queued until [`Log::write_on`] writes it.
pub fn open_in_memory(options: Options, listener: Arc<dyn Listener>) -> Log {
    let shared = Arc::new(Shared::new(DatabaseFile::in_memory(), options));
    shared.listen(0, listener);
    Log { shared, id: 0, closed: false }
}

/// The writer of `shared` has ended.
fn forget(shared: &Arc<Shared>) {
    running().retain(|(other, _)| !Arc::ptr_eq(other, shared));
}

/// The file `id` has been repaired or restored: a log of it in this process that had stopped
/// because it was damaged goes on, with the entries that are still queued.
pub fn resume(id: FileId) {
    for shared in logs_of(id) {
        shared.resume();
    }
}

/// A connection of this process has noticed that the path of the file `id` leads elsewhere: its log
/// stops, if it has not.
pub fn replaced(id: FileId, error: &Error) {
    for shared in logs_of(id) {
        shared.stop(error);
    }
}

fn logs_of(id: FileId) -> Vec<Arc<Shared>> {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    logs.into_iter().filter(|shared| shared.file.id == id).collect()
}

/// Has `end` called when the process ends, on the thread that ends it, before the logs are waited
/// for: it ends transactions for which they would wait in vain.
pub fn at_end(end: fn()) {
    BEFORE_END.get_or_init(|| end);
}

static BEFORE_END: OnceLock<fn()> = OnceLock::new();

/// When the process's end has waited long enough: [`END_DEADLINE`] after it began.
fn end_deadline() -> Instant {
    static DEADLINE: OnceLock<Instant> = OnceLock::new();
    *DEADLINE.get_or_init(|| Instant::now() + END_DEADLINE)
}

/// The process ends, and JavaScript may still run: waits until every log has written what it can
/// write. What waits for a lock is left to [`flush_all`], because a transaction that JavaScript may
/// yet commit is not rolled back.
pub fn flush_unlocked() {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    for shared in logs {
        shared.queue.flush_unlocked(end_deadline());
    }
}

/// The process ends, and no JavaScript runs any more: rolls back what it left open, and waits until
/// every log has written what it accepted, for at most [`END_DEADLINE`] after the end began. Returns a
/// sentence for each log that has not.
pub fn flush_all() -> Vec<String> {
    if let Some(end) = BEFORE_END.get() {
        end();
    }
    flush_until(end_deadline())
}

/// The same until `deadline`, for a thread that ends.
pub fn flush_until(deadline: Instant) -> Vec<String> {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    let mut lost = Vec::new();
    for shared in logs {
        let left = deadline.saturating_duration_since(Instant::now());
        if shared.queue.flush(left, &|| ()).is_ok() {
            continue;
        }
        let state = shared.queue.lock();
        let failure = state.stopped.as_ref().or(state.failing.as_ref().map(|(_, error)| error));
        let reason = failure.map_or("no time was left", |error| error.message.as_str());
        lost.push(format!(
            "{} log entries for {} were not written before the process ended: {reason}",
            state.rows,
            shared.file.path.display(),
        ));
    }
    lost
}

/// Has the process's end wait for its logs. Node runs JavaScript's `exit` listeners on the main
/// thread only, where this package may not even be loaded: a worker may be its only user.
fn flush_at_exit() {
    #[cfg(unix)]
    {
        extern "C" fn at_exit() {
            drop(std::panic::catch_unwind(|| {
                for sentence in flush_all() {
                    // Nothing is left to be reported to but the person at the terminal.
                    drop(writeln!(std::io::stderr(), "fusion-sqlite: {}", shown(&sentence)));
                }
            }));
        }
        static REGISTER: std::sync::Once = std::sync::Once::new();
        // SAFETY: the function may run at any time of the process's end: the library is never
        // unloaded, and the threads it waits for run until this returns.
        REGISTER.call_once(|| unsafe {
            libc::atexit(at_exit);
            // Bun ends by quick_exit(), which runs none of atexit()'s functions.
            #[cfg(target_os = "linux")]
            {
                unsafe extern "C" {
                    fn at_quick_exit(function: extern "C" fn()) -> libc::c_int;
                }
                at_quick_exit(at_exit);
            }
        });
    }
}

/// How a log stands that a transaction of one of its own threads keeps from writing.
#[derive(Debug, Clone, Copy)]
pub struct LockedOut {
    /// Calls waited for it, and have been answered.
    pub told: bool,
    /// It has lasted for as long as was asked.
    pub lasts: bool,
}

impl Log {
    /// Accepts one entry that nobody waits for.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn append_one(&self, entry: &Entries) -> std::result::Result<(), Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_one(entry, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.tell_refusal();
        }
        taken
    }

    /// Accepts the entries of a call that waits for `reply`, and returns an empty arena. Where
    /// they are refused `reply` is dropped.
    ///
    /// # Errors
    /// Why nothing was taken.
    pub fn append(&self, entries: Entries, reply: Reply) -> std::result::Result<Entries, Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_batch(entries, reply, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.tell_refusal();
        }
        taken
    }

    /// The turn of JavaScript has ended in which [`Self::append`] was called.
    pub fn turn_ended(&self) {
        self.shared.queue.turn_ended(&self.shared.options);
    }

    fn check_open(&self) -> std::result::Result<(), Refusal> {
        if self.closed { Err(Refusal::Closed) } else { Ok(()) }
    }

    /// Has `reply` called once everything accepted so far is settled.
    pub fn barrier(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        self.shared.queue.barrier(Box::new(reply));
    }

    /// Waits until everything accepted so far is settled.
    ///
    /// # Errors
    /// `ERR_FUSION_FLUSH_TIMEOUT`, or why the writer has stopped; the entries are kept.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.shared.queue.flush(timeout, &|| ())
    }

    /// The same, and calls `meanwhile` now and then: for a thread whose event loop stands still,
    /// and which has connections that the writer may have to wait for.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_while(&self, timeout: Duration, meanwhile: &dyn Fn()) -> Result<()> {
        self.shared.queue.flush(timeout, meanwhile)
    }

    /// Writes everything queued on `connection`, inside the transaction that is open there.
    ///
    /// # Errors
    /// SQLite's; the entries are then queued as before.
    pub fn write_on(&self, connection: &Connection, borrowed: &mut Option<Borrowed>) -> Result<()> {
        Borrowed::write(&self.shared, connection, borrowed)
    }

    /// Takes back everything that was accepted and is not committed. Calls that wait for some of
    /// it are told.
    pub fn take_pending(&self) -> Vec<Entries> {
        let batch = self.shared.queue.take_all();
        let pending = copies(&batch);
        self.shared.tell(self.shared.queue.forget(batch, &self.shared.options));
        pending
    }

    /// Looks, on the connection through which it was opened, whether the table is there already: then
    /// `create_table` never makes it, should a migration take it away before the first entry.
    pub fn look_for_table(&self, connection: &Connection) {
        let shared = &self.shared;
        // A schema that cannot be read is reported when it is written to.
        if shared.options.create_table
            && table::kind_of(connection, table::TABLE).is_ok_and(|kind| kind.is_some())
        {
            shared.see_table();
        }
    }

    /// Asks the writer for a checkpoint.
    pub fn checkpoint(
        &self,
        mode: checkpoint::Mode,
        reply: impl FnOnce(Result<checkpoint::Outcome>) + Send + 'static,
    ) {
        self.shared.queue.request_checkpoint(mode, Box::new(reply));
    }

    /// The file.
    pub fn file(&self) -> &Arc<DatabaseFile> {
        &self.shared.file
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Figures, rows and bytes queued, the WAL's status, and the failure that lasts, if one does.
    pub fn stats(&self) -> (Stats, usize, usize, WalStatus, Option<(bool, Error)>) {
        let state = self.shared.queue.lock();
        let failure = match (&state.stopped, &state.failing) {
            (Some(error), _) => Some((true, error.clone())),
            (None, Some((_, error))) => Some((false, error.clone())),
            (None, None) => None,
        };
        let (stats, rows, bytes) = (state.stats.clone(), state.rows, state.bytes);
        drop(state);
        (stats, rows, bytes, self.shared.wal().clone(), failure)
    }

    /// Gives the handle up. The last one lets the writer end once the queue is written; `true`
    /// says that this was the last.
    pub fn release(&mut self) -> bool {
        if std::mem::replace(&mut self.closed, true) {
            return false;
        }
        self.shared.unlisten(self.id);
        let mut logs = running();
        let Some((_, handles)) = logs.iter_mut().find(|(log, _)| Arc::ptr_eq(log, &self.shared))
        else {
            return false;
        };
        *handles = handles.saturating_sub(1);
        if *handles > 0 {
            return false;
        }
        drop(logs);
        self.shared.queue.close();
        true
    }

    /// Has `reply` called once the writer has ended, after the last handle was released: with the
    /// failure that had stopped it for good, if one had.
    pub fn when_ended(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.shared.queue.lock();
        if state.ended {
            let stopped = state.stopped.clone();
            drop(state);
            return reply(stopped.map_or(Ok(()), Err));
        }
        state.when_ended.push(Box::new(reply));
    }

    /// Tells everybody who waits that writing failed, and the listeners; the entries stay queued.
    pub fn fail_waiting(&self, error: &Error) {
        self.shared.tell(self.shared.queue.fail_waiting(error, &Waiting::default()));
        self.shared.emit(&Event::Error(error.clone()));
    }

    /// Whether something was accepted and is not settled: queued, in a batch, or lent.
    pub fn has_pending(&self) -> bool {
        self.shared.queue.lock().rows > 0
    }

    /// Whether the path of the log's file was found to lead elsewhere.
    pub fn is_displaced(&self) -> bool {
        let state = self.shared.queue.lock();
        state.stopped.as_ref().is_some_and(|error| error.class() == Class::Replaced)
    }

    /// Moves everything that was accepted and is not committed to `next`, behind what is queued
    /// there, with those who wait for it. This log has stopped then. Where both are handles on one
    /// log, whose file is at its path again, that log goes on.
    pub fn move_to(&self, next: &Log) {
        if Arc::ptr_eq(&self.shared, &next.shared) {
            return self.shared.go_on(Class::Replaced);
        }
        let left = self.shared.queue.leave();
        next.shared.tell(next.shared.queue.take_over(left, &next.shared.options));
        self.shared.stop(&file_moved(&self.shared.file.path));
    }

    /// A transaction that thread `thread` has open keeps the writer from writing, as `error` says:
    /// reports it to those of that thread who have waited for as long as `patience`.
    pub fn report_own_transaction(
        &self,
        thread: ThreadId,
        patience: Duration,
        error: &Error,
    ) -> LockedOut {
        let before = Instant::now().checked_sub(patience);
        let failed = self.shared.queue.lock().failing.as_ref().map(|(since, _)| *since);
        let waiting = Waiting { before, thread: Some(thread) };
        let settled = self.shared.queue.fail_waiting(error, &waiting);
        let told = !settled.is_empty();
        self.shared.tell(settled);
        LockedOut { told, lasts: before.zip(failed).is_some_and(|(before, since)| since <= before) }
    }

    /// Whether something is queued.
    pub fn has_queued(&self) -> bool {
        self.shared.queue.has_queued()
    }

    /// Waits until the writer has ended, after the last handle was released. `true` says that it
    /// has, and left the file in order. Calls `meanwhile` as [`Self::flush_while`] does.
    pub fn wait_ended(&self, timeout: Duration, meanwhile: &dyn Fn()) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.queue.lock();
        while !state.ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.shared.queue.await_progress(state, left, meanwhile);
        }
        state.stopped.is_none()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.release();
    }
}

/// The unsettled entries of a batch, in order.
fn copies(batch: &Batch) -> Vec<Entries> {
    batch
        .chunks
        .iter()
        .map(|chunk| {
            let mut rest = Entries::default();
            let mut position: Position = chunk.position;
            while let Some((entry, next)) = chunk.entries.at(position) {
                rest.copy(&entry);
                position = next;
            }
            rest
        })
        .collect()
}
