//! Failures in a row: how long the writer pauses after each, and what they mean to those who wait.
//!
//! Transient ones are retried at once and then with growing pauses, others slowly. Whoever waits
//! is told once failures have lasted for the whole retry deadline, and the listeners once for each
//! kind. A schema that refuses entries is another matter: trying costs a read, and more waiting does
//! not help, so it is tried often and told soon. The writer's thread.

use std::time::{Duration, Instant};

use crate::agent_log::event::Event;
use crate::agent_log::shared::Shared;
use crate::engine::{Class, Error, Expectation};

/// The shortest and the longest pause before a lock is tried for again.
const BRIEFLY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// The same after a failure that will not be over in a moment.
const SLOWLY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The same before a check that could not be carried out.
const UNCHECKED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// The pause before it is looked whether a schema that refused entries is another one by now.
const SCHEMA: Duration = Duration::from_millis(100);

/// How long the schema may refuse entries before who waits for them is told: a migration of several
/// transactions may be under way.
const MIGRATION: Duration = Duration::from_millis(300);

pub(super) struct Failures<'a> {
    shared: &'a Shared,
    in_a_row: u32,
    /// The last one has been waited out already.
    waited: bool,
    /// The one that was last told, by its code, and of the schema by what it says; told once until
    /// something else happens.
    told: Option<(i32, Option<String>)>,
    random: u64,
}

impl<'a> Failures<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        let random = u64::from(std::process::id()) << 32 | shared.file.id.inode | 1;
        Self { shared, in_a_row: 0, waited: false, told: None, random }
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
        if overdue && state.closing {
            state.stopped = Some(error.clone());
        }
        drop(state);
        let told = Some((error.errcode, is_schema.then(|| error.message.clone())));
        if (class != Class::Transient || overdue) && self.told != told {
            self.told = told;
            self.shared.emit(&Event::Error(error.clone()));
        }
        let patience = if is_schema { MIGRATION.min(deadline) } else { deadline };
        if overdue || is_schema {
            let before = now.checked_sub(patience);
            self.shared.tell(self.shared.queue.fail_waiting(error, before));
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
