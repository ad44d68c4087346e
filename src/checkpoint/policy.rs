//! Which checkpoint is due: a pure function of the state of the WAL.
//!
//! | situation, the first that applies | action |
//! |---|---|
//! | nothing in the WAL file | none |
//! | the file exceeds its limit, is not idle, not restarted since the last commit | RESTART |
//! | the file is idle, or was last truncated `interval` ago | TRUNCATE |
//! | `due_frames` or more frames are not in the database | PASSIVE |
//! | otherwise | none |
//!
//! After a checkpoint was prevented, RESTART and TRUNCATE are skipped for a pause, and PASSIVE is
//! skipped until the WAL has grown by `due_frames` again.
//!
//! RESTART runs once for each commit: it does not shorten the file, the next commit does.
//!
//! TRUNCATE waits for idleness, because the next commits have to grow a truncated file again.
//!
//! A prevented RESTART is retried only after a pause. The reader that prevents it usually reads on
//! for a while, and each attempt takes the write lock from the writers of other processes. A
//! PASSIVE attempt takes no lock that a reader or a writer waits for.

use std::time::Duration;

use super::Mode;

/// Pause after a checkpoint that was prevented, while the WAL is growing.
const PAUSE: Duration = Duration::from_millis(50);

/// The pause for a WAL that is neither oversized nor due: truncating it is not urgent.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

/// The figures of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Frames not yet in the database that make a checkpoint due.
    pub due_frames: u32,
    /// Size in bytes above which the WAL file is cut; `PRAGMA journal_size_limit`.
    pub limit_bytes: u64,
    /// Time without a commit after which the WAL is truncated.
    pub idle: Duration,
    /// The longest time between two truncations of the WAL.
    pub interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            due_frames: 100,
            limit_bytes: 4 << 20,
            idle: Duration::from_secs(2),
            interval: Duration::from_secs(300),
        }
    }
}

/// What is known about the WAL at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInput {
    /// Frames in the WAL.
    pub frames: u32,
    /// How many of them are known to be in the database.
    pub backfilled: u32,
    /// Frames that the last checkpoint, completed or not, found.
    pub frames_at_last: u32,
    /// Size of the WAL file.
    pub wal_bytes: u64,
    /// It was restarted, and this process knows of no commit since.
    pub restarted: bool,
    /// Time since the last commit that this process knows of.
    pub idle: Duration,
    /// Time since the WAL was last truncated, or since the start.
    pub since_truncate: Duration,
    /// Time since the last checkpoint, if it was prevented.
    pub since_prevented: Option<Duration>,
}

