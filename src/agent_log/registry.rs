//! One log per database file for the whole process: the map from file identity to log, and the
//! handles through which JavaScript threads use a log.
//!
//! Any thread. A log lives until its last handle is released and every accepted entry is written.
//! An open of the same file in between starts a new log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::caller_transaction::CallerTransaction;
use super::entry::{Entries, Position};
use super::event::{Event, Listener};
use super::log::LogCore;
use super::options::{END_DEADLINE, LogOptions};
use super::queue::{Batch, Refusal, Reply, Waiting};
use super::stats::{Stats, WalStatus};
use super::{table, thread};
use crate::checkpoint;
use crate::engine::{Class, Connection, DatabaseFile, Error, FileId, Result, file_moved};

/// Logs whose writer has not ended, including closing logs, with their number of handles.
static RUNNING: Mutex<Vec<(Arc<LogCore>, usize)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(Arc<LogCore>, usize)>> {
    RUNNING.lock()
}

/// A handle on a file's log. Dropping it does not wait; accepted entries are still written.
pub struct Log {
    shared: Arc<LogCore>,
    id: u64,
    closed: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

/// A handle on the log of `file`; starts the log if the file has no open one. The log uses the
/// `options` of its first handle. If a later handle `insists` on its options, it gets an error
/// where they differ.
///
/// # Errors
/// `ERR_FUSION_OPTIONS_CONFLICT`, `ERR_FUSION_THREAD`.
pub fn open(
    file: &Arc<DatabaseFile>,
    options: LogOptions,
    insists: bool,
    listener: Arc<dyn Listener>,
) -> Result<Log> {
    flush_at_exit();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut logs = running();
    let found = logs
        .iter_mut()
        // Not by the id: if no connection held the file open, its inode may have been reused.
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
        let shared = Arc::new(LogCore::new(Arc::clone(file), options));
        // Before the writer starts: it may emit an event at once.
        shared.listen(id, listener);
        thread::start(&shared, forget)?;
        logs.push((Arc::clone(&shared), 1));
        shared
    };
    drop(logs);
    Ok(Log { shared, id, closed: false })
}

/// The log of a database without a file: no writer, no other handles. Entries stay queued until
/// [`Log::write_in_caller_transaction`] writes them.
pub fn open_in_memory(options: LogOptions, listener: Arc<dyn Listener>) -> Log {
    let shared = Arc::new(LogCore::new(DatabaseFile::in_memory(), options));
    shared.listen(0, listener);
    Log { shared, id: 0, closed: false }
}

/// The writer of `shared` has ended.
fn forget(shared: &Arc<LogCore>) {
    running().retain(|(other, _)| !Arc::ptr_eq(other, shared));
}

/// The file `id` was repaired or restored: a log in this process that its damage had stopped goes
/// on, with the entries that are still queued.
pub fn resume(id: FileId) {
    for shared in logs_of(id) {
        shared.resume();
    }
}

/// A connection of this process detected that the path of the file `id` leads to another file: the
/// log stops.
pub fn replaced(id: FileId, error: &Error) {
    for shared in logs_of(id) {
        shared.stop(error);
    }
}

fn logs_of(id: FileId) -> Vec<Arc<LogCore>> {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    logs.into_iter().filter(|shared| shared.file.id == id).collect()
}

/// Registers `end`, which is called when the process ends, on the thread that ends it, before
/// [`flush_all`] waits for the logs: it ends transactions that would block the writers.
pub fn at_end(end: fn()) {
    BEFORE_END.get_or_init(|| end);
}

static BEFORE_END: OnceLock<fn()> = OnceLock::new();

/// The moment at which the end of the process stops waiting: [`END_DEADLINE`] after it began.
fn end_deadline() -> Instant {
    static DEADLINE: OnceLock<Instant> = OnceLock::new();
    *DEADLINE.get_or_init(|| Instant::now() + END_DEADLINE)
}

