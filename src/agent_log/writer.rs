//! The writer: commits a file's log entries and cares for its WAL, on a thread of its own.
//!
//! | state | leaves it when |
//! |---|---|
//! | waiting | a batch is due, a checkpoint is due or asked for, the last handle is gone; nothing was to be done for 30 s |
//! | committing | the transaction is committed, or failed |
//! | pausing | SQLite's lock is released in this process, or a jittered pause is over |
//! | healing | a fresh connection has found the file sound, or damaged |
//! | repairing (damaged file) | it is repaired, by whomever, or cannot be |
//! | resting | anything wakes it: the thread has ended, and the next one begins at waiting |
//! | stopped (replaced file, or one that is not repaired) | never, unless the damaged file is repaired or restored: entries are kept to be taken back |
//! | ending | the queue is empty, or has failed for the whole retry deadline |
//!
//! [`Writer`] goes from one to the next. What it does in each, and what it remembers for the next
//! time, is in a module of its own:
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | the batch under way, from BEGIN to its receipts |
//! | [`streak`] | when the write lock is left to other processes |
//! | [`wal`] | what is known of the WAL, its checkpoints and their events |
//! | [`mender`] | healing a wedge, repairing damage |
//! | [`failures`] | pauses, and what those who wait are told |
//! | [`schema`] | the schema that is kept for a repair |
//! | [`connection`] | the connection all of them use |
//! | [`doubt`] | the check of a file that is suspected |
//!
//! A failure is answered by its class (`engine::Class`). One that may come from a wedge, or says
//! that the file is damaged, is seen to by the mender; what is left of it stops the writer if it
//! says that the file is damaged, or another one, and is retried otherwise: transient ones at
//! once, disk ones slowly on a fresh connection.

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
    /// After a commit the writer sleeps no longer than a turn may last. So the next append, which
    /// the receipt makes likely, need not wake it to have its clock started.
    attentive_until: Option<Instant>,
}

/// What woke the writer.
enum Step {
    Next(Next),
    LookAtWal,
    /// There was nothing to do for a while.
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
            // A WAL left by an earlier process is looked at soon.
            look_at_wal: Some(Instant::now()),
            attentive_until: None,
        }
    }

    /// Runs until the last handle is gone and the queue is empty, or never will be; or until there
    /// was nothing to do for [`Shared::rest_after`].
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
                    // Unless something has come in between.
                    if self.shared.queue.lock().rest() {
                        return Finish::Resting;
                    }
                }
            }
        }
    }

    /// Leaves nothing under way after a panic: the transaction, if one was open, goes with the
    /// connection, and its batch back to the queue.
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
            // Nothing is done to a file that is damaged or replaced.
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
        // Before anybody who waits can ask for the state.
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

    /// Heals or repairs what `error` came from. `Ok`: try again.
    ///
    /// # Errors
    /// What is left to be answered.
    fn mend(&mut self, error: Error) -> Result<()> {
        let Err(error) = self.mender.heal(&mut self.own, error) else {
            return Ok(());
        };
        self.mender.repair(&mut self.own, error)?;
        // The repair has written.
        self.look_at_wal = Some(Instant::now());
        Ok(())
    }

    /// Answers for an error that could neither be healed nor repaired.
    fn answer(&mut self, error: Error) {
        let class = error.class();
        if matches!(class, Class::Corrupt | Class::Replaced)
            || error.code == "ERR_FUSION_COMMIT_UNKNOWN"
        {
            return self.shared.stop(&error);
        }
        // A fresh connection next time: whatever made this one fail is not carried along. Unless
        // it has a WAL open that no other connection can open any more, or waits for another schema.
        if class != Class::Transient
            && error.code != "ERR_FUSION_WAL_LOST"
            && error.code != "ERR_FUSION_SCHEMA"
        {
            self.own.close();
        }
        self.failures.answer(&error, self.mender.next_repair());
    }

    /// Looks at the WAL, and checkpoints if the policy says so.
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
            // Nothing is done to the file until the doubt is settled.
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
                // What remains to be done, if anything, is decided afresh.
                Some(now + Duration::from_millis(1))
            }
            Err(look_again) => {
                // The file has just been used, or checkpointed, without a complaint.
                self.schema.keep_if_due(&self.own, now);
                file.wal.set_asleep(look_again.is_none());
                look_again.map(|time| now + time)
            }
        };
        self.look_at_wal = [look_again, heed_again].into_iter().flatten().min();
        // What waits for another schema is tried for on this connection.
        let has_entries = self.shared.queue.lock().rows > 0;
        if self.look_at_wal.is_none() && self.wal.is_idle(now) && !has_entries {
            self.let_go_of_file();
        }
    }

    /// Closes the connection, for as long as there is nothing to do: its descriptors are needed
    /// elsewhere.
    fn let_go_of_file(&mut self) {
        let is_in_order = !self.shared.is_stopped();
        if is_in_order && self.own.get().is_some() {
            self.schema.keep_if_stale(&self.own);
        }
        self.own.close_at_end(is_in_order && self.shared.file.has_one_connection());
    }

    /// Sees to damage that another connection of this process met. Answers when to look again, if
    /// that was only just done.
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

    /// The file could not be checked, or did not pass.
    fn doubted(&mut self, error: Error) {
        match error.class() {
            Class::Corrupt | Class::Replaced => self.failed(error),
            // Told with the batch or the checkpoint that it is in the way of.
            _ => self.failures.count(),
        }
    }

    fn checkpoint(&mut self, mode: Mode) -> Result<checkpoint::Outcome> {
        let shared = self.shared;
        // Counted before: a commit during the checkpoint may be what the restart is undone by.
        let commits = shared.file.wal.commits();
        let started = Instant::now();
        let mut result = wal::checkpoint(shared, &mut self.own, mode);
        if let Err(error) = result {
            result = self.mend(error).and_then(|()| wal::checkpoint(shared, &mut self.own, mode));
        }
        if result.is_ok() {
            self.mender.confirm();
            // The file was written to: what is known of it is brought up to date.
            drop(shared.file.check_beside());
        }
        self.wal.record(&result, commits, started);
        result
    }

    /// Leaves the file as a clean shutdown should: WAL in the database, connection closed.
    fn end(&mut self) {
        if !self.shared.is_stopped() && wal::size(&self.shared.file.path) > 0 {
            drop(self.checkpoint(Mode::Truncate));
        }
        // The checkpoint may have found damage. The WAL at the path of a file that is gone from it may
        // be another's.
        let is_in_order = !self.shared.is_stopped() && self.shared.file.check_identity().is_ok();
        if is_in_order && !self.shared.file.is_suspect() {
            self.schema.keep_if_stale(&self.own);
        } else {
            self.schema.doubt();
        }
        self.own.close_at_end(is_in_order);
    }
}
