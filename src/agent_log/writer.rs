//! The writer: commits a file's log entries and checkpoints its WAL, on a thread of its own.
//!
//! | state | leaves it when |
//! |---|---|
//! | waiting | a batch is due, a checkpoint is due or requested, the last handle is closed, or the writer was idle for 30 s |
//! | committing | the transaction is committed, or has failed |
//! | pausing | SQLite's lock is released in this process, or a jittered pause is over |
//! | healing | a fresh connection has found the file sound, or damaged |
//! | repairing (damaged file) | this process or another has repaired the file, or the repair failed |
//! | resting | the queue is woken: the thread has ended, and the next one begins at waiting |
//! | stopped (replaced file, or a damaged one that is not repaired) | the damaged file is repaired or restored, or the replaced file is at its path again; until then the entries are kept |
//! | ending | the queue is empty, or has failed for the whole retry deadline |
//!
//! [`Writer`] makes the transitions. What it does in each state, and what it keeps between them, is
//! in these modules:
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | the batch under way, from BEGIN to its receipts |
//! | [`streak`] | when the write lock is left to other processes |
//! | [`wal`] | the WAL's status, its checkpoints and their events |
//! | [`mender`] | reopening after a stale `-wal` or `-shm`, repairing damage |
//! | [`failures`] | pauses between attempts, and the errors of waiting calls |
//! | [`schema`] | the copy of the schema that is kept for a repair |
//! | [`connection`] | the connection that all of them use |
//! | [`doubt`] | the check of a file that may be damaged |
//!
//! The class of an error (`engine::Class`) decides what follows. The mender handles an error that a
//! stale `-wal` or `-shm` may have caused, or that reports corruption. If the error remains and
//! says that the file is damaged or replaced, the writer stops. Other errors are retried: transient
//! ones at once, others slowly on a fresh connection.

mod connection;
mod doubt;
mod failures;
mod mender;
mod schema;
mod streak;
mod transaction;
mod wal;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::connection::OwnConnection;
use self::failures::Failures;
use self::mender::Mender;
use self::schema::Schema;
use self::transaction::Transactions;
use self::wal::WalCare;
use super::queue::{LONGEST_TURN, Next};
use super::shared::Shared;
use crate::checkpoint::{self, Mode};
use crate::engine::{Class, Error, Result};

pub(super) struct Writer<'a> {
    shared: &'a Shared,
    own: OwnConnection<'a>,
    transactions: Transactions<'a>,
    wal: WalCare<'a>,
    mender: Mender<'a>,
    failures: Failures<'a>,
    schema: Schema<'a>,
    look_at_wal: Option<Instant>,
    /// Until then the writer sleeps no longer than [`LONGEST_TURN`] at a time. A receipt makes the
    /// next append likely, and that append then need not wake the writer to have its timeout set.
    attentive_until: Option<Instant>,
}

/// Why the writer woke up.
enum Step {
    Next(Next),
    LookAtWal,
    /// It was idle for [`Shared::rest_after`].
    Rest,
}

/// How a run of the writer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// For good.
    Ended,
    /// Until there is something to do.
    Resting,
}

