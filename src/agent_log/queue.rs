//! The bounded queue between JavaScript threads and the writer, and the calls that wait for it.
//!
//! One mutex guards all of it. The mutex is held while pointers move and single entries are
//! copied, never across a call into SQLite. The writer sleeps in [`Queue::sleep`], threads that
//! wait for the writer sleep on [`Queue::progress`]. Replies are called without the mutex.
//!
//! When a batch is due, the first that applies:
//!
//! | queued | due |
//! |---|---|
//! | a whole batch; any entry, while a thread blocks for it or the log is closing | at once |
//! | awaited entries whose turn of JavaScript has ended; a barrier | after `awaited_linger` |
//! | awaited entries whose turn goes on | after [`LONGEST_TURN`], or `awaited_linger` if longer |
//! | any other entry | after `linger` |
//!
//! So the callers that one turn resumes share a batch, a single caller does not wait for others,
//! and the entries appended during a commit are the next batch. The writer is woken only if it
//! would sleep past the moment at which a batch is due.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::entry::{Entries, Position};
use super::options::LogOptions;
use super::stats::Stats;
use crate::checkpoint;
use crate::engine::Error;

/// Entries that no call waits for share an arena up to this size in bytes.
const SHARED_ARENA: usize = 256 << 10;

/// How long entries that a caller waits for may wait for the end of the turn that appended them.
/// It bounds the delay by a turn that calculates for seconds, or whose end is not reported.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(10);

/// How long a thread blocks at a time.
const SLICE: Duration = Duration::from_millis(50);

/// A row that was not stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Index of the entry in its append call.
    pub index: usize,
    /// SQLite's error for this row.
    pub error: Error,
}

/// The result of one append call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows committed.
    pub committed: u64,
    /// Rows rejected, in the order of their index.
    pub rejected: Vec<Rejection>,
    /// Smallest `id` given.
    pub first_id: Option<i64>,
    /// Largest `id` given.
    pub last_id: Option<i64>,
}

/// Outcome of an append call. On failure the receipt has the rows that were committed before it;
/// the other entries are kept, in the queue or by the caller that took them back.
pub type Answer = Result<Receipt, (Error, Receipt)>;

/// Takes the outcome of an append call, on any thread.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// Answer to a barrier.
pub(super) type BarrierReply = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Answer to a requested checkpoint.
pub(super) type CheckpointReply =
    Box<dyn FnOnce(Result<checkpoint::CheckpointOutcome, Error>) + Send>;

/// Why the queue accepted no entry of a call.
#[derive(Debug)]
pub enum Refusal {
    /// The queue is full until the writer has committed.
    Full {
        /// Bytes in the queue.
        queued: usize,
        /// Bytes that were offered.
        offered: usize,
        /// The limit.
        limit: usize,
    },
    /// The entries alone exceed the limit: one call can never append all of them.
    TooLarge {
        /// Bytes that were offered.
        offered: usize,
        /// The limit.
        limit: usize,
    },
    /// The writer has stopped for good.
    Stopped(Box<Error>),
    /// The log was closed.
    Closed,
}

/// Entries that were handed over together.
pub(super) struct PendingAppend {
    pub entries: Entries,
    /// The first entry that is not settled.
    pub position: Position,
    /// When the first of them was accepted.
    pub since: Instant,
    ticket: Option<AppendWaiter>,
}

/// A call that waits until `target` rows are settled.
struct Barrier {
    target: u64,
    since: Instant,
    thread: ThreadId,
    reply: BarrierReply,
}

struct AppendWaiter {
    reply: Reply,
    receipt: Receipt,
    thread: ThreadId,
}

/// Selects waiting calls.
#[derive(Default)]
pub(super) struct Waiting {
    /// Those that began to wait at this moment or before; `None`: at any time.
    pub before: Option<Instant>,
    /// Those of this thread; `None`: of any thread.
    pub thread: Option<ThreadId>,
}

impl Waiting {
    fn includes(&self, since: Instant, thread: ThreadId) -> bool {
        self.before.is_none_or(|before| since <= before)
            && self.thread.is_none_or(|own| own == thread)
    }
}

/// Unsettled entries of a log whose file was replaced, and the barriers that wait for them.
pub(super) struct Left {
    batch: Batch,
    barriers: Vec<Barrier>,
}

/// The outcome of one row within a transaction.
#[derive(Debug, Clone)]
pub(super) enum RowOutcome {
    Inserted(i64),
    Rejected(Error),
}

