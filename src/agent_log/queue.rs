//! The bounded hand-over from JavaScript threads to the writer, and who waits for what.
//!
//! Everything here is under one mutex, held for moving pointers and for copying single entries,
//! never across a call into SQLite. The writer sleeps in [`Queue::sleep`], threads that wait for
//! the writer sleep on [`Queue::progress`]. Replies are called without the mutex.
//!
//! When a batch is due, the first that applies:
//!
//! | what is queued | due |
//! |---|---|
//! | a whole batch; anything, while a thread stands still for it or the log is closing | at once |
//! | entries that a caller waits for, or a barrier, and a turn of JavaScript has ended since | after `awaited_linger` |
//! | entries that a caller waits for, in a turn that goes on | after [`LONGEST_TURN`] |
//! | anything else | after `linger` |
//!
//! So the callers that one turn resumes share a batch, a lone one waits for nothing, and what is
//! appended while the writer commits is its next batch. The writer is woken only where it would
//! sleep past that moment.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::entry::{Entries, Position};
use super::options::Options;
use super::stats::Stats;
use crate::checkpoint;
use crate::engine::Error;

/// Entries that nobody waits for share an arena up to this size.
const SHARED_ARENA: usize = 256 << 10;

/// How long entries that a caller waits for may wait for the end of the turn that appended them.
/// A turn that calculates for seconds holds nothing back, nor does one whose end is not reported.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(10);

/// How long a thread stands still at a time.
const SLICE: Duration = Duration::from_millis(50);

/// A row that was not stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Index of the entry in its append call.
    pub index: usize,
    /// SQLite's error for this row.
    pub error: Error,
}

/// What became of the entries of one append call.
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

/// Outcome of an append call. On failure the receipt tells what was committed before it; the
/// other entries are kept, in the queue or with whoever took them back.
pub type Answer = Result<Receipt, (Error, Receipt)>;

/// Takes the outcome of an append call, on any thread.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// Answer to a barrier.
pub(super) type BarrierReply = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Answer to a checkpoint that somebody asked for.
pub(super) type CheckpointReply = Box<dyn FnOnce(Result<checkpoint::Outcome, Error>) + Send>;

/// Why nothing was taken.
#[derive(Debug)]
pub enum Refusal {
    /// The queue is full; later it will not be.
    Full {
        /// Bytes in the queue.
        queued: usize,
        /// Bytes that were offered.
        offered: usize,
        /// The limit.
        limit: usize,
    },
    /// The entries alone exceed the limit: they can never be taken in one piece.
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
pub(super) struct Chunk {
    pub entries: Entries,
    /// The first entry that is not settled.
    pub position: Position,
    /// When the first of them was accepted.
    pub since: Instant,
    ticket: Option<Ticket>,
}

/// Somebody who waits until `target` rows are settled.
struct Barrier {
    target: u64,
    since: Instant,
    thread: ThreadId,
    reply: BarrierReply,
}

struct Ticket {
    reply: Reply,
    receipt: Receipt,
    thread: ThreadId,
}

/// Which of those who wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Since this moment, or before; none: for however long.
    pub before: Option<Instant>,
    /// On this thread; none: on any.
    pub thread: Option<ThreadId>,
}

impl Waiting {
    fn includes(&self, since: Instant, thread: ThreadId) -> bool {
        self.before.is_none_or(|before| since <= before)
            && self.thread.is_none_or(|own| own == thread)
    }
}

/// What is not settled of a log whose file is another one's by now, and who waits for it.
pub(super) struct Left {
    batch: Batch,
    barriers: Vec<Barrier>,
}

/// What became of one row within a transaction.
#[derive(Debug, Clone)]
pub(super) enum RowOutcome {
    Inserted(i64),
    Rejected(Error),
}

/// The chunks of a transaction, in order; of the last one perhaps only the first entries.
#[derive(Default)]
pub(super) struct Batch {
    pub chunks: Vec<Chunk>,
    /// At most so many rows belong to this batch.
    pub limit_rows: usize,
    /// The batch ends with the row that reaches this many bytes.
    pub limit_bytes: usize,
    /// Its first rows may have been committed already.
    pub unknown: Option<Unknown>,
}

