//! Consecutive failures: how long the writer pauses after each, and when it reports them.
//!
//! A transient failure is retried at once and then with growing pauses, any other one slowly.
//! Waiting calls get the error after failures have lasted for the whole retry deadline; listeners
//! get one event for each kind of failure. A schema that refuses entries is tried often, because a
//! try costs one read, and reported soon, because waiting does not change it. The writer's thread.

use std::time::{Duration, Instant};

use rusqlite::ffi;

use crate::agent_log::event::Event;
use crate::agent_log::log::LogCore;
use crate::agent_log::queue::Waiting;
use crate::engine::{Class, Error, Waiter};

/// The shortest and the longest pause after a transient failure.
const BRIEFLY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// The first and the shortest pause between tries for a write lock that other processes take in
/// turn. The pauses shrink from the first to the shortest.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_micros(100));

/// After this much waiting the pause between tries is half the first one.
const HALF_PATIENCE: Duration = Duration::from_millis(8);

/// After this much waiting one long transaction has the lock; processes do not take it in turn.
const LONG_HELD: Duration = Duration::from_millis(250);

/// The longest pause between tries for a lock of a long transaction.
const LONG_HELD_PAUSE: Duration = Duration::from_millis(20);

/// The shortest and the longest pause after a failure that is not transient.
const SLOWLY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The shortest and the longest pause after a check of the file that could not run.
const UNCHECKED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// The pause before the next try after the schema refused entries.
const SCHEMA: Duration = Duration::from_millis(100);

/// How long the schema may refuse entries before waiting calls get the error: a migration of
/// several transactions may be running.
const MIGRATION: Duration = Duration::from_millis(300);

/// How often [`Event::LockedOut`] asks threads whether one of them holds the lock.
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct RetryState<'a> {
    shared: &'a LogCore,
    in_a_row: u32,
    /// When the writer began to try for the lock.
    waiting_since: Option<Instant>,
    /// [`Self::wait_out`] has already paused for the last failure.
    waited: bool,
    /// The last failure with an event: its error code, and its message if it is the schema's. The
    /// same failure again emits no event.
    reported: Option<(i32, Option<String>)>,
    /// When [`Event::LockedOut`] was last emitted.
    asked: Option<Instant>,
    random: u64,
}

impl<'a> RetryState<'a> {
    pub fn new(shared: &'a LogCore) -> Self {
        let random = u64::from(std::process::id()) << 32 | shared.file.id.inode | 1;
        Self {
            shared,
            in_a_row: 0,
            waiting_since: None,
            waited: false,
            reported: None,
            asked: None,
            random,
        }
    }

    /// Counts a failure.
    pub fn count(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// A transaction has committed.
    pub fn are_over(&mut self) {
        self.in_a_row = 0;
        self.reported = None;
        let mut state = self.shared.queue.lock();
        state.failing = None;
        state.retry_at = None;
    }

    /// Waits until another connection releases the lock, for at most a pause. Returns whether a
    /// connection of this process released it.
    pub fn wait_out(&mut self, expectation: Waiter<'_>) -> bool {
        let waited = self.waiting_since.get_or_insert_with(Instant::now).elapsed();
        let pause = self.spread(lock_pause(waited));
        self.waited = true;
        expectation.wait(pause)
    }

    /// The writer got the lock.
    pub fn has_lock(&mut self) {
        self.waiting_since = None;
    }

    /// How long to wait before the next try of a check that could not run.
    pub fn pause_before_check(&mut self) -> Duration {
        self.pause(UNCHECKED)
    }

    /// Schedules the next attempt after a failure, not before `not_before`, and reports the failure
    /// to listeners and waiting calls when that is due.
    pub fn answer(&mut self, error: &Error, not_before: Option<Instant>) {
        let class = error.class();
        let now = Instant::now();
        let deadline = self.shared.options.retry_deadline;
        let waited = std::mem::take(&mut self.waited);
        let is_schema = error.code == "ERR_FUSION_SCHEMA";
        let retry_at = if is_schema {
            Some(now + SCHEMA)
        } else if class != Class::Transient {
            Some(now + self.pause(SLOWLY))
        } else if waited {
            None
        } else {
            Some(now + self.pause(BRIEFLY))
        };
        let mut state = self.shared.queue.lock();
        if class == Class::Transient {
            state.stats.retries += 1
        } else {
            state.stats.failures += 1
        }
        let since = state.failing.take().map_or(now, |(since, _)| since);
        state.failing = Some((since, error.clone()));
        state.retry_at = retry_at.max(not_before);
        let overdue = now.duration_since(since) >= deadline;
        let is_locked_out = error.errcode & 0xff == ffi::SQLITE_BUSY
            && now.duration_since(since) >= ASK_AGAIN
            && self.asked.is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN);
        if overdue && state.closing {
            state.stopped = Some(error.clone());
        }
        drop(state);
        if is_locked_out {
            self.asked = Some(now);
            self.shared.emit(&Event::LockedOut);
        }
        let reported = Some((error.errcode, is_schema.then(|| error.message.clone())));
        if (class != Class::Transient || overdue) && self.reported != reported {
            self.reported = reported;
            self.shared.emit(&Event::Error(error.clone()));
        }
        let patience = if is_schema { MIGRATION.min(deadline) } else { deadline };
        if overdue || is_schema {
            let waiting = Waiting { before: now.checked_sub(patience), ..Waiting::default() };
            self.shared.deliver(self.shared.queue.fail_waiting(error, &waiting));
        }
    }

    /// A pause that doubles with each consecutive failure, from `first` to `longest`. It is drawn
    /// at random from the upper half, so that processes which collided once do not collide again.
    fn pause(&mut self, (first, longest): (Duration, Duration)) -> Duration {
        self.spread(first.saturating_mul(1 << self.in_a_row.min(16)).min(longest))
    }

    fn spread(&mut self, full: Duration) -> Duration {
        // xorshift64: the quality of the random numbers does not matter.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(0.5 + (self.random % 1000) as f64 / 2000.0)
    }
}

/// The pause before the next try for a lock after `waited`. A process that has waited longer tries
/// more often, so that chance does not starve it.
fn lock_pause(waited: Duration) -> Duration {
    if waited >= LONG_HELD {
        return (waited / 16).min(LONG_HELD_PAUSE);
    }
    let (first, shortest) = LOCK_PAUSES;
    let patience = HALF_PATIENCE.as_secs_f64() / (HALF_PATIENCE + waited).as_secs_f64();
    first.mul_f64(patience).max(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longer_for_a_lock_tries_more_often_until_it_is_plainly_held() {
        let (first, shortest) = LOCK_PAUSES;
        assert_eq!(lock_pause(Duration::ZERO), first);
        assert_eq!(lock_pause(HALF_PATIENCE), first / 2);
        let pauses: Vec<_> =
            (0..250).map(|millis| lock_pause(Duration::from_millis(millis))).collect();
        assert!(pauses.is_sorted_by(|a, b| a >= b));
        assert_eq!(pauses.last(), Some(&shortest));
        assert!(lock_pause(LONG_HELD) > first);
        assert_eq!(lock_pause(Duration::from_secs(60)), LONG_HELD_PAUSE);
    }
}