/// The chunks of a transaction, in order. The last chunk may reach beyond the batch's limits.
#[derive(Default)]
pub(super) struct Batch {
    pub chunks: Vec<PendingAppend>,
    /// The batch has at most this many rows.
    pub limit_rows: usize,
    /// The batch ends with the row that reaches this many bytes.
    pub limit_bytes: usize,
    /// The failed COMMIT that may have stored the batch's first rows.
    pub unknown: Option<UncertainCommit>,
}

/// A failed COMMIT that may have stored its rows: its frames may be in the WAL, where SQLite finds
/// them when it next rebuilds the WAL-index.
pub(super) struct UncertainCommit {
    /// The outcome of each row in the transaction.
    pub outcomes: Vec<RowOutcome>,
    /// Why COMMIT failed.
    pub error: Error,
}

/// Replies and events that a finished batch leaves to deliver outside the mutex.
#[derive(Default)]
pub(super) struct Completions {
    replies: Vec<(Reply, Answer)>,
    barriers: Vec<(BarrierReply, Result<(), Error>)>,
    /// Rejected rows that no call waits for, with their values.
    pub unawaited: Vec<(Entries, Error)>,
    /// The queue fell to half its limit after it had refused entries.
    pub relieved: bool,
}

/// What the writer has to do next.
pub(super) enum Next {
    /// Write a batch.
    Commit,
    /// Carry out a requested checkpoint.
    Checkpoint(checkpoint::Mode, CheckpointReply),
    /// Sleep until this moment, or until woken; `None`: until woken.
    Wait(Option<Instant>),
    /// Close the connection and end.
    Stop,
}

#[derive(Default)]
pub(super) struct State {
    chunks: VecDeque<PendingAppend>,
    /// Rows and bytes accepted and not settled: queued, or in an open transaction.
    pub rows: usize,
    pub bytes: usize,
    /// Rows and bytes in `chunks`.
    queued_rows: usize,
    queued_bytes: usize,
    accepted: u64,
    settled: u64,
    /// The writer has taken a batch and not settled it or given it back.
    pub batch_open: bool,
    /// When the first call began to wait for queued entries.
    awaited_since: Option<Instant>,
    /// A turn that appended awaited entries has ended, or a barrier waits.
    turn_ended: bool,
    /// Threads that block until the queue is written: no linger.
    urgent: u32,
    barriers: Vec<Barrier>,
    checkpoints: VecDeque<(checkpoint::Mode, CheckpointReply)>,
    /// Set by the writer after a failed attempt: no attempt before this moment.
    pub retry_at: Option<Instant>,
    /// When the current run of failed attempts began, and the last error.
    pub failing: Option<(Instant, Error)>,
    /// The error that stopped writing: for good, unless it was damage and the file is restored.
    pub stopped: Option<Error>,
    /// The last handle is gone: write what is queued, then end.
    pub closing: bool,
    thread: Thread,
    /// The writer has ended for good.
    pub ended: bool,
    /// Called when the writer has ended for good.
    pub when_ended: Vec<BarrierReply>,
    /// The WAL has changed: the checkpoint policy has to decide again.
    pub look_at_wal: bool,
    /// The failed COMMIT that may have stored the first rows of the queue.
    unknown: Option<UncertainCommit>,
    refusing: bool,
    spare: Vec<Entries>,
    pub stats: Stats,
}

