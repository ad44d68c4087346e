//! The bounded hand-over from JavaScript threads to the writer, and who waits for what.
//!
//! Everything here is under one mutex, held for moving pointers and for copying single entries,
//! never across a call into SQLite. The writer sleeps on [`Queue::work`], threads that wait for
//! the writer sleep on [`Queue::progress`]. Replies are called without the mutex.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::entry::{Entries, Position};
use super::options::Options;
use super::stats::Stats;
use crate::checkpoint;
use crate::engine::Error;

/// Entries that nobody waits for share an arena up to this size.
const SHARED_ARENA: usize = 256 << 10;

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
    /// The writer thread has ended.
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

pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer sleeps here.
    pub work: Condvar,
    /// Threads that wait for the writer sleep here.
    pub progress: Condvar,
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
        Self { state: Mutex::default(), work: Condvar::new(), progress: Condvar::new() }
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
        // The writer is woken to start its linger clock, or because the batch is full.
        if first || (!was_due && state.is_full(options)) {
            drop(state);
            self.work.notify_one();
        }
        Ok(())
    }

    /// Accepts the entries of a call that waits; `reply` is called once they are settled.
    /// Returns an empty arena for the next call.
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
        let wake = first || (!was_due && state.is_full(options));
        let spare = state.spare.pop().unwrap_or_default();
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(spare)
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
        state.awaited_since.get_or_insert_with(Instant::now);
        drop(state);
        self.work.notify_one();
    }

    /// Stands still until everything accepted before this call is settled, or `timeout` passed.
    /// Calls `meanwhile` now and then, without the mutex.
    pub fn flush(&self, timeout: Duration, meanwhile: &dyn Fn()) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        let target = state.accepted;
        state.urgent += 1;
        self.work.notify_one();
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
            state = self.await_progress(state, left, meanwhile);
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
        drop(state);
        self.work.notify_one();
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
        drop(state);
        self.progress.notify_all();
        self.work.notify_one();
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
                        alone.push(entry.values);
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
        let more = state.queued_rows > 0;
        drop(state);
        self.progress.notify_all();
        if more {
            self.work.notify_one();
        }
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
        self.work.notify_one();
        told
    }

    /// Stands still until everything is settled that does not wait for a lock, or `deadline`.
    pub fn flush_unlocked(&self, deadline: Instant) {
        let mut state = self.lock();
        let target = state.accepted;
        state.urgent += 1;
        self.work.notify_one();
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
        self.await_rest();
        batch
    }

    fn put_front(&mut self, chunk: Chunk) {
        self.queued_rows += chunk.rows_left();
        self.queued_bytes += chunk.bytes_left();
        self.chunks.push_front(chunk);
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
        let awaited = self.awaited_since.map(|since| since + options.awaited_linger);
        match [lazy, awaited].into_iter().flatten().min() {
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
