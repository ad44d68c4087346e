//! The care of the WAL: what the writer remembers of it between checkpoints, when the next one is
//! due, and what one has come to. The writer's thread.
//!
//! [`checkpoint::decide`] is the policy. What others may see of it is in [`Shared::wal`].

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::connection::OwnConnection;
use crate::agent_log::event::Event;
use crate::agent_log::shared::Shared;
use crate::checkpoint::{self, Mode, Outcome, Situation};
use crate::engine::{Class, Error, Result, Wal};

/// How often a checkpoint that needs the write lock tries for it before it counts as prevented.
const RESET_ATTEMPTS: u32 = 8;

/// Where several processes commit, one leaves checkpoints to the others for so many times as long
/// as its last one took. The one that checkpoints commits nothing meanwhile, and finds the next
/// checkpoint due when it is done: the others would go on while it does the work for all of them.
const OTHERS_SHARE: u32 = 3;

/// The shortest time between two events that tell of a prevented checkpoint.
const TELL_EVERY: Duration = Duration::from_secs(1);

pub(super) struct WalCare<'a> {
    shared: &'a Shared,
    last_commit: Instant,
    seen_commits: u32,
    /// The WAL was restarted when the file had seen so many commits.
    restarted_at: Option<u32>,
    last_truncate: Instant,
    last_prevented: Option<Instant>,
    /// Until then a checkpoint that is due is left to other processes that commit, too.
    others_until: Instant,
    frames_at_last: u32,
    told_prevented: Option<Instant>,
    /// The failure that was last told: a full disk fails each checkpoint, many times a second.
    told_failure: Option<i32>,
}

impl<'a> WalCare<'a> {
    pub fn new(shared: &'a Shared) -> Self {
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
            told_prevented: None,
            told_failure: None,
        }
    }

    /// The writer has committed.
    pub fn committed(&mut self) {
        self.last_commit = Instant::now();
        self.shared.file.wal.committed_without();
    }

    /// Whether the last commit is so long ago that the WAL is truncated.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_commit) >= self.shared.options.checkpoints.idle
    }

    /// Looks at the WAL: the checkpoint that is due, or after which time to look again.
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
        let situation = Situation {
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

    /// When the next PASSIVE checkpoint is this process's again, if it is not yet.
    pub fn left_to_others(&self, now: Instant) -> Option<Duration> {
        self.others_until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Takes note of what a checkpoint has come to, and tells of it. It began at `started`, when
    /// the file had seen `commits`. A file that is damaged or replaced stops the log.
    pub fn record(&mut self, result: &Result<Outcome>, commits: u32, started: Instant) {
        let now = Instant::now();
        self.others_until = now + now.saturating_duration_since(started) * OTHERS_SHARE;
        match result {
            Ok(outcome) => {
                self.note(*outcome, commits, now);
                self.told_failure = None;
                self.tell(*outcome, now);
            }
            Err(error) => {
                self.shared.wal().failed += 1;
                self.last_prevented = Some(now);
                self.tell_failure(error);
            }
        }
    }

    fn note(&mut self, outcome: Outcome, commits: u32, now: Instant) {
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

    /// Tells of resets, and of prevented checkpoints now and then.
    fn tell(&mut self, outcome: Outcome, now: Instant) {
        if outcome.busy {
            if self.told_prevented.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
                return;
            }
            self.told_prevented = Some(now);
        } else {
            let was_prevented = self.told_prevented.take().is_some();
            if outcome.mode == Mode::Passive && !was_prevented {
                return;
            }
        }
        self.shared.emit(&Event::Checkpoint(outcome));
    }

    fn tell_failure(&mut self, error: &Error) {
        if matches!(error.class(), Class::Corrupt | Class::Replaced) {
            self.shared.stop(error);
        } else if self.told_failure.replace(error.errcode) != Some(error.errcode) {
            self.shared.emit(&Event::Error(error.clone()));
        }
    }
}

/// Checkpoints a file that is sound: a checkpoint is what makes damage by a replaced file, or by a
/// WAL that is not its own, permanent.
pub(super) fn checkpoint(
    shared: &Shared,
    own: &mut OwnConnection<'_>,
    mode: Mode,
) -> Result<Outcome> {
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
        // Perhaps a commit of this process was under way, which is over in a moment.
        turn.abandon();
        expectation.wait(Duration::from_millis(1));
    }
}

/// Size of the file's WAL, by `stat`; 0 where there is none.
pub(super) fn size(database: &Path) -> u64 {
    std::fs::metadata(Wal::path(database)).map_or(0, |metadata| metadata.len())
}
