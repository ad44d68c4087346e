//! Handles errors that report damage of the file.
//!
//! If a fresh connection finds the file sound, only the writer's connection was stale
//! ([`DatabaseFile::recover_connections`]): it is reopened, and the batch, which went back to the queue, is
//! written on the new connection. Damage is repaired if [`LogOptions::repair`] is set; meanwhile the
//! queue still accepts entries. An error that remains after both stops the writer, with all entries
//! kept.
//!
//! The writer's thread; a repair runs on it until it is done or no longer needed.
//!
//! [`DatabaseFile::recover_connections`]: crate::engine::DatabaseFile::recover_connections
//! [`LogOptions::repair`]: crate::agent_log::LogOptions::repair

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::connection::OwnConnection;
use crate::agent_log::event::Event;
use crate::agent_log::log::LogCore;
use crate::agent_log::options::END_DEADLINE;
use crate::engine::{self, Class, Error, Progress, Remedy, Result, Stage, shown};
use crate::health::Health;
use crate::recovery::{Reason, RepairOutcome, repair};

/// How many repairs may follow each other without a commit in between.
const REPAIR_ATTEMPTS: u32 = 3;

/// The pause between two repairs if the first had no disk space or no lock, or found no damage.
/// Each repair begins with a check of the whole file.
const REPAIR_PAUSE: Duration = Duration::from_secs(15);

/// How long a repair waits for a lock. Then the writer answers waiting calls, and repairs again
/// after [`REPAIR_PAUSE`].
const REPAIR_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct CorruptionHandler<'a> {
    shared: &'a LogCore,
    /// A stale connection was closed, and no write or checkpoint has succeeded since.
    reopening: bool,
    /// Repairs since the last commit.
    repairs: u32,
    /// The last repair, if it failed for a reason that may pass: when, and its error.
    failed_repair: Option<(Instant, Error)>,
    /// When damage reported by another connection was last checked.
    heeded: Option<Instant>,
}