/// State of the writer's thread, which decides how to wake it.
#[derive(Debug, Default, PartialEq, Eq)]
enum Thread {
    /// No thread: it was not started yet, or it ended because it had no work.
    #[default]
    Resting,
    /// It reads the queue before it sleeps.
    Awake,
    /// It reads the queue at this moment; `None`: when it is notified.
    Asleep(Option<Instant>),
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer sleeps here.
    work: Condvar,
    /// Threads that wait for the writer sleep here.
    pub progress: Condvar,
    /// Starts the writer's thread. A database without a file has none.
    start: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl PendingAppend {
    fn rows_left(&self) -> usize {
        self.entries.len().saturating_sub(self.position.row)
    }

    fn bytes_left(&self) -> usize {
        self.entries.bytes_from(self.position)
    }
}

impl Queue {
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            start: OnceLock::new(),
        }
    }

    /// Registers `start`, which is called on any thread and without the mutex whenever work
    /// arrives and the writer has no thread.
    pub fn start_with(&self, start: impl Fn() + Send + Sync + 'static) {
        // A queue gets its writer once.
        drop(self.start.set(Box::new(start)));
    }

    /// Makes the writer read the queue at `due` at the latest; `None`: at once.
    pub fn wake(&self, mut state: MutexGuard<'_, State>, due: Option<Instant>) {
        match state.thread {
            Thread::Awake => {}
            Thread::Asleep(until) => {
                if until.is_none_or(|until| due.is_none_or(|due| due < until)) {
                    state.thread = Thread::Awake;
                    drop(state);
                    self.work.notify_one();
                }
            }
            Thread::Resting => {
                if let Some(start) = self.start.get() {
                    state.thread = Thread::Awake;
                    drop(state);
                    start();
                }
            }
        }
    }

    /// Called by the writer: sleeps until it is woken, or until `until`.
    pub fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        state.thread = Thread::Asleep(until);
        match until {
            Some(until) => _ = self.work.wait_until(&mut state, until),
            None => self.work.wait(&mut state),
        }
        state.thread = Thread::Awake;
        state
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Accepts one entry that no call waits for: `entry` is copied into the queue's own arena.
    pub fn push_one(&self, entry: &Entries, options: &LogOptions) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.check_capacity(entry.byte_len(), options)?;
        let first = state.chunks.is_empty();
        let shared = match state.chunks.back_mut() {
            Some(tail) if tail.ticket.is_none() && tail.entries.byte_len() < SHARED_ARENA => tail,
            _ => {
                let entries = state.spare.pop().unwrap_or_default();
                state.chunks.push_back(PendingAppend {
                    entries,
                    position: Position::default(),
                    since: Instant::now(),
                    ticket: None,
                });
                match state.chunks.back_mut() {
                    Some(tail) => tail,
                    None => return Ok(()),
                }
            }
        };
        shared.entries.append(entry);
        let was_due = state.is_full(options);
        state.add(entry.len(), entry.byte_len());
        if !was_due && state.is_full(options) {
            self.wake(state, None);
        } else if first {
            self.wake(state, Some(Instant::now() + options.linger));
        }
        Ok(())
    }

    /// Accepts the entries of a call that waits; `reply` is called once they are settled. The
    /// caller reports the end of its turn, see [`Self::turn_ended`]. Returns an empty arena for the
    /// next call.
    pub fn push_batch(
        &self,
        entries: Entries,
        reply: Reply,
        options: &LogOptions,
    ) -> Result<Entries, Refusal> {
        let mut state = self.lock();
        // Under the mutex that accepts the entries: calls accepted after the stop get no reply.
        if let Some(error) = &state.stopped {
            return Err(Refusal::Stopped(Box::new(error.clone())));
        }
        state.check_capacity(entries.byte_len(), options)?;
        if entries.is_empty() {
            // An empty batch never wakes the writer, so the reply is given here.
            drop(state);
            reply(Ok(Receipt::default()));
            return Ok(entries);
        }
        let was_due = state.is_full(options);
        let (rows, bytes) = (entries.len(), entries.byte_len());
        state.chunks.push_back(PendingAppend {
            entries,
            position: Position::default(),
            since: Instant::now(),
            ticket: Some(AppendWaiter {
                reply,
                receipt: Receipt::default(),
                thread: std::thread::current().id(),
            }),
        });
        state.add(rows, bytes);
        let first = state.awaited_since.is_none();
        state.awaited_since.get_or_insert_with(Instant::now);
        let spare = state.spare.pop().unwrap_or_default();
        if !was_due && state.is_full(options) {
            self.wake(state, None);
        } else if first {
            let due = state.awaited_due(options);
            self.wake(state, due);
        }
        Ok(spare)
    }

    /// A turn of JavaScript that appended awaited entries has ended.
    pub fn turn_ended(&self, options: &LogOptions) {
        let mut state = self.lock();
        if state.awaited_since.is_some() && !std::mem::replace(&mut state.turn_ended, true) {
            let due = state.awaited_due(options);
            self.wake(state, due);
        }
    }

    /// Calls `reply` once every entry accepted before this call is settled.
    pub fn barrier(&self, reply: BarrierReply) {
        let mut state = self.lock();
        if let Some(error) = state.stopped.clone().filter(|_| state.rows > 0) {
            drop(state);
            return reply(Err(error));
        }
        if state.settled >= state.accepted {
            drop(state);
            return reply(Ok(()));
        }
        let target = state.accepted;
        let since = Instant::now();
        let thread = std::thread::current().id();
        state.barriers.push(Barrier { target, since, thread, reply });
        state.awaited_since.get_or_insert(since);
        state.turn_ended = true;
        self.wake(state, None);
    }

    /// Blocks until every entry accepted before this call is settled, or `timeout` passed. Calls
    /// `meanwhile` at intervals, without the mutex.
    pub fn flush(&self, timeout: Duration, meanwhile: &dyn Fn()) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        let target = state.accepted;
        state.urgent += 1;
        let mut calls = true;
        let outcome = loop {
            if state.settled >= target {
                break Ok(());
            }
            if let Some(error) = &state.stopped {
                break Err(error.clone());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                let cause = match &state.failing {
                    Some((_, error)) => format!("the last attempt failed: {error}"),
                    None => "the writer was still busy".to_owned(),
                };
                let since = match timeout.as_millis() {
                    0 => "are not written yet".to_owned(),
                    millis => format!("could not be written within {millis} ms"),
                };
                let late = Error::fusion(
                    "ERR_FUSION_FLUSH_TIMEOUT",
                    format!(
                        "{} log entries {since}; {cause}. They are kept and will be written as \
                         soon as possible; takePending() takes them back.",
                        state.rows,
                    ),
                );
                // The cause's codes, for programs.
                break Err(match &state.failing {
                    Some((_, Error { errcode, errstr, .. })) => {
                        Error { errcode: *errcode, errstr: errstr.clone(), ..late }
                    }
                    None => late,
                });
            };
            if std::mem::take(&mut calls) {
                self.wake(state, None);
                // The mutex was released: the target may be reached.
                state = self.lock();
                continue;
            }
            state = self.await_progress(state, left, meanwhile);
            // The system may have refused to start a thread.
            calls = state.thread == Thread::Resting;
        };
        state.urgent -= 1;
        outcome
    }

    /// Waits for progress, for at most `left`. Calls `meanwhile` if there was no progress within
    /// [`SLICE`].
    pub fn await_progress<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        left: Duration,
        meanwhile: &dyn Fn(),
    ) -> MutexGuard<'a, State> {
        let slice = left.min(SLICE);
        if !self.progress.wait_for(&mut state, slice).timed_out() {
            return state;
        }
        drop(state);
        meanwhile();
        self.lock()
    }

    /// Asks the writer for a checkpoint.
    pub fn request_checkpoint(&self, mode: checkpoint::Mode, reply: CheckpointReply) {
        let mut state = self.lock();
        let refused = state.stopped.clone().or_else(|| {
            state.ended.then(|| Error::fusion("ERR_INVALID_STATE", "database is not open"))
        });
        if let Some(error) = refused {
            drop(state);
            return reply(Err(error));
        }
        state.checkpoints.push_back((mode, reply));
        self.wake(state, None);
    }

    /// Makes the writer apply the checkpoint policy.
    pub fn look_at_wal(&self) {
        let mut state = self.lock();
        state.look_at_wal = true;
        self.wake(state, None);
    }

    /// The last handle was released: the writer writes the queue, then ends.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state, None);
    }

    /// Takes the whole queue, to write it on another connection or to return it to the caller.
    /// Waits for the end of the writer's open transaction, whose size is bounded.
    pub fn take_all(&self) -> Batch {
        let mut state = self.lock();
        while state.batch_open {
            self.progress.wait(&mut state);
        }
        state.take(usize::MAX, usize::MAX)
    }

    /// Takes a batch for the writer's open transaction. [`State::batch_open`] is set until the
    /// batch is settled or given back. The batch is empty while earlier entries are lent: a
    /// ROLLBACK releases SQLite's lock before it gives them back, and later entries must not
    /// overtake them.
    pub fn take_batch(&self, rows: usize, bytes: usize) -> Batch {
        let mut state = self.lock();
        if state.is_lent() {
            return Batch::default();
        }
        let batch = state.take(rows, bytes);
        state.batch_open = true;
        batch
    }

    /// Puts a batch that was not committed back where it was.
    pub fn give_back(&self, batch: Batch) {
        let mut state = self.lock();
        for chunk in batch.chunks.into_iter().rev() {
            state.put_front(chunk);
        }
        if batch.unknown.is_some() {
            state.unknown = batch.unknown;
        }
        state.batch_open = false;
        self.wake(state, None);
        self.progress.notify_all();
    }

    /// Settles a batch whose transaction has committed: each row by its outcome. Rows without an
    /// outcome go back to the front of the queue.
    pub fn complete(
        &self,
        batch: Batch,
        outcomes: Vec<RowOutcome>,
        options: &LogOptions,
    ) -> Completions {
        let now = Instant::now();
        let mut completions = Completions::default();
        let mut done = Vec::new();
        let mut rest = Vec::new();
        let (mut rows, mut bytes, mut inserted, mut rejected) = (0, 0, 0, 0);
        let mut outcomes = outcomes.into_iter();
        let mut append = Vec::with_capacity(batch.chunks.len());
        for mut chunk in batch.chunks {
            let before = (chunk.position.row, chunk.bytes_left());
            while let Some((entry, next)) = chunk.entries.at(chunk.position) {
                let Some(outcome) = outcomes.next() else {
                    break;
                };
                match (outcome, &mut chunk.ticket) {
                    (RowOutcome::Inserted(id), ticket) => {
                        inserted += 1;
                        if let Some(ticket) = ticket {
                            ticket.receipt.committed += 1;
                            ticket.receipt.first_id.get_or_insert(id);
                            ticket.receipt.last_id = Some(id);
                        }
                    }
                    (RowOutcome::Rejected(error), Some(ticket)) => {
                        rejected += 1;
                        let index = chunk.position.row;
                        ticket.receipt.rejected.push(Rejection { index, error });
                    }
                    (RowOutcome::Rejected(error), None) => {
                        rejected += 1;
                        let mut alone = Entries::default();
                        alone.copy(&entry);
                        completions.unawaited.push((alone, error));
                    }
                }
                chunk.position = next;
            }
            let count = chunk.position.row - before.0;
            rows += count;
            bytes += before.1 - chunk.bytes_left();
            append.push((now.duration_since(chunk.since), count as u64));
            if chunk.rows_left() == 0 {
                done.push(chunk);
            } else {
                rest.push(chunk);
            }
        }
        let mut state = self.lock();
        for chunk in rest.into_iter().rev() {
            state.put_front(chunk);
        }
        for (time, count) in append {
            state.stats.append.record(time, count);
        }
        state.stats.rows += inserted;
        state.stats.rejected += rejected;
        state.stats.bytes += bytes as u64;
        state.rows = state.rows.saturating_sub(rows);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.settled += rows as u64;
        for mut chunk in done {
            if let Some(ticket) = chunk.ticket.take() {
                completions.replies.push((ticket.reply, Ok(ticket.receipt)));
            }
            if state.spare.len() < 4 {
                chunk.entries.clear();
                state.spare.push(chunk.entries);
            }
        }
        state.batch_open = false;
        state.finish(&mut completions, options);
        // If the batch was lent, the writer waits for its transaction to end.
        if state.queued_rows > 0 {
            self.wake(state, None);
        } else {
            drop(state);
        }
        self.progress.notify_all();
        completions
    }

    /// Discards a batch that was returned to the caller; calls that wait for it get an error.
    pub fn discard(&self, batch: Batch, options: &LogOptions) -> Completions {
        let mut completions = Completions::default();
        let mut state = self.lock();
        let mut unknown = batch.unknown.as_ref().map_or(0, |unknown| unknown.outcomes.len());
        for mut chunk in batch.chunks {
            let rows = chunk.rows_left();
            state.rows = state.rows.saturating_sub(rows);
            state.bytes = state.bytes.saturating_sub(chunk.bytes_left());
            state.settled += rows as u64;
            state.stats.taken_back += rows as u64;
            let is_unknown = unknown > 0;
            unknown = unknown.saturating_sub(rows);
            if let Some(ticket) = chunk.ticket.take() {
                let error = if let Some(unknown) = batch.unknown.as_ref().filter(|_| is_unknown) {
                    commit_unknown(&unknown.error)
                } else {
                    Error::fusion(
                        "ERR_FUSION_TAKEN_BACK",
                        "the entries were taken back by takePending() before they were committed",
                    )
                };
                completions.replies.push((ticket.reply, Err((error, ticket.receipt))));
            }
        }
        state.finish(&mut completions, options);
        drop(state);
        self.progress.notify_all();
        completions
    }

    /// Removes all queued entries and their waiting calls, to write them to another file. Entries
    /// lent to a transaction stay until it ends.
    pub fn leave(&self) -> Left {
        let mut state = self.lock();
        while state.batch_open {
            self.progress.wait(&mut state);
        }
        let mut batch = state.take(usize::MAX, usize::MAX);
        // Rows that the failed COMMIT may have stored are not in the other file.
        batch.unknown = None;
        for chunk in &batch.chunks {
            let rows = chunk.rows_left();
            state.rows = state.rows.saturating_sub(rows);
            state.bytes = state.bytes.saturating_sub(chunk.bytes_left());
            // They leave unsettled: a flush that waits for them fails.
            state.accepted -= rows as u64;
        }
        let barriers = std::mem::take(&mut state.barriers);
        state.recompute_deadline();
        drop(state);
        self.progress.notify_all();
        Left { batch, barriers }
    }

    /// Appends the entries and barriers that another log gave up to the end of this queue.
    pub fn take_over(&self, left: Left, options: &LogOptions) -> Completions {
        let mut completions = Completions::default();
        let mut state = self.lock();
        for chunk in left.batch.chunks {
            state.add(chunk.rows_left(), chunk.bytes_left());
            state.chunks.push_back(chunk);
        }
        let target = state.accepted;
        for barrier in left.barriers {
            state.barriers.push(Barrier { target, ..barrier });
        }
        state.finish(&mut completions, options);
        let stopped = state.stopped.clone();
        drop(state);
        if let Some(error) = stopped {
            let failed = self.fail_waiting(&error, &Waiting::default());
            completions.replies.extend(failed.replies);
            completions.barriers.extend(failed.barriers);
        }
        self.wake(self.lock(), None);
        completions
    }

    /// Blocks until every entry that does not wait for a lock is settled, or until `deadline`.
    pub fn flush_unlocked(&self, deadline: Instant) {
        let mut state = self.lock();
        let target = state.accepted;
        state.urgent += 1;
        self.wake(state, None);
        let mut state = self.lock();
        while state.settled < target && state.stopped.is_none() && state.failing.is_none() {
            if state.is_lent() && !state.batch_open {
                // The transaction with the lent entries has the lock.
                break;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            state = self.await_progress(state, left, &|| ());
        }
        state.urgent -= 1;
    }

    /// Whether entries are queued: lent entries and those in a batch do not count.
    pub fn has_queued(&self) -> bool {
        self.lock().queued_rows > 0
    }

    /// Removes the requested checkpoints, which the writer will not carry out.
    pub fn take_checkpoints(&self) -> Vec<CheckpointReply> {
        self.lock().checkpoints.drain(..).map(|(_, reply)| reply).collect()
    }

    /// Answers the calls selected by `waiting` with `error`. The entries stay queued.
    pub fn fail_waiting(&self, error: &Error, waiting: &Waiting) -> Completions {
        let mut completions = Completions::default();
        let mut state = self.lock();
        for chunk in &mut state.chunks {
            if let Some(ticket) =
                chunk.ticket.take_if(|ticket| waiting.includes(chunk.since, ticket.thread))
            {
                completions.replies.push((ticket.reply, Err((error.clone(), ticket.receipt))));
            }
        }
        let (failed, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.barriers)
            .into_iter()
            .partition(|barrier| waiting.includes(barrier.since, barrier.thread));
        state.barriers = rest;
        for barrier in failed {
            completions.barriers.push((barrier.reply, Err(error.clone())));
        }
        state.recompute_deadline();
        drop(state);
        self.progress.notify_all();
        completions
    }
}

