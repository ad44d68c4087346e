//! One log per database file for the whole process: the list of running logs, and the handles
//! through which JavaScript threads use them.
//!
//! Any thread. A log lives until its last handle is closed and its accepted entries are written.
//! An open of the same file after that close starts a new log.

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

/// Logs whose writer has not ended, closing logs included, each with its number of handles.
static RUNNING: Mutex<Vec<(Arc<Shared>, usize)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(Arc<Shared>, usize)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle on a file's log. Dropping it does not wait; the accepted entries are still written.
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

/// Opens a handle on the log of `file`. The first handle starts the writer and sets the options. A
/// later handle gets those options; if it `insists` on its own and they differ, it gets an error.
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
        // Not compared by file id: if no connection kept the first file open, its inode may have
        // been reused for another file.
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
        // Registered before the writer starts: the writer may emit an event at once.
        shared.listen(id, listener);
        thread::start(&shared, forget)?;
        logs.push((Arc::clone(&shared), 1));
        shared
    };
    drop(logs);
    Ok(Log { shared, id, closed: false })
}

/// Opens the log of a database without a file. It has no writer and no other handles. Entries stay
/// queued until [`Log::write_on`] writes them.
pub fn open_in_memory(options: Options, listener: Arc<dyn Listener>) -> Log {
    let shared = Arc::new(Shared::new(DatabaseFile::in_memory(), options));
    shared.listen(0, listener);
    Log { shared, id: 0, closed: false }
}

/// The writer of `shared` has ended.
fn forget(shared: &Arc<Shared>) {
    running().retain(|(other, _)| !Arc::ptr_eq(other, shared));
}

/// Resumes the logs of the file `id` after its repair or restore, if corruption had stopped them.
/// Entries that are still queued are written.
pub fn resume(id: FileId) {
    for shared in logs_of(id) {
        shared.resume();
    }
}

/// Stops the logs of the file `id`. A connection of this process has detected that the file's path
/// leads elsewhere.
pub fn replaced(id: FileId, error: &Error) {
    for shared in logs_of(id) {
        shared.stop(error);
    }
}

fn logs_of(id: FileId) -> Vec<Arc<Shared>> {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    logs.into_iter().filter(|shared| shared.file.id == id).collect()
}

/// Sets `end`, which [`flush_all`] calls first, on the thread that ends the process. It rolls back
/// open transactions for which the logs would wait in vain.
pub fn at_end(end: fn()) {
    BEFORE_END.get_or_init(|| end);
}

static BEFORE_END: OnceLock<fn()> = OnceLock::new();

/// Until when the end of the process waits: [`END_DEADLINE`] after the first call.
fn end_deadline() -> Instant {
    static DEADLINE: OnceLock<Instant> = OnceLock::new();
    *DEADLINE.get_or_init(|| Instant::now() + END_DEADLINE)
}

/// Waits until every log has written the entries that wait for no lock. For the end of the process
/// while JavaScript may still run: it may yet commit a transaction that holds the lock, so no
/// transaction is rolled back. [`flush_all`] writes the rest.
pub fn flush_unlocked() {
    let logs: Vec<_> = running().iter().map(|(shared, _)| Arc::clone(shared)).collect();
    for shared in logs {
        shared.queue.flush_unlocked(end_deadline());
    }
}

/// Waits until every log has written its accepted entries, at most until [`END_DEADLINE`] after the
/// end of the process began. No JavaScript runs any more, so open transactions are rolled back
/// first ([`at_end`]). Returns a sentence for each log with unwritten entries.
pub fn flush_all() -> Vec<String> {
    if let Some(end) = BEFORE_END.get() {
        end();
    }
    flush_until(end_deadline())
}

/// Waits until every log has written its accepted entries, or until `deadline`. For the end of a
/// thread; rolls nothing back. Returns a sentence for each log with unwritten entries.
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

