//! Handles an error that reports corruption.
//!
//! If a fresh connection finds the file sound, the old one had a stale `-wal` or `-shm`
//! ([`DatabaseFile::heal`]). The writer reopens the file and writes the batch, which is back in the
//! queue. Damage is repaired if [`Options::repair`] is set: meanwhile the log accepts entries and
//! keeps them queued. An error that remains stops the writer; all entries are kept.
//!
//! The writer's thread. A repair runs on it until it ends, or until the log is closed.
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

/// How many repairs are made without a commit in between.
const REPAIR_ATTEMPTS: u32 = 3;

/// The pause between two repairs, if the first found no damage, or failed because the disk was full
/// or the file locked. Each begins with a check of the whole file.
const REPAIR_PAUSE: Duration = Duration::from_secs(15);

/// How long a repair waits for a lock at a time. Then the writer handles its waiting calls, and
/// repairs again after [`REPAIR_PAUSE`].
const REPAIR_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Mender<'a> {
    shared: &'a Shared,
    /// The file was reopened after a stale `-wal` or `-shm`, and no commit or checkpoint has
    /// succeeded since.
    healing: bool,
    /// Repairs since the last commit.
    repairs: u32,
    /// When the last repair failed, and its error, if another attempt may succeed.
    failed_repair: Option<(Instant, Error)>,
    /// When damage that another connection reported was last examined.
    heeded: Option<Instant>,
}

impl<'a> Mender<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, healing: false, repairs: 0, failed_repair: None, heeded: None }
    }

    /// A commit or a checkpoint has succeeded: reopening the file, or its repair, helped.
    pub fn confirm(&mut self) {
        self.repairs = 0;
        self.is_healed();
    }

    /// When a repair that has failed may be tried again.
    pub fn next_repair(&self) -> Option<Instant> {
        self.failed_repair.as_ref().map(|(at, _)| *at + REPAIR_PAUSE)
    }

    /// Closes the connection if a stale `-wal` or `-shm` may have caused `error`. The file is then
    /// checked before the next connection writes. `Ok`: try again.
    ///
    /// # Errors
    /// `error`, if that was not the cause or reopening has not helped; another error of the file.
    pub fn heal(&mut self, own: &mut OwnConnection<'_>, error: Error) -> Result<()> {
        let file = &self.shared.file;
        if !file.may_be_wedge(&error) {
            return Err(error);
        }
        if self.healing {
            // The file was already reopened, and no commit has succeeded since.
            file.members.give_up();
            return Err(error);
        }
        // The prepared statements only prevent closing, so they may stay for now.
        match file.heal(own.get(), engine::PATIENCE) {
            Ok(remedy) => {
                own.close();
                // The whole file is checked before the next write.
                file.suspect();
                if remedy != Remedy::IndexRebuilt {
                    self.shared.emit(&Event::Reopen);
                }
                file.members.hope(error, remedy);
                self.healing = true;
                Ok(())
            }
            // The file was replaced, or is busy: that error is the one to report.
            Err(other) if other.class() != Class::Corrupt => {
                if other.code == "ERR_FUSION_WAL_LOST" {
                    // A connection of a JavaScript thread may still have that WAL open, and save
                    // it.
                    self.shared.emit(&Event::Reopen);
                }
                Err(other)
            }
            Err(_) => Err(error),
        }
    }

    /// Repairs the file, if `error` reports corruption and the options allow a repair.
    ///
    /// # Errors
    /// `error`, if the file was not repaired; the repair's error, if it has to be tried again.
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
        // Its locks would block the repair, and its page cache is of no use.
        own.close();
        let mut announced = false;
        let mut announce = |found: &Health| {
            announced = true;
            shared.emit(&Event::Recovering(found.clone()));
        };
        let options = repair::Options {
            patience: REPAIR_PATIENCE,
            reason,
            keep_copies: shared.options.keep_copies,
            ..repair::Options::default()
        };
        let task = WhileNeeded { shared, closing_since: OnceLock::new() };
        let repaired = repair::repair(&shared.file.path, &options, &mut announce, &task);
        match repaired {
            Ok(report) => {
                self.repairs += 1;
                // The repair has checked the file, so the marks are removed.
                shared.file.take_damage_met();
                shared.file.take_suspicion();
                if report.outcome == Outcome::Healthy {
                    self.is_healed();
                } else {
                    self.healing = false;
                    shared.file.members.dismiss();
                }
                // If the file was sound, the connection was the cause: it is reopened, without
                // events.
                if announced {
                    shared.emit(&Event::Recovered(Box::new(report)));
                }
                Ok(())
            }
            // In use, disk full, or a failed read: the file is unchanged, so another attempt is
            // made.
            Err(failure) if failure.class().passes() => {
                self.failed_repair = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
            Err(failure) if failure.class() == Class::Replaced => Err(failure),
            // A full-text index that a repair does not rebuild on its own. The file is sound.
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

    /// Checks and repairs the file after another connection of this process has reported damage.
    /// The damaged file may be another one that the connection had attached. If a stale `-wal` or
    /// `-shm` may be the cause, the file is reopened first, so that the repair reads the file's own
    /// pages. Returns when to look again, if that was done only recently.
    ///
    /// # Errors
    /// The error that remains.
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
        // A stale -wal or -shm is no cause of a damaged index of a virtual table.
        let (healed, reason) = if file.is_suspect() {
            (self.heal(own, error.clone()), Reason::Damage)
        } else {
            (Ok(()), Reason::VirtualTable)
        };
        let seen_to = match healed {
            Err(error) if error.class() != Class::Corrupt => Err(error),
            Ok(()) | Err(_) => self.repair_for(reason, own, error),
        };
        // Does not count as a repair: the report may be wrong, or be about another file.
        self.repairs = repairs;
        if seen_to.as_ref().is_err_and(|error| error.class().passes()) {
            // If only an index is damaged, no other mark makes the writer look again.
            file.index_damage_met();
        }
        seen_to.map(|()| None)
    }

    /// Records that the reopened connection works.
    fn is_healed(&mut self) {
        if std::mem::take(&mut self.healing) {
            self.shared.file.members.confirm();
        }
    }
}

/// Lets a repair go on while the log is open, and for [`END_DEADLINE`] after it was closed with
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