/// `ERR_FUSION_COMMIT_UNKNOWN`: neither the file nor the WAL shows whether the rows were committed.
pub(super) fn commit_unknown(cause: &Error) -> Error {
    cause.clone().explained(
        "ERR_FUSION_COMMIT_UNKNOWN",
        "COMMIT failed, and the entries may or may not be stored: look for them in the table \
         before you append them again. They are kept; takePending() returns them.",
    )
}

impl State {
    /// Refuses entries that exceed the limit, or that come after the log was closed.
    fn check_capacity(&mut self, bytes: usize, options: &LogOptions) -> Result<(), Refusal> {
        let limit = options.queue_bytes;
        if self.closing {
            return Err(Refusal::Closed);
        }
        if bytes > limit {
            return Err(Refusal::TooLarge { offered: bytes, limit });
        }
        if self.bytes + bytes > limit {
            self.stats.refused += 1;
            return Err(Refusal::Full { queued: self.bytes, offered: bytes, limit });
        }
        Ok(())
    }

    /// Notes that the queue refuses entries. `true` for the first refusal since it last had room.
    pub fn start_refusing(&mut self) -> bool {
        !std::mem::replace(&mut self.refusing, true)
    }

    fn add(&mut self, rows: usize, bytes: usize) {
        self.rows += rows;
        self.bytes += bytes;
        self.queued_rows += rows;
        self.queued_bytes += bytes;
        self.accepted += rows as u64;
    }