/// The process ends, and JavaScript may still run: waits until every log has written the entries
/// that do not wait for a lock. The others are left to [`flush_all`], because a transaction that
/// JavaScript may still commit is not rolled back.
pub fn flush_unlocked() {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    for shared in logs {
        shared.queue.flush_unlocked(end_deadline());
    }
}

/// The process ends, and no JavaScript runs any more: rolls back open transactions, and waits until
/// every log has written its entries, for at most [`END_DEADLINE`] after the end began. Returns a
/// sentence for each log with unwritten entries.
pub fn flush_all() -> Vec<String> {
    if let Some(end) = BEFORE_END.get() {
        end();
    }
    flush_until(end_deadline())
}

/// Waits until every log has written its entries, or until `deadline`, for a thread that ends.
/// Returns a sentence for each log with unwritten entries.
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

/// Makes the end of the process wait for its logs. Node runs JavaScript's `exit` listeners on the
/// main thread only, and this package may be loaded in a worker only.
fn flush_at_exit() {
    #[cfg(unix)]
    {
        use std::io::Write;

        use crate::engine::shown;

        extern "C" fn at_exit() {
            drop(std::panic::catch_unwind(|| {
                for sentence in flush_all() {
                    // No JavaScript runs any more: stderr is the only place left to report to.
                    drop(writeln!(std::io::stderr(), "fusion-sqlite: {}", shown(&sentence)));
                }
            }));
        }
        static REGISTER: std::sync::Once = std::sync::Once::new();
        // SAFETY: the function may run at any time of the process's end: the library is never
        // unloaded, and the threads it waits for run until this returns.
        REGISTER.call_once(|| unsafe {
            libc::atexit(at_exit);
            // Bun ends with quick_exit(), which does not run atexit()'s functions.
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

/// State of a log whose writer waits for a transaction of one of this process's threads.
#[derive(Debug, Clone, Copy)]
pub struct LockedOut {
    /// Calls that waited for the log were answered with the error.
    pub reported: bool,
    /// Writing has failed for at least the given patience.
    pub lasts: bool,
}

impl Log {
    /// Accepts one entry that no call waits for.
    ///
    /// # Errors
    /// Why the entry was not accepted.
    pub fn append_one(&self, entry: &Entries) -> std::result::Result<(), Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_one(entry, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.report_refusal();
        }
        taken
    }

    /// Accepts the entries of a call that waits for `reply`, and returns an empty arena. If the
    /// entries are refused, `reply` is dropped.
    ///
    /// # Errors
    /// Why no entry was accepted.
    pub fn append(&self, entries: Entries, reply: Reply) -> std::result::Result<Entries, Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_batch(entries, reply, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.report_refusal();
        }
        taken
    }

    /// A turn of JavaScript that called [`Self::append`] has ended.
    pub fn turn_ended(&self) {
        self.shared.queue.turn_ended(&self.shared.options);
    }

    fn check_open(&self) -> std::result::Result<(), Refusal> {
        if self.closed { Err(Refusal::Closed) } else { Ok(()) }
    }

    /// Calls `reply` once every entry accepted so far is settled.
    pub fn barrier(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        self.shared.queue.barrier(Box::new(reply));
    }

    /// Blocks until every entry accepted so far is settled.
    ///
    /// # Errors
    /// `ERR_FUSION_FLUSH_TIMEOUT`, or the error that stopped the writer; the entries are kept.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.shared.queue.flush(timeout, &|| ())
    }

    /// As [`Self::flush`], and calls `meanwhile` at intervals: for a JavaScript thread, whose
    /// blocked event loop may have connections that the writer has to wait for.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_while(&self, timeout: Duration, meanwhile: &dyn Fn()) -> Result<()> {
        self.shared.queue.flush(timeout, meanwhile)
    }

    /// Writes all queued entries on `connection`, inside its open transaction.
    ///
    /// # Errors
    /// SQLite's; the entries are then queued as before.
    pub fn write_in_caller_transaction(
        &self,
        connection: &Connection,
        borrowed: &mut Option<CallerTransaction>,
    ) -> Result<()> {
        CallerTransaction::write(&self.shared, connection, borrowed)
    }

    /// Takes back all entries that were accepted and are not committed. Calls that wait for such an
    /// entry get an error.
    pub fn take_pending(&self) -> Vec<Entries> {
        let batch = self.shared.queue.take_all();
        let pending = copies(&batch);
        self.shared.deliver(self.shared.queue.discard(batch, &self.shared.options));
        pending
    }

    /// Notes whether the table exists when the log is opened. If it does, `create_table` never
    /// creates it again, even if a migration drops it before the first entry.
    pub fn look_for_table(&self, connection: &Connection) {
        let shared = &self.shared;
        // An unreadable schema is reported by the first write.
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
        reply: impl FnOnce(Result<checkpoint::CheckpointOutcome>) + Send + 'static,
    ) {
        self.shared.queue.request_checkpoint(mode, Box::new(reply));
    }

    /// The file.
    pub fn file(&self) -> &Arc<DatabaseFile> {
        &self.shared.file
    }

    /// The options in force.
    pub fn options(&self) -> &LogOptions {
        &self.shared.options
    }

    /// Figures, rows and bytes queued, the WAL's status, and the current failure: whether it
    /// stopped the log, and the error.
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

    /// Releases the handle. Returns `true` for the last handle, after which the writer ends once
    /// the queue is written.
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

    /// Calls `reply` once the writer has ended, after the last handle was released: with the error
    /// that had stopped it for good, if any.
    pub fn when_ended(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.shared.queue.lock();
        if state.ended {
            let stopped = state.stopped.clone();
            drop(state);
            return reply(stopped.map_or(Ok(()), Err));
        }
        state.when_ended.push(Box::new(reply));
    }

    /// Answers every waiting call with `error` and emits it; the entries stay queued.
    pub fn fail_waiting(&self, error: &Error) {
        self.shared.deliver(self.shared.queue.fail_waiting(error, &Waiting::default()));
        self.shared.emit(&Event::Error(error.clone()));
    }

    /// Whether accepted entries are not settled: queued, in a batch, or lent.
    pub fn has_pending(&self) -> bool {
        self.shared.queue.lock().rows > 0
    }

    /// Whether the log stopped because the path of its file leads to another file.
    pub fn is_displaced(&self) -> bool {
        let state = self.shared.queue.lock();
        state.stopped.as_ref().is_some_and(|error| error.class() == Class::Replaced)
    }

    /// Moves all queued entries and their waiting calls to the end of `next`'s queue, and stops
    /// this log. If both are handles on one log, whose file is at its path again, that log goes on.
    pub fn move_to(&self, next: &Log) {
        if Arc::ptr_eq(&self.shared, &next.shared) {
            return self.shared.check_cancelled(Class::Replaced);
        }
        let left = self.shared.queue.leave();
        next.shared.deliver(next.shared.queue.take_over(left, &next.shared.options));
        self.shared.stop(&file_moved(&self.shared.file.path));
    }

    /// An open transaction of thread `thread` blocks the writer: answers with `error` the calls of
    /// that thread that have waited for `patience` or longer.
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
        let reported = !settled.is_empty();
        self.shared.deliver(settled);
        LockedOut {
            reported,
            lasts: before.zip(failed).is_some_and(|(before, since)| since <= before),
        }
    }

    /// Whether entries are queued.
    pub fn has_queued(&self) -> bool {
        self.shared.queue.has_queued()
    }

    /// Waits until the writer has ended, after the last handle was released. Returns `true` if it
    /// ended in time and was not stopped by an error. Calls `meanwhile` as [`Self::flush_while`]
    /// does.
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