impl<'a> CorruptionHandler<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        Self { shared, reopening: false, repairs: 0, failed_repair: None, heeded: None }
    }

    /// The writer has committed or checkpointed: the file and the connection work.
    pub fn confirm(&mut self) {
        self.repairs = 0;
        self.on_success();
    }

    /// When a failed repair may be tried again.
    pub fn next_repair(&self) -> Option<Instant> {
        self.failed_repair.as_ref().map(|(at, _)| *at + REPAIR_PAUSE)
    }

    /// Closes the connection if it may be stale and have caused `error`, and flags the file for a
    /// check before the next write. `Ok`: try again.
    ///
    /// # Errors
    /// The error that remains: `error`, if the connection was not stale or reopening did not help.
    pub fn reopen_stale(&mut self, own: &mut OwnConnection<'_>, error: Error) -> Result<()> {
        let file = &self.shared.file;
        if !file.may_be_stale(&error) {
            return Err(error);
        }
        if self.reopening {
            // Reopened already, without a commit since.
            file.recovery.failed();
            return Err(error);
        }
        // The writer's prepared statements do not prevent this; `own.close` finalizes them first.
        match file.recover_connections(own.get(), engine::PATIENCE) {
            Ok(remedy) => {
                own.close();
                // The whole file is checked before the next write.
                file.suspect();
                if remedy != Remedy::IndexRebuilt {
                    self.shared.emit(&Event::Reopen);
                }
                file.recovery.attempted(error, remedy);
                self.reopening = true;
                Ok(())
            }
            // The file was replaced, or is busy: report that error instead.
            Err(other) if other.class() != Class::Corrupt => {
                if other.code == "ERR_FUSION_WAL_LOST" {
                    // A connection of a JavaScript thread may be able to save the WAL.
                    self.shared.emit(&Event::Reopen);
                }
                Err(other)
            }
            Err(_) => Err(error),
        }
    }

    /// Repairs the file, if `error` reports damage and the options allow repairs.
    ///
    /// # Errors
    /// The error that remains: `error`, or why the repair has to be tried again.
    pub fn repair(&mut self, own: &mut OwnConnection<'_>, error: Error) -> Result<()> {
        self.repair_for(Reason::Damage, own, error)
    }

    fn repair_for(
        &mut self,
        reason: Reason,
        own: &mut OwnConnection<'_>,
        error: Error,
    ) -> Result<()> {
        let shared = self.shared;
        if !shared.options.repair || error.class() != Class::Corrupt {
            return Err(error);
        }
        if self.repairs >= REPAIR_ATTEMPTS {
            return Err(error);
        }
        if let Some((at, failure)) = &self.failed_repair
            && at.elapsed() < REPAIR_PAUSE
        {
            return Err(failure.clone());
        }
        self.failed_repair = None;
        // Its locks would block the repair, and its page cache may be wrong.
        own.close();
        let mut reported = false;
        let mut report_found = |found: &Health| {
            reported = true;
            shared.emit(&Event::Recovering(found.clone()));
        };
        let options = repair::RepairOptions {
            patience: REPAIR_PATIENCE,
            reason,
            keep_copies: shared.options.keep_copies,
            ..repair::RepairOptions::default()
        };
        let task = CancelWhenClosed { shared, closing_since: OnceLock::new() };
        let repaired = repair::repair(&shared.file.path, &options, &mut report_found, &task);
        match repaired {
            Ok(report) => {
                self.repairs += 1;
                // The repair has checked the file: the flags are obsolete.
                shared.file.take_corruption_seen();
                shared.file.take_unverified();
                if report.outcome == RepairOutcome::Healthy {
                    self.on_success();
                } else {
                    self.reopening = false;
                    shared.file.recovery.not_needed();
                }
                // Without damage the connection was at fault, and the next one is a new one.
                if reported {
                    shared.emit(&Event::Recovered(Box::new(report)));
                }
                Ok(())
            }
            // In use, no disk space, or a failed read: the file is unchanged, and the next attempt
            // may repair it.
            Err(failure) if failure.class().passes() => {
                self.failed_repair = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
            Err(failure) if failure.class() == Class::Replaced => Err(failure),
            // The file is sound; a full-text index is rebuilt only on request.
            Err(failure) if failure.class() == Class::Index && reason == Reason::VirtualTable => {
                self.repairs += 1;
                Ok(())
            }
            Err(failure) => {
                let message =
                    format!("{}. It was not repaired: {}", error.message, failure.message);
                // If the repair would have lost rows, the details hold the comparison.
                let details = failure.details;
                Err(Error { message: shown(&message).into_owned(), details, ..error })
            }
        }
    }

    /// Checks the file, and repairs it, if another connection of this process reported damage. The
    /// damage may be in another file that the connection had attached. If the connection may be
    /// stale, connections are reopened first, so that the repair reads the file itself. Returns
    /// when to check again, if the last check was less than [`REPAIR_PAUSE`] ago.
    ///
    /// # Errors
    /// The error that remains.
    pub fn check_reported_corruption(
        &mut self,
        own: &mut OwnConnection<'_>,
        now: Instant,
    ) -> Result<Option<Instant>> {
        let file = &self.shared.file;
        if !self.shared.options.repair {
            return Ok(None);
        }
        if let Some(again) = self.heeded.map(|at| at + REPAIR_PAUSE).filter(|again| now < *again) {
            return Ok(Some(again));
        }
        if !file.take_corruption_seen() {
            return Ok(None);
        }
        self.heeded = Some(now);
        let repairs = self.repairs;
        let met = "a connection of this process found it damaged";
        let error = Error::sqlite(rusqlite::ffi::SQLITE_CORRUPT, met).at(&file.path);
        // A stale connection does not explain the damaged index of a virtual table.
        let (reopened, reason) = if file.is_unverified() {
            (self.reopen_stale(own, error.clone()), Reason::Damage)
        } else {
            (Ok(()), Reason::VirtualTable)
        };
        let seen_to = match reopened {
            Err(error) if error.class() != Class::Corrupt => Err(error),
            Ok(()) | Err(_) => self.repair_for(reason, own, error),
        };
        // Reports of other connections do not count towards REPAIR_ATTEMPTS: the file may be sound.
        self.repairs = repairs;
        if seen_to.as_ref().is_err_and(|error| error.class().passes()) {
            // Sets the flag again: damage that is only in an index causes no later error here.
            file.index_corruption_seen();
        }
        seen_to.map(|()| None)
    }

    /// The connection works: confirms that reopening helped.
    fn on_success(&mut self) {
        if std::mem::take(&mut self.reopening) {
            self.shared.file.recovery.confirmed();
        }
    }
}

/// Lets a repair go on while the log is open, or for [`END_DEADLINE`] after it was closed with
/// entries in its queue.
struct CancelWhenClosed<'a> {
    shared: &'a LogCore,
    closing_since: OnceLock<Instant>,
}

impl Progress for CancelWhenClosed<'_> {
    fn stage(&self, _: Stage) {}

    fn check_cancelled(&self) -> Result<()> {
        let state = self.shared.queue.lock();
        if !state.closing {
            return Ok(());
        }
        let since = self.closing_since.get_or_init(Instant::now);
        if state.rows > 0 && since.elapsed() < END_DEADLINE {
            return Ok(());
        }
        Err(Error::fusion("ERR_FUSION_CANCELLED", "the database was closed before it was repaired"))
    }
}