    /// Whether a whole batch is queued.
    fn is_full(&self, options: &LogOptions) -> bool {
        self.queued_rows >= options.batch_rows || self.queued_bytes >= options.batch_bytes
    }

    /// Whether entries are part of a JavaScript thread's open transaction. Correct only while the
    /// writer has no batch.
    fn is_lent(&self) -> bool {
        self.rows > self.queued_rows
    }

    fn take(&mut self, limit_rows: usize, limit_bytes: usize) -> Batch {
        let unknown = self.unknown.take();
        // The rows of a COMMIT with an unknown outcome stay in one batch.
        let (limit_rows, limit_bytes) = match &unknown {
            Some(unknown) => (limit_rows.max(unknown.outcomes.len()), usize::MAX),
            None => (limit_rows, limit_bytes),
        };
        let mut batch = Batch { chunks: Vec::new(), limit_rows, limit_bytes, unknown };
        let (mut rows, mut bytes) = (0, 0);
        while rows < limit_rows && bytes < limit_bytes {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            rows += chunk.rows_left();
            bytes += chunk.bytes_left();
            batch.chunks.push(chunk);
        }
        self.queued_rows = self.queued_rows.saturating_sub(rows);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        // Entries that the same turn appends later wait for its end.
        self.turn_ended &= !self.chunks.is_empty();
        self.recompute_deadline();
        batch
    }

