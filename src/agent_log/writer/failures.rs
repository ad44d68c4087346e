//! Failures in a row: how long the writer pauses after each, and what they mean to those who wait.
//!
//! Transient ones are retried at once and then with growing pauses, others slowly. Whoever waits
//! is told once failures have lasted for the whole retry deadline, and the listeners once for each
//! kind. The writer's thread.

use std::time::{Duration, Instant};

use rusqlite::ffi;

use crate::agent_log::event::Event;
use crate::agent_log::queue::Waiting;
use crate::agent_log::shared::Shared;
use crate::engine::{Class, Error, Expectation};

/// The shortest and the longest pause before a lock is tried for again.
const BRIEFLY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// The same after a failure that will not be over in a moment.
const SLOWLY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The same before a check that could not be carried out.
const UNCHECKED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// How often threads are asked whether it is they who hold the lock.
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Failures<'a> {
    shared: &'a Shared,
    in_a_row: u32,
    /// The last one has been waited out already.
    waited: bool,
    /// The one that was last told; told once until something else happens.
    told: Option<i32>,
    /// When threads were last asked whether it is they who hold the lock.
    asked: Option<Instant>,
    random: u64,
}

impl<'a> Failures<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        let random = u64::from(std::process::id()) << 32 | shared.file.id.inode | 1;
        Self { shared, in_a_row: 0, waited: false, told: None, asked: None, random }
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

    /// Waits for the release of the lock that another holds.
    pub fn wait_out(&mut self, expectation: Expectation<'_>) {
        let pause = self.pause(BRIEFLY);
        expectation.wait(pause);
        self.waited = true;
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
        let retry_at = if class != Class::Transient {
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
        if (class != Class::Transient || overdue) && self.told != Some(error.errcode) {
            self.told = Some(error.errcode);
            self.shared.emit(&Event::Error(error.clone()));
        }
        if overdue {
            let waiting = Waiting { before: now.checked_sub(deadline), ..Waiting::default() };
            self.shared.tell(self.shared.queue.fail_waiting(error, &waiting));
        }
    }

    /// A pause that doubles with each failure in a row, from `first` to `longest`, and is drawn
    /// from its upper half, so that processes which collided once do not collide again.
    fn pause(&mut self, (first, longest): (Duration, Duration)) -> Duration {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let full = first.saturating_mul(1 << self.in_a_row.min(16)).min(longest);
        full.mul_f64(0.5 + (self.random % 1000) as f64 / 2000.0)
    }
}