/// A COMMIT that failed in such a way that it may have taken place all the same: its frames may
/// be in the WAL, for SQLite to find when the index is next built anew.
pub(super) struct Unknown {
    /// What the transaction made of the rows; one for each.
    pub outcomes: Vec<RowOutcome>,
    /// Why it failed.
    pub error: Error,
}

/// What a finished batch leaves to be told, outside the mutex.
#[derive(Default)]
pub(super) struct Settled {
    replies: Vec<(Reply, Answer)>,
    barriers: Vec<(BarrierReply, Result<(), Error>)>,
    /// Rejected rows that nobody waits for, with their values.
    pub unawaited: Vec<(Entries, Error)>,
    /// The queue fell below half its limit after it had refused something.
    pub relieved: bool,
}

/// What the writer has to do next.
pub(super) enum Next {
    /// Write a batch.
    Commit,
    /// Carry out a checkpoint that somebody asked for.
    Checkpoint(checkpoint::Mode, CheckpointReply),
    /// Nothing is due before this moment; `None`: before something happens.
    Wait(Option<Instant>),
    /// Close the connection and end.
    Stop,
}

#[derive(Default)]
pub(super) struct State {
    chunks: VecDeque<Chunk>,
    /// Rows and bytes accepted and not settled: queued, or in a transaction under way.
    pub rows: usize,
    pub bytes: usize,
    /// Rows and bytes in `chunks`.
    queued_rows: usize,
    queued_bytes: usize,
    accepted: u64,
    settled: u64,
    /// The writer has taken a batch and not settled it or given it back.
    pub batch_open: bool,
    /// Since when somebody waits for what is queued.
    awaited_since: Option<Instant>,
    /// A turn that appended some of that has ended, or what waits is not a turn.
    turn_ended: bool,
    /// A thread stands still until the queue is written: no linger.
    urgent: u32,
    barriers: Vec<Barrier>,
    checkpoints: VecDeque<(checkpoint::Mode, CheckpointReply)>,
    /// Set by the writer: not before this moment, because the last attempt failed.
    pub retry_at: Option<Instant>,
    /// Since when attempts have failed, and the last failure.
    pub failing: Option<(Instant, Error)>,
    /// The failure that ended writing: for good, unless it was damage and the file is restored.
    pub stopped: Option<Error>,
    /// The last handle is gone: write what is queued, then end.
    pub closing: bool,
    thread: Thread,
    /// The writer has ended for good.
    pub ended: bool,
    /// Who wants to be told of that.
    pub when_ended: Vec<BarrierReply>,
    /// Something of the WAL changed that the checkpoint policy wants to look at.
    pub look_at_wal: bool,
    /// The first rows of the queue may have been committed already.
    unknown: Option<Unknown>,
    refusing: bool,
    spare: Vec<Entries>,
    pub stats: Stats,
}

/// The writer's thread, for those that have work for it.
#[derive(Debug, Default, PartialEq, Eq)]
enum Thread {
    /// There is none: it was not started yet, or ended because there was nothing to do.
    #[default]
    Resting,
    /// It looks at the queue before it sleeps.
    Awake,
    /// It looks at the queue at this moment; `None`: when it is notified.
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

impl Chunk {
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

    /// Has `start` called, on any thread and without the mutex, when the writer's thread is needed
    /// and there is none.
    pub fn start_with(&self, start: impl Fn() + Send + Sync + 'static) {
        // A queue is given its writer once.
        drop(self.start.set(Box::new(start)));
    }

    /// Has the writer look at the queue at `due` at the latest; `None`: at once.
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