    fn put_front(&mut self, chunk: PendingAppend) {
        self.queued_rows += chunk.rows_left();
        self.queued_bytes += chunk.bytes_left();
        self.chunks.push_front(chunk);
        // The chunk was due before it was taken.
        self.turn_ended = true;
        self.recompute_deadline();
    }

    /// Recomputes [`Self::awaited_since`].
    fn recompute_deadline(&mut self) {
        let append = self.chunks.iter().find(|chunk| chunk.ticket.is_some());
        let barrier = self.barriers.first();
        let append = append.map(|chunk| chunk.since);
        let barrier = barrier.map(|barrier| barrier.since);
        self.awaited_since = [append, barrier].into_iter().flatten().min();
    }

    /// When the awaited entries are due.
    fn awaited_due(&self, options: &LogOptions) -> Option<Instant> {
        let linger = options.awaited_linger;
        let patience = if self.turn_ended { linger } else { linger.max(LONGEST_TURN) };
        self.awaited_since.map(|since| since + patience)
    }

    /// Whether the writer has no work until it is woken. Its thread then ends, and the next call of
    /// [`Queue::wake`] starts another.
    pub fn rest(&mut self) -> bool {
        let has_work = self.queued_rows > 0 && !self.is_lent() && self.stopped.is_none();
        let idle = !has_work && !self.closing && !self.look_at_wal && self.checkpoints.is_empty();
        if idle {
            self.thread = Thread::Resting;
        }
        idle
    }

