//! One transaction: a batch is taken from the queue, written, committed and settled.
//!
//! A batch that is not committed goes back to the front of the queue. Before and after each
//! transaction the writer checks that the `-wal` and `-shm` it has open are still the file's: no
//! other connection would see a commit to a deleted WAL.
//!
//! The writer's thread. In WAL mode it never waits inside SQLite (its busy timeout is 0). It waits
//! on the file's write lock gate, where a release in this process wakes it. With a rollback journal
//! a COMMIT waits briefly for readers.

use std::time::Instant;

use super::connection::OwnConnection;
use super::retry::RetryState;
use super::streak::Streak;
use crate::agent_log::batch::{Outcomes, Written, complete};
use crate::agent_log::log::LogCore;
use crate::agent_log::queue::{Batch, Completions, RowOutcome, UncertainCommit};
use crate::engine::{self, Class, Error, Result};

pub(super) struct Transactions<'a> {
    shared: &'a LogCore,
    /// The batch of the open transaction, kept here so that a panic does not lose it.
    batch: Option<Batch>,
    /// This many rows are still to be written one by one, because their common COMMIT failed.
    alone: usize,
    streak: Streak,
}

impl<'a> Transactions<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        Self { shared, batch: None, alone: 0, streak: Streak::default() }
    }

    /// Runs one transaction. `Ok` also if the queue was empty. If another connection has the lock,
    /// waits for its release before the error is returned.
    pub fn run(
        &mut self,
        own: &mut OwnConnection<'_>,
        failures: &mut RetryState<'_>,
    ) -> Result<Completions> {
        let shared = self.shared;
        if let Some(pause) = self.streak.stand_back(Instant::now()) {
            std::thread::sleep(pause);
        }
        let started = Instant::now();
        own.ready_to_write()?;
        let expectation = shared.file.turn.expect_release();
        let turn = shared.file.turn.take();
        if let Err(error) = own.execute("BEGIN IMMEDIATE") {
            turn.abandon();
            if error.class() == Class::Transient && !failures.wait_out(expectation) {
                self.streak.met_another(Instant::now());
            }
            return Err(error);
        }
        drop(expectation);
        failures.has_lock();
        let rows = if self.alone > 0 { 1 } else { shared.options.batch_rows };
        self.batch = Some(shared.queue.take_batch(rows, shared.options.batch_bytes));
        let written = self.write(own);
        if own.get().is_some_and(|connection| !connection.is_autocommit()) {
            // Only after a failure that did not make SQLite roll back.
            drop(own.execute("ROLLBACK"));
        }
        drop(turn);
        let batch = self.batch.take().unwrap_or_default();
        match written {
            Ok(outcomes) => {
                if !outcomes.is_empty() {
                    self.alone = self.alone.saturating_sub(outcomes.len());
                    self.streak.committed(Instant::now());
                    let mut state = shared.queue.lock();
                    state.stats.batches += 1;
                    state.stats.commit.record(started.elapsed(), 1);
                }
                Ok(shared.queue.complete(batch, outcomes, &shared.options))
            }
            Err(error) => {
                if error.code == "ERR_FUSION_SCHEMA" {
                    own.refuse(&error);
                }
                shared.queue.give_back(batch);
                Err(error)
            }
        }
    }

    /// Whether other processes commit to the file too.
    pub fn in_company(&self, now: Instant) -> bool {
        self.streak.in_company(now)
    }

    /// Gives back the batch that a panic has left.
    pub fn abandon(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.shared.queue.give_back(batch);
        }
    }

    /// Writes `self.batch` and commits. On an error a transaction may still be open.
    fn write(&mut self, own: &mut OwnConnection<'_>) -> Result<Vec<RowOutcome>> {
        let mut outcomes = Outcomes::new();
        let shared = self.shared;
        loop {
            let Some(batch) = self.batch.as_ref().filter(|batch| !batch.chunks.is_empty()) else {
                // Without a row the table is not created.
                return Ok(Vec::new());
            };
            own.prepare()?;
            let Some((connection, statements)) = own.prepared() else {
                return Ok(Vec::new());
            };
            match statements.write(connection, shared, batch, &mut outcomes)? {
                Written::All => break,
                Written::LeftBehind => own.execute("ROLLBACK")?,
                Written::TransactionEnded => {}
            }
            own.execute("BEGIN IMMEDIATE")?;
        }
        let commits = engine::commit_frames();
        let committed = own.execute("COMMIT");
        let may_be_there = committed.is_ok()
            || engine::commit_frames() != commits
            || !own.get().is_some_and(|connection| connection.is_wal().unwrap_or(false));
        match committed.and_then(|()| self.is_kept(own)) {
            Ok(()) => Ok(complete(outcomes)),
            Err(error) if error.class() != Class::Transient && error.class() != Class::Row => {
                if may_be_there {
                    self.doubt(outcomes, &error);
                }
                Err(error)
            }
            // COMMIT reports a violated deferred constraint without the row that violated it.
            Err(error) if error.class() == Class::Row => {
                own.execute("ROLLBACK")?;
                if outcomes.len() == 1 {
                    return Ok(vec![RowOutcome::Rejected(error)]);
                }
                self.alone = outcomes.len();
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that the commit went to the file's own WAL.
    fn is_kept(&self, own: &OwnConnection<'_>) -> Result<()> {
        if own.is_stale() {
            return Err(Error::stale().at(&self.shared.file.path));
        }
        self.shared.file.check_sidecars()
    }

    /// Notes that the COMMIT of the rows in `self.batch` failed and may have stored them: they are
    /// looked up before they are written again.
    fn doubt(&mut self, outcomes: Outcomes, error: &Error) {
        if let Some(batch) = &mut self.batch {
            let outcomes = complete(outcomes);
            if !outcomes.is_empty() {
                batch.unknown = Some(UncertainCommit { outcomes, error: error.clone() });
            }
        }
    }
}
