//! Checkpoints of the WAL: the state between two checkpoints, when the next one is due, and its
//! result. The writer's thread.
//!
//! [`checkpoint::decide`] is the policy. [`LogCore::wal`] has the state that other threads read.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::connection::OwnConnection;
use crate::agent_log::event::Event;
use crate::agent_log::log::LogCore;
use crate::checkpoint::{self, CheckpointInput, CheckpointOutcome, Mode};
use crate::engine::{Class, Error, Result, Wal};

/// How often a checkpoint that needs the write lock tries for it before it counts as prevented.
const RESET_ATTEMPTS: u32 = 8;

/// If several processes commit, one leaves PASSIVE checkpoints to the others for this many times
/// the duration of its last checkpoint. While it checkpoints it commits nothing, and the others'
/// commits make the next checkpoint due: without a pause it would do the work of all processes.
const OTHERS_SHARE: u32 = 3;

/// The shortest time between two events that report a prevented checkpoint.
const REPORT_EVERY: Duration = Duration::from_secs(1);

pub(super) struct WalCare<'a> {
    shared: &'a LogCore,
    last_commit: Instant,
    seen_commits: u32,
    /// The file's number of commits when the WAL was restarted.
    restarted_at: Option<u32>,
    last_truncate: Instant,
    last_prevented: Option<Instant>,
    /// Until this moment a checkpoint that is due is left to other processes that commit.
    others_until: Instant,
    frames_at_last: u32,
    prevented_reported: Option<Instant>,
    /// Error code of the last reported failure, which is reported once: with a full disk
    /// checkpoints fail many times a second.
    failure_reported: Option<i32>,
}

impl<'a> WalCare<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        let now = Instant::now();
        Self {
            shared,
            last_commit: now,
            seen_commits: 0,
            restarted_at: None,
            last_truncate: now,
            last_prevented: None,
            others_until: now,
            frames_at_last: 0,
            prevented_reported: None,
            failure_reported: None,
        }
    }

    /// The writer has committed.
    pub fn committed(&mut self) {
        self.last_commit = Instant::now();
        self.shared.file.wal.committed_without();
    }

    /// Whether the time since the last commit has reached the policy's `idle`.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_commit) >= self.shared.options.checkpoints.idle
    }

    /// Updates the state of the WAL. Returns the checkpoint that is due, or the time after which to
    /// call this again.
    pub fn look(&mut self, now: Instant) -> std::result::Result<Mode, Option<Duration>> {
        let shared = self.shared;
        let commits = shared.file.wal.commits();
        if commits != self.seen_commits {
            self.seen_commits = commits;
            self.last_commit = now;
        }
        let bytes = size(&shared.file.path);
        let mut wal = shared.wal();
        wal.frames = shared.file.wal.frames();
        wal.backfilled = wal.backfilled.min(wal.frames);
        wal.bytes = bytes;
        wal.peak_bytes = wal.peak_bytes.max(bytes);
        let situation = CheckpointInput {
            frames: wal.frames,
            backfilled: wal.backfilled,
            frames_at_last: self.frames_at_last,
            wal_bytes: bytes,
            restarted: self.restarted_at == Some(commits),
            idle: now.duration_since(self.last_commit),
            since_truncate: now.duration_since(self.last_truncate),
            since_prevented: self.last_prevented.map(|at| now.duration_since(at)),
        };
        drop(wal);
        checkpoint::decide(&shared.options.checkpoints, &situation)
    }

    /// How long PASSIVE checkpoints are still left to other processes, if they are.
    pub fn left_to_others(&self, now: Instant) -> Option<Duration> {
        self.others_until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Records and reports the result of a checkpoint that began at `started`, when the file's
    /// number of commits was `commits`. Damage or a replaced file stops the log.
    pub fn record(&mut self, result: &Result<CheckpointOutcome>, commits: u32, started: Instant) {
        let now = Instant::now();
        self.others_until = now + now.saturating_duration_since(started) * OTHERS_SHARE;
        match result {
            Ok(outcome) => {
                self.note(*outcome, commits, now);
                self.failure_reported = None;
                self.report(*outcome, now);
            }
            Err(error) => {
                self.shared.wal().failed += 1;
                self.last_prevented = Some(now);
                self.report_failure(error);
            }
        }
    }

    fn note(&mut self, outcome: CheckpointOutcome, commits: u32, now: Instant) {
        let shared = self.shared;
        let mut wal = shared.wal();
        wal.frames = outcome.frames;
        wal.backfilled = outcome.backfilled;
        self.frames_at_last = outcome.frames;
        wal.bytes = size(&shared.file.path);
        if outcome.busy {
            wal.prevented += 1;
            wal.prevented_since.get_or_insert_with(SystemTime::now);
            self.last_prevented = Some(now);
        } else {
            if let Some(count) = wal.completed.get_mut(outcome.mode as usize) {
                *count += 1;
            }
            wal.prevented_since = None;
            self.last_prevented = None;
            match outcome.mode {
                Mode::Passive | Mode::Full => {}
                Mode::Restart => self.restarted_at = Some(commits),
                Mode::Truncate => self.last_truncate = now,
            }
        }
        shared.file.wal.set_frames(outcome.frames);
    }

    /// Emits an event for each checkpoint that reset the WAL, for prevented checkpoints at most one
    /// each [`REPORT_EVERY`], and for the first that completes after a prevented one.
    fn report(&mut self, outcome: CheckpointOutcome, now: Instant) {
        if outcome.busy {
            if self.prevented_reported.is_some_and(|at| now.duration_since(at) < REPORT_EVERY) {
                return;
            }
            self.prevented_reported = Some(now);
        } else {
            let was_prevented = self.prevented_reported.take().is_some();
            if outcome.mode == Mode::Passive && !was_prevented {
                return;
            }
        }
        self.shared.emit(&Event::Checkpoint(outcome));
    }

    fn report_failure(&mut self, error: &Error) {
        if matches!(error.class(), Class::Corrupt | Class::Replaced) {
            self.shared.stop(error);
        } else if self.failure_reported.replace(error.errcode) != Some(error.errcode) {
            self.shared.emit(&Event::Error(error.clone()));
        }
    }
}

/// Checkpoints the file after [`OwnConnection::sound`] has checked it: a checkpoint to a replaced
/// file, or of another file's WAL, would make the damage permanent.
pub(super) fn checkpoint(
    shared: &LogCore,
    own: &mut OwnConnection<'_>,
    mode: Mode,
) -> Result<CheckpointOutcome> {
    let turns = &shared.file.turn;
    let connection = own.sound()?;
    if mode == Mode::Passive {
        return checkpoint::run(connection, mode);
    }
    let mut attempts = 0;
    loop {
        let expectation = turns.expect_release();
        let turn = turns.take();
        let outcome = checkpoint::run(connection, mode)?;
        attempts += 1;
        if !outcome.busy || attempts == RESET_ATTEMPTS {
            return Ok(outcome);
        }
        // A commit of this process may be running, which ends in a moment.
        turn.abandon();
        expectation.wait(Duration::from_millis(1));
    }
}

/// Size of the file's WAL in bytes, by `stat`; 0 if it has no WAL.
pub(super) fn size(database: &Path) -> u64 {
    std::fs::metadata(Wal::path(database)).map_or(0, |metadata| metadata.len())
}
