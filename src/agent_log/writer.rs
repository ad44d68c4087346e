//! The writer: commits a file's log entries and checkpoints its WAL, on a thread of its own.
//!
//! | state | ends when |
//! |---|---|
//! | waiting | a batch or a checkpoint is due, the last handle is released, or 30 s without work |
//! | committing | the transaction is committed, or failed |
//! | pausing | this process releases the write lock, or a jittered pause is over |
//! | reopening | a check has found the file sound, or damaged |
//! | repairing (damaged file) | the file is repaired, here or by another process, or cannot be |
//! | resting (no thread) | a call wakes the writer: a new thread begins at waiting |
//! | stopped (file replaced, or damaged and not repaired) | the file is repaired or restored |
//! | ending | the queue is empty, or writing has failed for the whole retry deadline |
//!
//! A stopped writer keeps its entries for `takePending()`.
//!
//! [`Writer`] moves between the states. Each module owns one task and its memory:
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | the current batch, from BEGIN to its receipts |
//! | [`streak`] | when the write lock is left to other processes |
//! | [`wal`] | the state of the WAL, its checkpoints and their events |
//! | [`corruption`] | reopening stale connections, repairing damage |
//! | [`retry`] | pauses between attempts, and the errors that waiting calls get |
//! | [`schema`] | the copy of the schema that a repair uses |
//! | [`connection`] | the connection that all of them use |
//! | [`verify`] | the check of a file that may be damaged |
//!
//! The class of an error (`engine::Class`) decides what follows. The corruption handler takes an error that a
//! stale connection may have caused, or that reports damage. An error that remains stops the writer
//! if the file is damaged or replaced. Any other error is retried: a transient one at once, a disk
//! error slowly and on a fresh connection.

mod connection;
mod corruption;
mod retry;
mod schema;
mod streak;
mod transaction;
mod verify;
mod wal;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::connection::OwnConnection;
use self::corruption::CorruptionHandler;
use self::retry::RetryState;
use self::schema::Schema;
use self::transaction::Transactions;
use self::wal::WalCare;
use super::log::LogCore;
use super::queue::{LONGEST_TURN, Next};
use crate::checkpoint::{self, Mode};
use crate::engine::{Class, Error, Result};

pub(super) struct Writer<'a> {
    shared: &'a LogCore,
    own: OwnConnection<'a>,
    transactions: Transactions<'a>,
    wal: WalCare<'a>,
    corruption: CorruptionHandler<'a>,
    failures: RetryState<'a>,
    schema: Schema<'a>,
    look_at_wal: Option<Instant>,
    /// Until this moment the writer sleeps no longer than a turn of JavaScript may last. A receipt
    /// makes another append likely, and that append then need not wake the writer.
    attentive_until: Option<Instant>,
}

/// What woke the writer.
enum Step {
    Next(Next),
    LookAtWal,
    /// There was no work for [`LogCore::rest_after`].
    Rest,
}

/// How a run of the writer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// For good.
    Ended,
    /// Until there is work.
    Resting,
}