impl<'a> Writer<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            own: OwnConnection::new(shared),
            transactions: Transactions::new(shared),
            wal: WalCare::new(shared),
            mender: Mender::new(shared),
            failures: Failures::new(shared),
            schema: Schema::new(shared),
            // An earlier process may have left a WAL to checkpoint.
            look_at_wal: Some(Instant::now()),
            attentive_until: None,
        }
    }

    /// Runs until the last handle is closed and the queue is written, or cannot be; or until the
    /// writer was idle for [`Shared::rest_after`].
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
                    // Work may have arrived meanwhile.
                    if self.shared.queue.lock().rest() {
                        return Finish::Resting;
                    }
                }
            }
        }
    }

    /// Cleans up after a panic: closes the connection, which rolls an open transaction back, and
    /// puts its batch back into the queue.
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
        // Before the replies: a caller that got its receipt may ask for the state.
        self.failures.are_over();
        self.wal.committed();
        self.mender.confirm();
        self.attentive_until = Some(Instant::now() + LONGEST_TURN);
        self.shared.tell(settled);
        Ok(())
    }

    fn failed(&mut self, error: Error) {
        self.failures.count();
        if let Err(error) = self.mend(error) {
            self.answer(error);
        }
    }

    /// Removes the cause of `error`, by reopening the connection or by a repair. `Ok`: try again.
    ///
    /// # Errors
    /// The error that remains.
    fn mend(&mut self, error: Error) -> Result<()> {
        let Err(error) = self.mender.heal(&mut self.own, error) else {
            return Ok(());
        };
        self.mender.repair(&mut self.own, error)?;
        // The repair has written.
        self.look_at_wal = Some(Instant::now());
        Ok(())
    }

    /// Handles an error that neither a fresh connection nor a repair removed: stops or retries.
    fn answer(&mut self, error: Error) {
        let class = error.class();
        if matches!(class, Class::Corrupt | Class::Replaced)
            || error.code == "ERR_FUSION_COMMIT_UNKNOWN"
        {
            return self.shared.stop(&error);
        }
        // The next attempt uses a fresh connection, in case this one is the cause. Kept open: a
        // connection to a deleted WAL, which no other can open, and one whose schema refuses
        // entries.
        if class != Class::Transient
            && error.code != "ERR_FUSION_WAL_LOST"
            && error.code != "ERR_FUSION_SCHEMA"
        {
            self.own.close();
        }
        self.failures.answer(&error, self.mender.next_repair());
    }

    /// Evaluates the checkpoint policy, and checkpoints if it says so.
    fn care_for_wal(&mut self) {
        let file = &self.shared.file;
        let now = Instant::now();
        self.look_at_wal = None;
        self.own.let_go();
        if self.shared.is_stopped() {
            return;
        }
        let heed_again = self.heed_damage(now);
        if self.shared.is_stopped() {
            return;
        }
        if let Err(error) = doubt::settle(file) {
            // The file is neither written nor checkpointed until a check has succeeded.
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
                // The policy decides again whether more is due.
                Some(now + Duration::from_millis(1))
            }
            Err(look_again) => {
                // The file has just been read or checkpointed without an error.
                self.schema.keep_if_due(&self.own, now);
                file.wal.set_asleep(look_again.is_none());
                look_again.map(|time| now + time)
            }
        };
        self.look_at_wal = [look_again, heed_again].into_iter().flatten().min();
        // Entries that the schema refuses are tried again on this connection.
        let has_entries = self.shared.queue.lock().rows > 0;
        if self.look_at_wal.is_none() && self.wal.is_idle(now) && !has_entries {
            self.let_go_of_file();
        }
    }

    /// Closes the connection of an idle log, to free its file descriptors.
    fn let_go_of_file(&mut self) {
        let is_in_order = !self.shared.is_stopped();
        if is_in_order && self.own.get().is_some() {
            self.schema.keep_if_stale(&self.own);
        }
        self.own.close_at_end(is_in_order && self.shared.file.has_one_connection());
    }

    /// Handles damage that another connection of this process has reported. Returns when to look
    /// again, if that was done only recently.
    fn heed_damage(&mut self, now: Instant) -> Option<Instant> {
        match self.mender.heed(&mut self.own, now) {
            Ok(again) => again,
            Err(error) => {
                self.failures.count();
                self.answer(error);
                None
            }
        }
    }

    /// Handles a check of the file that found damage, or could not be carried out.
    fn doubted(&mut self, error: Error) {
        match error.class() {
            Class::Corrupt | Class::Replaced => self.failed(error),
            // Reported by the batch or the checkpoint that it blocks.
            _ => self.failures.count(),
        }
    }

    fn checkpoint(&mut self, mode: Mode) -> Result<checkpoint::Outcome> {
        let shared = self.shared;
        // Read before the checkpoint: a commit during it ends the effect of a RESTART.
        let commits = shared.file.wal.commits();
        let started = Instant::now();
        let mut result = wal::checkpoint(shared, &mut self.own, mode);
        if let Err(error) = result {
            result = self.mend(error).and_then(|()| wal::checkpoint(shared, &mut self.own, mode));
        }
        if result.is_ok() {
            self.mender.confirm();
            // The checkpoint wrote to the file: refresh what is recorded of it.
            drop(shared.file.check_beside());
        }
        self.wal.record(&result, commits, started);
        result
    }

    /// Shuts down cleanly: checkpoints the WAL into the database, and closes the connection.
    fn end(&mut self) {
        if !self.shared.is_stopped() && wal::size(&self.shared.file.path) > 0 {
            drop(self.checkpoint(Mode::Truncate));
        }
        // The checkpoint may have found damage. If the file has left its path, the WAL there may be
        // another file's.
        let is_in_order = !self.shared.is_stopped() && self.shared.file.check_identity().is_ok();
        if is_in_order && !self.shared.file.is_suspect() {
            self.schema.keep_if_stale(&self.own);
        } else {
            self.schema.doubt();
        }
        self.own.close_at_end(is_in_order);
    }
}