    /// The writer sleeps until it is woken, or until `until`.
    pub fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        state.thread = Thread::Asleep(until);
        let mut state = match until {
            Some(until) => {
                let time = until.saturating_duration_since(Instant::now());
                self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.thread = Thread::Awake;
        state
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts one entry that nobody waits for: `entry` is copied into the queue's own arena.
    pub fn push_one(&self, entry: &Entries, options: &Options) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.admit(entry.byte_len(), options)?;
        let first = state.chunks.is_empty();
        let shared = match state.chunks.back_mut() {
            Some(tail) if tail.ticket.is_none() && tail.entries.byte_len() < SHARED_ARENA => tail,
            _ => {
                let entries = state.spare.pop().unwrap_or_default();
                state.chunks.push_back(Chunk {
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
        options: &Options,
    ) -> Result<Entries, Refusal> {
        let mut state = self.lock();
        // Under the lock that takes the entries: nobody answers who comes after the stop.
        if let Some(error) = &state.stopped {
            return Err(Refusal::Stopped(Box::new(error.clone())));
        }
        state.admit(entries.byte_len(), options)?;
        if entries.is_empty() {
            // Nothing to wait for, and nothing that would ever wake the writer.
            drop(state);
            reply(Ok(Receipt::default()));
            return Ok(entries);
        }
        let was_due = state.is_full(options);
        let (rows, bytes) = (entries.len(), entries.byte_len());
        state.chunks.push_back(Chunk {
            entries,
            position: Position::default(),
            since: Instant::now(),
            ticket: Some(Ticket {
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

    /// The turn of JavaScript has ended in which entries were appended that a caller waits for.
    pub fn turn_ended(&self, options: &Options) {
        let mut state = self.lock();
        if state.awaited_since.is_some() && !std::mem::replace(&mut state.turn_ended, true) {
            let due = state.awaited_due(options);
            self.wake(state, due);
        }
    }

    /// Has `reply` called once everything accepted before this call is settled.
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

    /// Stands still until everything accepted before this call is settled, or `timeout` passed.
    /// Calls `meanwhile` now and then, without the mutex.
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
                // What is in the way, for a program.
                break Err(match &state.failing {
                    Some((_, Error { errcode, errstr, .. })) => {
                        Error { errcode: *errcode, errstr: errstr.clone(), ..late }
                    }
                    None => late,
                });
            };
            if std::mem::take(&mut calls) {
                self.wake(state, None);
                // It may be done already.
                state = self.lock();
                continue;
            }
            state = self.await_progress(state, left, meanwhile);
            // The system may have refused a thread.
            calls = state.thread == Thread::Resting;
        };
        state.urgent -= 1;
        outcome
    }

    /// Waits for progress, for at most `left`, and calls `meanwhile` where there was none for a while.
    pub fn await_progress<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        left: Duration,
        meanwhile: &dyn Fn(),
    ) -> MutexGuard<'a, State> {
        let slice = left.min(SLICE);
        let (state, waited) =
            self.progress.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
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

    /// Has the writer look at the WAL.
    pub fn look_at_wal(&self) {
        let mut state = self.lock();
        state.look_at_wal = true;
        self.wake(state, None);
    }

    /// The last handle is gone: what is queued is written, then the writer ends.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state, None);
    }

    /// Takes everything that is queued, to be written on another connection or handed back.
    /// Waits out a transaction of the writer that is under way: it is bounded.
    pub fn take_all(&self) -> Batch {
        let mut state = self.lock();
        while state.batch_open {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.take(usize::MAX, usize::MAX)
    }

    /// Takes a batch for the transaction that is open. [`State::batch_open`] holds until it is
    /// settled or given back. Empty while earlier entries are lent: a ROLLBACK releases SQLite's
    /// lock before it gives them back, and what came after them must not overtake them.
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

    /// Settles a batch whose transaction has committed: row by row as `outcomes` says. What
    /// lies beyond them goes back to the front.
    pub fn settle(&self, batch: Batch, outcomes: Vec<RowOutcome>, options: &Options) -> Settled {
        let now = Instant::now();
        let mut told = Settled::default();
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
                        told.unawaited.push((alone, error));
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
                told.replies.push((ticket.reply, Ok(ticket.receipt)));
            }
            if state.spare.len() < 4 {
                chunk.entries.clear();
                state.spare.push(chunk.entries);
            }
        }
        state.batch_open = false;
        state.finish(&mut told, options);
        // Its entries may have been lent, and the writer waiting for their fate.
        if state.queued_rows > 0 {
            self.wake(state, None);
        } else {
            drop(state);
        }
        self.progress.notify_all();
        told
    }

    /// Forgets a batch that was handed back to the caller; calls that wait for it are told.
    pub fn forget(&self, batch: Batch, options: &Options) -> Settled {
        let mut told = Settled::default();
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
                told.replies.push((ticket.reply, Err((error, ticket.receipt))));
            }
        }
        state.finish(&mut told, options);
        drop(state);
        self.progress.notify_all();
        told
    }

    /// Gives up everything that is queued, to be written to another file, with those who wait for
    /// it. What is lent to a transaction stays until that is over.
    pub fn leave(&self) -> Left {
        let mut state = self.lock();
        while state.batch_open {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = state.take(usize::MAX, usize::MAX);
        // Whatever was stored, it is not in the other file.
        batch.unknown = None;
        for chunk in &batch.chunks {
            let rows = chunk.rows_left();
            state.rows = state.rows.saturating_sub(rows);
            state.bytes = state.bytes.saturating_sub(chunk.bytes_left());
            // Not settled: a flush that waits for them fails.
            state.accepted -= rows as u64;
        }
        let barriers = std::mem::take(&mut state.barriers);
        state.await_rest();
        drop(state);
        self.progress.notify_all();
        Left { batch, barriers }
    }

    /// Takes over what another log has left, behind what is queued.
    pub fn take_over(&self, left: Left, options: &Options) -> Settled {
        let mut told = Settled::default();
        let mut state = self.lock();
        for chunk in left.batch.chunks {
            state.add(chunk.rows_left(), chunk.bytes_left());
            state.chunks.push_back(chunk);
        }
        let target = state.accepted;
        for barrier in left.barriers {
            state.barriers.push(Barrier { target, ..barrier });
        }
        state.finish(&mut told, options);
        let stopped = state.stopped.clone();
        drop(state);
        if let Some(error) = stopped {
            let failed = self.fail_waiting(&error, &Waiting::default());
            told.replies.extend(failed.replies);
            told.barriers.extend(failed.barriers);
        }
        self.wake(self.lock(), None);
        told
    }

    /// Stands still until everything is settled that does not wait for a lock, or `deadline`.
    pub fn flush_unlocked(&self, deadline: Instant) {
        let mut state = self.lock();
        let target = state.accepted;
        state.urgent += 1;
        self.wake(state, None);
        let mut state = self.lock();
        while state.settled < target && state.stopped.is_none() && state.failing.is_none() {
            if state.is_lent() && !state.batch_open {
                // To a transaction, which has the lock.
                break;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            state = self.await_progress(state, left, &|| ());
        }
        state.urgent -= 1;
    }

    /// Whether something is queued, and not lent or in a batch.
    pub fn has_queued(&self) -> bool {
        self.lock().queued_rows > 0
    }

    /// Takes the checkpoints that were asked for and will not be carried out.
    pub fn take_checkpoints(&self) -> Vec<CheckpointReply> {
        self.lock().checkpoints.drain(..).map(|(_, reply)| reply).collect()
    }

    /// Answers those who are `waiting` that it failed. The entries stay.
    pub fn fail_waiting(&self, error: &Error, waiting: &Waiting) -> Settled {
        let mut told = Settled::default();
        let mut state = self.lock();
        for chunk in &mut state.chunks {
            if let Some(ticket) =
                chunk.ticket.take_if(|ticket| waiting.includes(chunk.since, ticket.thread))
            {
                told.replies.push((ticket.reply, Err((error.clone(), ticket.receipt))));
            }
        }
        let (failed, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.barriers)
            .into_iter()
            .partition(|barrier| waiting.includes(barrier.since, barrier.thread));
        state.barriers = rest;
        for barrier in failed {
            told.barriers.push((barrier.reply, Err(error.clone())));
        }
        state.await_rest();
        drop(state);
        self.progress.notify_all();
        told
    }
}

/// Nobody can tell whether the rows were committed.
pub(super) fn commit_unknown(cause: &Error) -> Error {
    cause.clone().explained(
        "ERR_FUSION_COMMIT_UNKNOWN",
        "COMMIT failed, and it cannot be told whether the entries were stored all the same: look \
         for them before they are appended again. They are kept, takePending() hands them back.",
    )
}

impl State {
    /// Refuses what exceeds the limit, or comes too late.
    fn admit(&mut self, bytes: usize, options: &Options) -> Result<(), Refusal> {
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

    /// Whether the queue is refusing entries, for the first to be told of it.
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
    fn is_full(&self, options: &Options) -> bool {
        self.queued_rows >= options.batch_rows || self.queued_bytes >= options.batch_bytes
    }

    /// Whether entries are part of a transaction of a JavaScript thread, whose fate is not known.
    /// Asked by the writer, while it has no batch itself.
    fn is_lent(&self) -> bool {
        self.rows > self.queued_rows
    }

    fn take(&mut self, limit_rows: usize, limit_bytes: usize) -> Batch {
        let unknown = self.unknown.take();
        // Rows whose fate is one stay together.
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
        // What is appended later in the same turn waits for its end.
        self.turn_ended &= !self.chunks.is_empty();
        self.await_rest();
        batch
    }

    fn put_front(&mut self, chunk: Chunk) {
        self.queued_rows += chunk.rows_left();
        self.queued_bytes += chunk.bytes_left();
        self.chunks.push_front(chunk);
        // It was due before.
        self.turn_ended = true;
        self.await_rest();
    }

    /// Recomputes since when somebody waits for what is queued.
    fn await_rest(&mut self) {
        let append = self.chunks.iter().find(|chunk| chunk.ticket.is_some());
        let barrier = self.barriers.first();
        let append = append.map(|chunk| chunk.since);
        let barrier = barrier.map(|barrier| barrier.since);
        self.awaited_since = [append, barrier].into_iter().flatten().min();
    }

    /// When what a call waits for is due.
    fn awaited_due(&self, options: &Options) -> Option<Instant> {
        let linger = options.awaited_linger;
        let patience = if self.turn_ended { linger } else { linger.max(LONGEST_TURN) };
        self.awaited_since.map(|since| since + patience)
    }

    /// Whether there is nothing to do before something happens. The writer's thread ends then, and
    /// the next call of [`Queue::wake`] starts another.
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

    /// Answers barriers that are reached, and notices relief.
    fn finish(&mut self, told: &mut Settled, options: &Options) {
        let settled = self.settled;
        let (reached, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.barriers)
            .into_iter()
            .partition(|barrier| barrier.target <= settled);
        self.barriers = waiting;
        told.barriers.extend(reached.into_iter().map(|barrier| (barrier.reply, Ok(()))));
        self.await_rest();
        if self.refusing && self.bytes <= options.queue_bytes / 2 {
            self.refusing = false;
            told.relieved = true;
        }
    }

    /// What is to be done at `now`.
    pub fn next(&mut self, now: Instant, options: &Options) -> Next {
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

impl Settled {
    /// Whether it has nothing for those who wait.
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

    fn append(queue: &Queue, options: &Options) {
        queue.push_batch(entry(), Box::new(|_| ()), options).unwrap();
    }

    fn is_due(queue: &Queue, options: &Options, after: Duration) -> bool {
        matches!(queue.lock().next(Instant::now() + after, options), Next::Commit)
    }

    /// Takes the batch that is due and commits it, with `meanwhile` in between.
    fn commit(queue: &Queue, options: &Options, meanwhile: impl FnOnce()) -> usize {
        let batch = queue.take_batch(options.batch_rows, options.batch_bytes);
        meanwhile();
        let rows = batch.chunks.iter().map(Chunk::rows_left).sum();
        let outcomes = (0..rows).map(|id| RowOutcome::Inserted(id as i64)).collect();
        queue.settle(batch, outcomes, options).reply();
        rows
    }

    #[test]
    fn what_one_turn_appends_is_one_batch_when_the_turn_ends() {
        let (queue, options) = (Queue::new(), Options::default());
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
        let (queue, options) = (Queue::new(), Options::default());
        append(&queue, &options);
        assert!(is_due(&queue, &options, LONGEST_TURN));
    }

    #[test]
    fn what_is_appended_during_a_commit_is_the_next_batch() {
        let (queue, options) = (Queue::new(), Options::default());
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
        let (queue, options) = (Queue::new(), Options::default());
        append(&queue, &options);
        queue.turn_ended(&options);
        let batch = queue.take_batch(options.batch_rows, options.batch_bytes);
        queue.give_back(batch);
        assert!(is_due(&queue, &options, Duration::ZERO));
    }

    #[test]
    fn a_barrier_and_a_full_batch_are_due_at_once() {
        let options = Options { batch_rows: 3, ..Options::default() };
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
        let options = Options { awaited_linger: linger, linger: linger * 2, ..Options::default() };
        let queue = Queue::new();
        append(&queue, &options);
        queue.turn_ended(&options);
        assert!(!is_due(&queue, &options, linger / 2));
        assert!(is_due(&queue, &options, linger));
    }

    #[test]
    fn the_writer_is_woken_only_where_it_would_sleep_too_long() {
        let (queue, options) = (Queue::new(), Options::default());
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
        let options = Options::default();
        let needs: [fn(&Queue, &Options); 5] = [
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