/// Makes the end of the process wait for its logs. Node runs `exit` listeners of JavaScript on the
/// main thread only, which may not have loaded this package: a worker may be its only user.
fn flush_at_exit() {
    #[cfg(unix)]
    {
        extern "C" fn at_exit() {
            drop(std::panic::catch_unwind(|| {
                for sentence in flush_all() {
                    // No JavaScript is left to receive an event, so stderr gets the report.
                    drop(writeln!(std::io::stderr(), "fusion-sqlite: {}", shown(&sentence)));
                }
            }));
        }
        static REGISTER: std::sync::Once = std::sync::Once::new();
        // SAFETY: the function may run at any time of the process's end: the library is never
        // unloaded, and the threads it waits for run until this returns.
        REGISTER.call_once(|| unsafe {
            libc::atexit(at_exit);
            // Bun ends with quick_exit(), which does not run the functions of atexit().
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

/// Result of [`Log::report_own_transaction`].
#[derive(Debug, Clone, Copy)]
pub struct LockedOut {
    /// Calls or barriers of that thread were waiting, and got the error.
    pub told: bool,
    /// The writer has failed for at least the given patience.
    pub lasts: bool,
}

impl Log {
    /// Accepts one entry without a waiting call.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn append_one(&self, entry: &Entries) -> std::result::Result<(), Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_one(entry, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.tell_refusal();
        }
        taken
    }

    /// Accepts the entries of a call that waits for `reply`, and returns an empty arena. If the
    /// entries are refused, `reply` is dropped.
    ///
    /// # Errors
    /// Why the entries were refused.
    pub fn append(&self, entries: Entries, reply: Reply) -> std::result::Result<Entries, Refusal> {
        self.check_open()?;
        let taken = self.shared.queue.push_batch(entries, reply, &self.shared.options);
        if let Err(Refusal::Full { .. }) = &taken {
            self.shared.tell_refusal();
        }
        taken
    }

    /// The JavaScript turn of a call of [`Self::append`] has ended.
    pub fn turn_ended(&self) {
        self.shared.queue.turn_ended(&self.shared.options);
    }

    fn check_open(&self) -> std::result::Result<(), Refusal> {
        if self.closed { Err(Refusal::Closed) } else { Ok(()) }
    }

    /// Calls `reply` once all entries accepted so far are settled.
    pub fn barrier(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        self.shared.queue.barrier(Box::new(reply));
    }

    /// Blocks until all entries accepted so far are settled.
    ///
    /// # Errors
    /// `ERR_FUSION_FLUSH_TIMEOUT`, or why the writer has stopped; the entries are kept.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.shared.queue.flush(timeout, &|| ())
    }

    /// As [`Self::flush`], and calls `meanwhile` now and then. For a thread that blocks its event
    /// loop and has connections that the writer may have to wait for.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_while(&self, timeout: Duration, meanwhile: &dyn Fn()) -> Result<()> {
        self.shared.queue.flush(timeout, meanwhile)
    }

    /// Writes all queued entries on `connection`, inside the transaction that is open there.
    ///
    /// # Errors
    /// SQLite's. The entries are queued as before.
    pub fn write_on(&self, connection: &Connection, borrowed: &mut Option<Borrowed>) -> Result<()> {
        Borrowed::write(&self.shared, connection, borrowed)
    }

    /// Removes all entries that were accepted and are not committed, and returns them. Calls that
    /// wait for them get `ERR_FUSION_TAKEN_BACK` or `ERR_FUSION_COMMIT_UNKNOWN`.
    pub fn take_pending(&self) -> Vec<Entries> {
        let batch = self.shared.queue.take_all();
        let pending = copies(&batch);
        self.shared.tell(self.shared.queue.forget(batch, &self.shared.options));
        pending
    }

    /// Records whether the schema already has the table. If so, `create_table` never creates it,
    /// even if a migration drops it before the first entry. `connection` opened the log.
    pub fn look_for_table(&self, connection: &Connection) {
        let shared = &self.shared;
        // A schema that cannot be read is reported at the first write.
        if shared.options.create_table
            && table::kind_of(connection, table::TABLE).is_ok_and(|kind| kind.is_some())
        {
            shared.see_table();
        }
    }

    /// Requests a checkpoint from the writer.
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

    /// Statistics, unsettled rows and bytes, the WAL's status, and the current failure, if any. The
    /// flag of the failure is `true` if it has stopped the writer.
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

    /// Closes the handle. Returns whether it was the log's last one: the writer then ends once the
    /// queue is written.
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

    /// Calls `reply` once the writer has ended, after the last handle was released. The result is
    /// the failure that had stopped the writer, if one had.
    pub fn when_ended(&self, reply: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.shared.queue.lock();
        if state.ended {
            let stopped = state.stopped.clone();
            drop(state);
            return reply(stopped.map_or(Ok(()), Err));
        }
        state.when_ended.push(Box::new(reply));
    }

    /// Fails all waiting calls and barriers with `error`, and emits it. The entries stay queued.
    pub fn fail_waiting(&self, error: &Error) {
        self.shared.tell(self.shared.queue.fail_waiting(error, &Waiting::default()));
        self.shared.emit(&Event::Error(error.clone()));
    }

    /// Whether accepted entries are unsettled: queued, in a batch, or lent.
    pub fn has_pending(&self) -> bool {
        self.shared.queue.lock().rows > 0
    }

    /// Whether the log has stopped because its file's path leads elsewhere.
    pub fn is_displaced(&self) -> bool {
        let state = self.shared.queue.lock();
        state.stopped.as_ref().is_some_and(|error| error.class() == Class::Replaced)
    }

    /// Moves all accepted, uncommitted entries to the end of the queue of `next`, with their
    /// waiting calls and barriers, and stops this log. If both are handles on one log, its file is
    /// at its path again, and that log resumes.
    pub fn move_to(&self, next: &Log) {
        if Arc::ptr_eq(&self.shared, &next.shared) {
            return self.shared.go_on(Class::Replaced);
        }
        let left = self.shared.queue.leave();
        next.shared.tell(next.shared.queue.take_over(left, &next.shared.options));
        self.shared.stop(&file_moved(&self.shared.file.path));
    }

    /// Reports that an open transaction of `thread` blocks the writer. Calls and barriers of that
    /// thread that have waited for at least `patience` get `error`.
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

    /// Whether entries are queued.
    pub fn has_queued(&self) -> bool {
        self.shared.queue.has_queued()
    }

    /// Waits until the writer has ended, after the last handle was released. Returns whether it has
    /// ended and no failure had stopped it. Calls `meanwhile` as [`Self::flush_while`] does.
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