impl<'a> Writer<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        Self {
            shared,
            own: OwnConnection::new(shared),
            transactions: Transactions::new(shared),
            wal: WalCare::new(shared),
            corruption: CorruptionHandler::new(shared),
            failures: RetryState::new(shared),
            schema: Schema::new(shared),
            // An earlier process may have left a WAL.
            look_at_wal: Some(Instant::now()),
            attentive_until: None,
        }
    }

    /// Runs until the last handle is released and the queue is empty or writing has stopped, or
    /// until there was no work for [`LogCore::rest_after`].
    pub fn run(&mut self) -> Finish {
        loop {
            match self.wait() {
                Step::LookAtWal => self.care_for_wal(),
                Step::Next(Next::Commit) => {
                    if let Err(error) = self.commit() {
                        self.failed(error);
                    }
                    self.care_for_wal();
                }
                Step::Next(Next::Checkpoint(mode, reply)) => reply(self.checkpoint(mode)),
                Step::Next(Next::Wait(_)) => {}
                Step::Next(Next::Stop) => {
                    self.end();
                    return Finish::Ended;
                }
                Step::Rest => {
                    self.let_go_of_file();
                    // Unless work has arrived meanwhile.
                    if self.shared.queue.lock().rest() {
                        return Finish::Resting;
                    }
                }
            }
        }
    }

    /// Cleans up after a panic: closing the connection rolls back an open transaction, and its
    /// batch goes back to the queue.
    pub fn abandon(&mut self) {
        drop(catch_unwind(AssertUnwindSafe(|| self.own.close())));
        self.transactions.abandon();
    }

    fn wait(&mut self) -> Step {
        let queue = &self.shared.queue;
        let rest_at = Instant::now() + self.shared.rest_after;
        let mut state = queue.lock();
        loop {
            let now = Instant::now();
            if std::mem::take(&mut state.look_at_wal) {
                return Step::LookAtWal;
            }
            let due = match state.next(now, &self.shared.options) {
                Next::Wait(due) => due,
                next => return Step::Next(next),
            };
            // A damaged or replaced file is not checkpointed.
            let look = self.look_at_wal.filter(|_| state.stopped.is_none());
            if look.is_some_and(|look| look <= now) {
                return Step::LookAtWal;
            }
            let until = [due, look].into_iter().flatten().min();
            if until.is_none() && rest_at <= now {
                return Step::Rest;
            }
            let attentive = self.attentive_until.filter(|until| now < *until);
            state = queue
                .sleep(state, [until.or(Some(rest_at)), attentive].into_iter().flatten().min());
        }
    }

    fn commit(&mut self) -> Result<()> {
        let settled = self.transactions.run(&mut self.own, &mut self.failures)?;
        // Before a reply is delivered: its caller may read the state.
        self.failures.are_over();
        self.wal.committed();
        self.corruption.confirm();
        self.attentive_until = Some(Instant::now() + LONGEST_TURN);
        self.shared.deliver(settled);
        Ok(())
    }

    fn failed(&mut self, error: Error) {
        self.failures.count();
        if let Err(error) = self.mend(error) {
            self.answer(error);
        }
    }

    /// Reopens a stale connection or repairs the file, if that caused `error`. `Ok`: try again.
    ///
    /// # Errors
    /// The error that remains.
    fn mend(&mut self, error: Error) -> Result<()> {
        let Err(error) = self.corruption.reopen_stale(&mut self.own, error) else {
            return Ok(());
        };
        self.corruption.repair(&mut self.own, error)?;
        // The repair has written.
        self.look_at_wal = Some(Instant::now());
        Ok(())
    }

    /// Stops the writer or schedules a retry, for an error that remains after [`Self::mend`].
    fn answer(&mut self, error: Error) {
        let class = error.class();
        if matches!(class, Class::Corrupt | Class::Replaced)
            || error.code == "ERR_FUSION_COMMIT_UNKNOWN"
        {
            return self.shared.stop(&error);
        }
        // The next attempt gets a fresh connection, without the state that made this one fail. Two
        // connections stay: one with a deleted WAL that no other connection can open, and one that
        // waits for the schema to change.
        if class != Class::Transient
            && error.code != "ERR_FUSION_WAL_LOST"
            && error.code != "ERR_FUSION_SCHEMA"
        {
            self.own.close();
        }
        self.failures.answer(&error, self.corruption.next_repair());
    }

    /// Applies the checkpoint policy to the WAL.
    fn care_for_wal(&mut self) {
        let file = &self.shared.file;
        let now = Instant::now();
        self.look_at_wal = None;
        self.own.close_if_stale();
        if self.shared.is_stopped() {
            return;
        }
        let heed_again = self.heed_damage(now);
        if self.shared.is_stopped() {
            return;
        }
        if let Err(error) = verify::verify_if_unverified(file) {
            // The file is not checkpointed until it has passed the check.
            self.look_at_wal = Some(now + self.failures.pause_before_check());
            return self.doubted(error);
        }
        let due = match self.wal.look(now) {
            Ok(Mode::Passive) if self.transactions.in_company(now) => {
                self.wal.left_to_others(now).map_or(Ok(Mode::Passive), |left| Err(Some(left)))
            }
            due => due,
        };
        let look_again = match due {
            Ok(mode) => {
                drop(self.checkpoint(mode));
                // The policy decides again what remains to be done.
                Some(now + Duration::from_millis(1))
            }
            Err(look_again) => {
                // The file has just been used or checkpointed without an error.
                self.schema.keep_if_due(&self.own, now);
                file.wal.set_asleep(look_again.is_none());
                look_again.map(|time| now + time)
            }
        };
        self.look_at_wal = [look_again, heed_again].into_iter().flatten().min();
        // Entries that wait for the schema to change are retried on this connection.
        let has_entries = self.shared.queue.lock().rows > 0;
        if self.look_at_wal.is_none() && self.wal.is_idle(now) && !has_entries {
            self.let_go_of_file();
        }
    }

    /// Closes the connection while there is no work, to free its file descriptors.
    fn let_go_of_file(&mut self) {
        let is_in_order = !self.shared.is_stopped();
        if is_in_order && self.own.get().is_some() {
            self.schema.keep_if_stale(&self.own);
        }
        self.own.close_at_end(is_in_order && self.shared.file.has_one_connection());
    }

    /// Checks and repairs the file if another connection of this process reported damage. Returns
    /// when to check again, if the last check was too recent.
    fn heed_damage(&mut self, now: Instant) -> Option<Instant> {
        match self.corruption.check_reported_corruption(&mut self.own, now) {
            Ok(again) => again,
            Err(error) => {
                self.failures.count();
                self.answer(error);
                None
            }
        }
    }

    /// The check of the file failed, or found damage.
    fn doubted(&mut self, error: Error) {
        match error.class() {
            Class::Corrupt | Class::Replaced => self.failed(error),
            // Reported by the next batch or checkpoint, which it blocks.
            _ => self.failures.count(),
        }
    }

    fn checkpoint(&mut self, mode: Mode) -> Result<checkpoint::CheckpointOutcome> {
        let shared = self.shared;
        // Read before the checkpoint: a commit during it may follow the restart of the WAL.
        let commits = shared.file.wal.commits();
        let started = Instant::now();
        let mut result = wal::checkpoint(shared, &mut self.own, mode);
        if let Err(error) = result {
            result = self.mend(error).and_then(|()| wal::checkpoint(shared, &mut self.own, mode));
        }
        if result.is_ok() {
            self.corruption.confirm();
            // The checkpoint wrote to the file: its recorded state is updated.
            drop(shared.file.check_sidecars());
        }
        self.wal.record(&result, commits, started);
        result
    }

    /// Leaves the file as after a clean shutdown: WAL checkpointed, connection closed.
    fn end(&mut self) {
        if !self.shared.is_stopped() && wal::size(&self.shared.file.path) > 0 {
            drop(self.checkpoint(Mode::Truncate));
        }
        // The checkpoint may have found damage. If the file is no longer at its path, the WAL there
        // may belong to another file.
        let is_in_order = !self.shared.is_stopped() && self.shared.file.check_identity().is_ok();
        if is_in_order && !self.shared.file.is_unverified() {
            self.schema.keep_if_stale(&self.own);
        } else {
            self.schema.doubt();
        }
        self.own.close_at_end(is_in_order);
    }
}