    /// The thread is about to be started.
    pub fn started(&mut self) {
        self.thread = Thread::Awake;
    }

    #[cfg(test)]
    pub fn is_resting(&self) -> bool {
        self.thread == Thread::Resting
    }

    /// The thread could not be started.
    pub fn not_started(&mut self) {
        self.thread = Thread::Resting;
    }

    /// Answers the barriers that are reached, and detects that a full queue has room again.
    fn finish(&mut self, completions: &mut Completions, options: &LogOptions) {
        let settled = self.settled;
        let (reached, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.barriers)
            .into_iter()
            .partition(|barrier| barrier.target <= settled);
        self.barriers = waiting;
        completions.barriers.extend(reached.into_iter().map(|barrier| (barrier.reply, Ok(()))));
        self.recompute_deadline();
        if self.refusing && self.bytes <= options.queue_bytes / 2 {
            self.refusing = false;
            completions.relieved = true;
        }
    }

    /// What the writer has to do at `now`.
    pub fn next(&mut self, now: Instant, options: &LogOptions) -> Next {
        if self.stopped.is_some() {
            return if self.closing { Next::Stop } else { Next::Wait(None) };
        }
        if let Some((mode, reply)) = self.checkpoints.pop_front() {
            return Next::Checkpoint(mode, reply);
        }
        if self.queued_rows == 0 || self.is_lent() {
            return if self.closing && self.rows == 0 { Next::Stop } else { Next::Wait(None) };
        }
        if let Some(retry_at) = self.retry_at.filter(|retry_at| now < *retry_at) {
            return Next::Wait(Some(retry_at));
        }
        if self.closing || self.urgent > 0 || self.is_full(options) {
            return Next::Commit;
        }
        let lazy = self.chunks.front().map(|chunk| chunk.since + options.linger);
        match [lazy, self.awaited_due(options)].into_iter().flatten().min() {
            Some(due) if due <= now => Next::Commit,
            due => Next::Wait(due),
        }
    }
}