/// The checkpoint that is due. If none is: the time after which to decide again, where `None`
/// means after the next commit.
pub fn decide(policy: &Policy, situation: &CheckpointInput) -> Result<Mode, Option<Duration>> {
    if situation.wal_bytes == 0 {
        return Err(None);
    }
    let oversized = situation.wal_bytes > policy.limit_bytes;
    let idle = situation.idle >= policy.idle;
    let due = situation.frames.saturating_sub(situation.backfilled) >= policy.due_frames;
    let pause = if oversized || due { PAUSE } else { IDLE_PAUSE };
    let left =
        situation.since_prevented.map_or(Duration::ZERO, |since| pause.saturating_sub(since));
    if left.is_zero() {
        if oversized && !idle && !situation.restarted {
            return Ok(Mode::Restart);
        }
        if idle || situation.since_truncate >= policy.interval {
            return Ok(Mode::Truncate);
        }
    }
    // A WAL with fewer frames than before was restarted.
    let grown = match situation.frames.checked_sub(situation.frames_at_last) {
        Some(grown) => grown,
        None => situation.frames,
    };
    if due && (situation.since_prevented.is_none() || grown >= policy.due_frames) {
        return Ok(Mode::Passive);
    }
    if !left.is_zero() {
        return Err(Some(left));
    }
    let until_idle = policy.idle.saturating_sub(situation.idle);
    let until_interval = policy.interval.saturating_sub(situation.since_truncate);
    Err(Some(until_idle.min(until_interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_database() -> CheckpointInput {
        CheckpointInput {
            frames: 50,
            backfilled: 0,
            frames_at_last: 0,
            wal_bytes: 50 * 4120,
            restarted: false,
            idle: Duration::ZERO,
            since_truncate: Duration::from_secs(10),
            since_prevented: None,
        }
    }

    #[test]
    fn a_short_wal_of_a_busy_database_is_left_alone_until_it_is_idle() {
        let look_again = decide(&Policy::default(), &busy_database());
        assert_eq!(look_again, Err(Some(Duration::from_secs(2))));
    }

    #[test]
    fn a_hundred_frames_are_due() {
        let due = CheckpointInput { frames: 100, ..busy_database() };
        assert_eq!(decide(&Policy::default(), &due), Ok(Mode::Passive));
        let done = CheckpointInput { backfilled: 1, ..due };
        assert!(decide(&Policy::default(), &done).is_err());
    }

    #[test]
    fn an_idle_or_long_untruncated_wal_is_truncated() {
        let idle = CheckpointInput { idle: Duration::from_secs(2), ..busy_database() };
        assert_eq!(decide(&Policy::default(), &idle), Ok(Mode::Truncate));
        let old = CheckpointInput { since_truncate: Duration::from_secs(300), ..busy_database() };
        assert_eq!(decide(&Policy::default(), &old), Ok(Mode::Truncate));
    }

    #[test]
    fn an_oversized_wal_is_restarted_under_load_and_cut_when_idle() {
        let oversized = CheckpointInput { wal_bytes: (4 << 20) + 1, ..busy_database() };
        assert_eq!(decide(&Policy::default(), &oversized), Ok(Mode::Restart));
        let idle = CheckpointInput { idle: Duration::from_secs(9), ..oversized };
        assert_eq!(decide(&Policy::default(), &idle), Ok(Mode::Truncate));
    }

    #[test]
    fn an_oversized_wal_is_restarted_once_until_the_next_commit() {
        let restarted = CheckpointInput {
            wal_bytes: 5 << 20,
            frames: 1200,
            backfilled: 1200,
            restarted: true,
            idle: Duration::from_millis(500),
            ..busy_database()
        };
        let look_again = decide(&Policy::default(), &restarted);
        assert_eq!(look_again, Err(Some(Duration::from_millis(1500))));
        let idle = CheckpointInput { idle: Duration::from_secs(2), ..restarted };
        assert_eq!(decide(&Policy::default(), &idle), Ok(Mode::Truncate));
    }

    #[test]
    fn a_prevented_reset_is_tried_again_after_a_pause() {
        let mut oversized = CheckpointInput { wal_bytes: 5 << 20, ..busy_database() };
        oversized.since_prevented = Some(PAUSE / 5);
        assert_eq!(decide(&Policy::default(), &oversized), Err(Some(PAUSE * 4 / 5)));
        oversized.since_prevented = Some(PAUSE);
        assert_eq!(decide(&Policy::default(), &oversized), Ok(Mode::Restart));
    }

    #[test]
    fn a_prevented_passive_checkpoint_is_tried_again_when_the_wal_has_grown() {
        let prevented = CheckpointInput {
            frames: 500,
            frames_at_last: 450,
            since_prevented: Some(Duration::ZERO),
            ..busy_database()
        };
        assert!(decide(&Policy::default(), &prevented).is_err());
        let grown = CheckpointInput { frames: 550, ..prevented.clone() };
        assert_eq!(decide(&Policy::default(), &grown), Ok(Mode::Passive));
        let restarted = CheckpointInput { frames: 120, ..prevented };
        assert_eq!(decide(&Policy::default(), &restarted), Ok(Mode::Passive));
    }

    #[test]
    fn an_empty_wal_needs_no_checkpoint() {
        let empty = CheckpointInput { frames: 0, wal_bytes: 0, ..busy_database() };
        assert_eq!(decide(&Policy::default(), &empty), Err(None));
    }
}
