//! What is done about an error that says the file is damaged.
//!
//! Where a fresh connection finds it sound, the writer's connection was merely wedged
//! ([`DatabaseFile::heal`]): it is opened anew, and the batch, which never left the queue, is
//! written on that. Damage is repaired where [`Options::repair`] says so: entries wait meanwhile,
//! and go on being accepted. What is left after both stops the writer, with everything kept.
//!
//! The writer's thread; a repair runs on it as long as somebody needs it.
//!
//! [`DatabaseFile::heal`]: crate::engine::DatabaseFile::heal
//! [`Options::repair`]: crate::agent_log::Options::repair

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::connection::OwnConnection;
use crate::agent_log::event::Event;
use crate::agent_log::options::END_DEADLINE;
use crate::agent_log::shared::Shared;
use crate::engine::{self, Class, Error, Remedy, Result, Stage, Task, shown};
use crate::health::Health;
use crate::recovery::{Outcome, Reason, repair};

/// How often in a row the file may be found damaged without a commit in between.
const REPAIR_ATTEMPTS: u32 = 3;

/// The pause between two repairs, where the first has failed for want of room or of a lock, or
/// found nothing. Each begins with a check of the whole file.
const REPAIR_PAUSE: Duration = Duration::from_secs(15);

/// How long a repair waits for a lock at a time. Then the writer looks after those who wait for
/// it, and repairs again after [`REPAIR_PAUSE`].
const REPAIR_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Mender<'a> {
    shared: &'a Shared,
    /// A wedge was seen to, and nothing written or checkpointed since.
    healing: bool,
    /// Repairs since the last commit.
    repairs: u32,
    /// The last repair that may yet succeed, and why it did not.
    failed_repair: Option<(Instant, Error)>,
    /// When damage that another connection met was last looked into.
    heeded: Option<Instant>,
}