impl Completions {
    /// Whether no waiting call gets an answer.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.barriers.is_empty()
    }

    /// Calls the replies. Never under the queue's mutex.
    pub fn reply(self) {
        for (reply, outcome) in self.replies {
            reply(outcome);
        }
        for (reply, outcome) in self.barriers {
            reply(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn entry() -> Entries {
        let mut entries = Entries::default();
        entries.push([Some(b"task"), Some(b"now"), Some(b"text"), Some(b"type"), None, None]);
        entries
    }

    fn append(queue: &Queue, options: &LogOptions) {
        queue.push_batch(entry(), Box::new(|_| ()), options).unwrap();
    }

    fn is_due(queue: &Queue, options: &LogOptions, after: Duration) -> bool {
        matches!(queue.lock().next(Instant::now() + after, options), Next::Commit)
    }

    /// Takes the batch that is due and commits it, with `meanwhile` in between.
    fn commit(queue: &Queue, options: &LogOptions, meanwhile: impl FnOnce()) -> usize {
        let batch = queue.take_batch(options.batch_rows, options.batch_bytes);
        meanwhile();
        let rows = batch.chunks.iter().map(PendingAppend::rows_left).sum();
        let outcomes = (0..rows).map(|id| RowOutcome::Inserted(id as i64)).collect();
        queue.complete(batch, outcomes, options).reply();
        rows
    }

    #[test]
    fn what_one_turn_appends_is_one_batch_when_the_turn_ends() {
        let (queue, options) = (Queue::new(), LogOptions::default());
        for _ in 0..20 {
            append(&queue, &options);
            assert!(!is_due(&queue, &options, Duration::ZERO));
        }
        queue.turn_ended(&options);
        assert!(is_due(&queue, &options, Duration::ZERO));
        assert_eq!(commit(&queue, &options, || ()), 20);
    }

    #[test]
    fn a_turn_that_does_not_end_holds_nothing_back_for_long() {
        let (queue, options) = (Queue::new(), LogOptions::default());
        append(&queue, &options);
        assert!(is_due(&queue, &options, LONGEST_TURN));
    }

    #[test]
    fn what_is_appended_during_a_commit_is_the_next_batch() {
        let (queue, options) = (Queue::new(), LogOptions::default());
        append(&queue, &options);
        queue.turn_ended(&options);
        let more = || (0..3).for_each(|_| append(&queue, &options));
        assert_eq!(commit(&queue, &options, more), 1);
        // Their own turn goes on.
        assert!(!is_due(&queue, &options, Duration::ZERO));
        queue.turn_ended(&options);
        assert_eq!(commit(&queue, &options, || ()), 3);
        // The end of a turn whose entries are settled makes nothing due.
        queue.turn_ended(&options);
        append(&queue, &options);
        assert!(!is_due(&queue, &options, Duration::ZERO));
    }

    #[test]
    fn a_batch_that_is_given_back_is_due_again() {
        let (queue, options) = (Queue::new(), LogOptions::default());
        append(&queue, &options);
        queue.turn_ended(&options);
        let batch = queue.take_batch(options.batch_rows, options.batch_bytes);
        queue.give_back(batch);
        assert!(is_due(&queue, &options, Duration::ZERO));
    }

    #[test]
    fn a_barrier_and_a_full_batch_are_due_at_once() {
        let options = LogOptions { batch_rows: 3, ..LogOptions::default() };
        let queue = Queue::new();
        queue.push_one(&entry(), &options).unwrap();
        assert!(!is_due(&queue, &options, Duration::ZERO));
        queue.barrier(Box::new(|_| ()));
        assert!(is_due(&queue, &options, Duration::ZERO));
        let queue = Queue::new();
        for full in [false, false, true] {
            append(&queue, &options);
            assert_eq!(is_due(&queue, &options, Duration::ZERO), full);
        }
    }

    #[test]
    fn the_floor_counts_from_the_first_entry() {
        let linger = Duration::from_secs(3600);
        let options =
            LogOptions { awaited_linger: linger, linger: linger * 2, ..LogOptions::default() };
        let queue = Queue::new();
        append(&queue, &options);
        queue.turn_ended(&options);
        assert!(!is_due(&queue, &options, linger / 2));
        assert!(is_due(&queue, &options, linger));
    }

    #[test]
    fn the_writer_is_woken_only_where_it_would_sleep_too_long() {
        let (queue, options) = (Queue::new(), LogOptions::default());
        let soon = Instant::now();
        queue.lock().thread = Thread::Asleep(Some(soon));
        append(&queue, &options);
        assert_eq!(queue.lock().thread, Thread::Asleep(Some(soon)));
        queue.lock().thread = Thread::Asleep(None);
        queue.turn_ended(&options);
        assert_eq!(queue.lock().thread, Thread::Awake);
    }

    #[test]
    fn a_writer_that_rests_is_started_once_by_whatever_needs_it() {
        let options = LogOptions::default();
        let needs: [fn(&Queue, &LogOptions); 5] = [
            append,
            |queue, options| drop(queue.push_one(&entry(), options)),
            |queue, _| queue.look_at_wal(),
            |queue, _| queue.request_checkpoint(checkpoint::Mode::Passive, Box::new(|_| ())),
            |queue, _| queue.close(),
        ];
        for need in needs {
            let queue = Queue::new();
            let starts = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&starts);
            queue.start_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            assert!(queue.lock().rest());
            need(&queue, &options);
            assert_eq!(starts.load(Ordering::Relaxed), 1);
            assert!(!queue.lock().rest());
            need(&queue, &options);
            assert_eq!(starts.load(Ordering::Relaxed), 1);
        }
    }
}
