//! Failures in a row: how long the writer pauses after each, and what they mean to those who wait.
//!
//! Transient ones are retried at once and then with growing pauses, others slowly. Whoever waits
//! is told once failures have lasted for the whole retry deadline, and the listeners once for each
//! kind. A schema that refuses entries is another matter: trying costs a read, and more waiting does
//! not help, so it is tried often and told soon. The writer's thread.

use std::time::{Duration, Instant};

use rusqlite::ffi;

use crate::agent_log::event::Event;
use crate::agent_log::queue::Waiting;
use crate::agent_log::shared::Shared;
use crate::engine::{Class, Error, Expectation};

/// The shortest and the longest pause before a failure that will be over in a moment is met again.
const BRIEFLY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// The pauses between tries for a lock that another process has: the first, which is the longest of
/// a lock that is passed around, and the shortest.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_micros(100));

/// After so much waiting the pause between tries is half the first one.
const HALF_PATIENCE: Duration = Duration::from_millis(8);

/// A lock that was not had for so long is not passed around: one transaction has it.
const LONG_HELD: Duration = Duration::from_millis(250);

/// The longest pause before such a lock is tried for again.
const LONG_HELD_PAUSE: Duration = Duration::from_millis(20);

/// The same after a failure that will not be over in a moment.
const SLOWLY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The same before a check that could not be carried out.
const UNCHECKED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// The pause before it is looked whether a schema that refused entries is another one by now.
const SCHEMA: Duration = Duration::from_millis(100);

/// How long the schema may refuse entries before who waits for them is told: a migration of several
/// transactions may be under way.
const MIGRATION: Duration = Duration::from_millis(300);
/// How often threads are asked whether it is they who hold the lock.
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Failures<'a> {
    shared: &'a Shared,
    in_a_row: u32,
    /// Since when the lock is tried for.
    waiting_since: Option<Instant>,
    /// The last one has been waited out already.
    waited: bool,
    /// The one that was last told, by its code, and of the schema by what it says; told once until
    /// something else happens.
    told: Option<(i32, Option<String>)>,
    /// When threads were last asked whether it is they who hold the lock.
    asked: Option<Instant>,
    random: u64,
}

impl<'a> Failures<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        let random = u64::from(std::process::id()) << 32 | shared.file.id.inode | 1;
        Self {
            shared,
            in_a_row: 0,
            waiting_since: None,
            waited: false,
            told: None,
            asked: None,
            random,
        }
    }

    /// Counts one.
    pub fn count(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// A transaction has committed.
    pub fn are_over(&mut self) {
        self.in_a_row = 0;
        self.told = None;
        let mut state = self.shared.queue.lock();
        state.failing = None;
        state.retry_at = None;
    }

    /// Waits for the release of the lock that another holds. Whether it was released in this
    /// process.
    pub fn wait_out(&mut self, expectation: Expectation<'_>) -> bool {
        let waited = self.waiting_since.get_or_insert_with(Instant::now).elapsed();
        let pause = self.spread(lock_pause(waited));
        self.waited = true;
        expectation.wait(pause)
    }

    /// The lock was had.
    pub fn has_lock(&mut self) {
        self.waiting_since = None;
    }

    /// How long to wait for the next try of a check that could not be carried out.
    pub fn pause_before_check(&mut self) -> Duration {
        self.pause(UNCHECKED)
    }

    /// Answers for a failure after which it is tried again, in no case before `not_before`.
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
        let told = Some((error.errcode, is_schema.then(|| error.message.clone())));
        if (class != Class::Transient || overdue) && self.told != told {
            self.told = told;
            self.shared.emit(&Event::Error(error.clone()));
        }
        let patience = if is_schema { MIGRATION.min(deadline) } else { deadline };
        if overdue || is_schema {
            let waiting = Waiting { before: now.checked_sub(patience), ..Waiting::default() };
            self.shared.tell(self.shared.queue.fail_waiting(error, &waiting));
        }
    }

    /// A pause that doubles with each failure in a row, from `first` to `longest`, and is drawn
    /// from its upper half, so that processes which collided once do not collide again.
    fn pause(&mut self, (first, longest): (Duration, Duration)) -> Duration {
        self.spread(first.saturating_mul(1 << self.in_a_row.min(16)).min(longest))
    }

    fn spread(&mut self, full: Duration) -> Duration {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(0.5 + (self.random % 1000) as f64 / 2000.0)
    }
}

/// The pause before the next try for a lock that was tried for since `waited`. Who has waited
/// longer tries more often: so no process is left behind for long by chance.
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