impl<'a> Mender<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, healing: false, repairs: 0, failed_repair: None, heeded: None }
    }

    /// The writer has written or checkpointed: what was seen to is in order.
    pub fn confirm(&mut self) {
        self.repairs = 0;
        self.is_healed();
    }

    /// When a repair that has failed may be tried again.
    pub fn next_repair(&self) -> Option<Instant> {
        self.failed_repair.as_ref().map(|(at, _)| *at + REPAIR_PAUSE)
    }

    /// Sees to a wedge, if `error` may come from one: drops the connection, and has the next one
    /// checked before anything is written. `Ok`: try again.
    ///
    /// # Errors
    /// What is left to be answered for: `error`, where there was no wedge, or this did not help.
    pub fn heal(&mut self, own: &mut OwnConnection<'_>, error: Error) -> Result<()> {
        let file = &self.shared.file;
        if !file.may_be_wedge(&error) {
            return Err(error);
        }
        if self.healing {
            // Seen to already, without a commit since.
            file.members.give_up();
            return Err(error);
        }
        // What is prepared stands in the way of closing, but of nothing else.
        match file.heal(own.get(), engine::PATIENCE) {
            Ok(remedy) => {
                own.close();
                // The whole file is looked through before anything is written.
                file.suspect();
                if remedy != Remedy::IndexRebuilt {
                    self.shared.emit(&Event::Reopen);
                }
                file.members.hope(error, remedy);
                self.healing = true;
                Ok(())
            }
            // It is another file, or a busy one: that is to be said then.
            Err(other) if other.class() != Class::Corrupt => {
                if other.code == "ERR_FUSION_WAL_LOST" {
                    // A JavaScript thread may have the connection that can save it.
                    self.shared.emit(&Event::Reopen);
                }
                Err(other)
            }
            Err(_) => Err(error),
        }
    }

    /// Repairs the file, if `error` says that it is damaged and the options say so.
    ///
    /// # Errors
    /// What is left to be answered: `error`, or why the repair has to be tried again.
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
        // Its locks would be in the way, and what it knows of the file is of no use.
        own.close();
        let mut told = false;
        let mut tell = |found: &Health| {
            told = true;
            shared.emit(&Event::Recovering(found.clone()));
        };
        let options = repair::Options {
            patience: REPAIR_PATIENCE,
            reason,
            keep_copies: shared.options.keep_copies,
            ..repair::Options::default()
        };
        let task = WhileNeeded { shared, closing_since: OnceLock::new() };
        let repaired = repair::repair(&shared.file.path, &options, &mut tell, &task);
        match repaired {
            Ok(report) => {
                self.repairs += 1;
                // Whatever was doubted has been looked at.
                shared.file.take_damage_met();
                shared.file.take_suspicion();
                if report.outcome == Outcome::Healthy {
                    self.is_healed();
                } else {
                    self.healing = false;
                    shared.file.members.dismiss();
                }
                // Where nothing was wrong it was the connection, which is opened anew.
                if told {
                    shared.emit(&Event::Recovered(Box::new(report)));
                }
                Ok(())
            }
            // In use, no room, or a failed read: the file is as it was, and the next attempt repairs it.
            Err(failure) if failure.class().passes() => {
                self.failed_repair = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
            Err(failure) if failure.class() == Class::Replaced => Err(failure),
            // A full-text index that is not rebuilt unasked. The file is sound.
            Err(failure) if failure.class() == Class::Index && reason == Reason::VirtualTable => {
                self.repairs += 1;
                Ok(())
            }
            Err(failure) => {
                let message =
                    format!("{}. It was not repaired: {}", error.message, failure.message);
                // Where a repair would have lost rows, the comparison is in them.
                let details = failure.details;
                Err(Error { message: shown(&message).into_owned(), details, ..error })
            }
        }
    }

    /// Has the file looked through, and repaired, where another connection of this process met
    /// damage. It need not be this file that is damaged: that connection may have attached another
    /// one. Where it may be a wedge, that is seen to first, so that the repair sees what is in the
    /// file.
    /// Answers when to look again, if that was only just done.
    ///
    /// # Errors
    /// What is left to be answered.
    pub fn heed(&mut self, own: &mut OwnConnection<'_>, now: Instant) -> Result<Option<Instant>> {
        let file = &self.shared.file;
        if !self.shared.options.repair {
            return Ok(None);
        }
        if let Some(again) = self.heeded.map(|at| at + REPAIR_PAUSE).filter(|again| now < *again) {
            return Ok(Some(again));
        }
        if !file.take_damage_met() {
            return Ok(None);
        }
        self.heeded = Some(now);
        let repairs = self.repairs;
        let met = "a connection of this process found it damaged";
        let error = Error::sqlite(rusqlite::ffi::SQLITE_CORRUPT, met).at(&file.path);
        // An index of a virtual table is damaged in the file, or not at all.
        let (healed, reason) = if file.is_suspect() {
            (self.heal(own, error.clone()), Reason::Damage)
        } else {
            (Ok(()), Reason::VirtualTable)
        };
        let seen_to = match healed {
            Err(error) if error.class() != Class::Corrupt => Err(error),
            Ok(()) | Err(_) => self.repair_for(reason, own, error),
        };
        // It may have been nothing, and says nothing of this connection's next commit.
        self.repairs = repairs;
        if seen_to.as_ref().is_err_and(|error| error.class().passes()) {
            // Nobody else looks again where only an index is damaged.
            file.index_damage_met();
        }
        seen_to.map(|()| None)
    }

    /// The connection works: a wedge that was seen to is healed.
    fn is_healed(&mut self) {
        if std::mem::take(&mut self.healing) {
            self.shared.file.members.confirm();
        }
    }
}

/// A repair goes on while somebody needs it: the log is open, or was closed only just now with
/// entries in its queue.
struct WhileNeeded<'a> {
    shared: &'a Shared,
    closing_since: OnceLock<Instant>,
}

impl Task for WhileNeeded<'_> {
    fn stage(&self, _: Stage) {}

    fn go_on(&self) -> Result<()> {
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
