//! Fairness of the write lock between processes.
//!
//! SQLite's write lock has no queue: a process that finds it taken sleeps and tries again. A writer
//! that commits batch after batch leaves the others only the moments between its transactions, and
//! a process that backs off after each try gets fewer of them. So all writers retry after the same
//! short pause, and one that has committed for [`LONGEST`] while others want the lock leaves it
//! alone for [`STAND_BACK`], in which each of the others tries at least once.
//!
//! The processes share no state for this: a stopped or killed process blocks no other, and a
//! program without this package gets the lock too. A writer learns of others only by finding the
//! lock taken: a process that is alone never stands back.
//!
//! The writer's thread. Waiting calls of this process have their own precedence
//! ([`crate::engine::WriteGate`]).

use std::time::{Duration, Instant};

/// How long one process commits batch after batch while others wait.
const LONGEST: Duration = Duration::from_millis(10);

/// How long it then leaves the lock alone: twice the longest pause between two tries of the others.
const STAND_BACK: Duration = Duration::from_millis(2);

/// How long others are assumed to want the lock after it was last found taken.
const COMPANY: Duration = Duration::from_millis(250);

/// The run of batches that this process has committed since it last found the lock taken.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// When the run began, and when its last batch was committed.
    run: Option<(Instant, Instant)>,
    /// When another process last had the lock.
    met: Option<Instant>,
}

impl Streak {
    /// Another process has the write lock.
    pub fn met_another(&mut self, now: Instant) {
        self.met = Some(now);
        self.run = None;
    }

    /// A batch was committed.
    pub fn committed(&mut self, now: Instant) {
        let since = self.run.map_or(now, |(since, _)| since);
        self.run = Some((since, now));
    }

    /// Whether other processes commit to the file too.
    pub fn in_company(&self, now: Instant) -> bool {
        self.met.is_some_and(|met| now.saturating_duration_since(met) < COMPANY)
    }

    /// How long to leave the lock to others before the next batch.
    pub fn stand_back(&mut self, now: Instant) -> Option<Duration> {
        let (since, last) = self.run?;
        if now.saturating_duration_since(last) >= STAND_BACK {
            // The lock was already free for long enough.
            self.run = None;
            return None;
        }
        if !self.in_company(now) || now.saturating_duration_since(since) < LONGEST {
            return None;
        }
        self.run = None;
        Some(STAND_BACK.saturating_sub(now.saturating_duration_since(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits from `now` on, until the streak has lasted as long as it may.
    fn run(streak: &mut Streak, mut now: Instant) -> Instant {
        for _ in 0..10 {
            assert_eq!(streak.stand_back(now), None);
            streak.committed(now);
            now += LONGEST / 10;
        }
        now
    }

    #[test]
    fn a_process_that_is_alone_never_stands_back() {
        let mut streak = Streak::default();
        let mut now = Instant::now();
        for _ in 0..10 {
            now = run(&mut streak, now);
        }
        assert_eq!(streak.stand_back(now), None);
    }

    #[test]
    fn one_in_company_stands_back_after_a_while_and_then_goes_on() {
        let mut streak = Streak::default();
        let start = Instant::now();
        streak.met_another(start);
        let end = run(&mut streak, start);
        assert_eq!(streak.stand_back(end), Some(STAND_BACK - LONGEST / 10));
        run(&mut streak, end + STAND_BACK);
    }

    #[test]
    fn a_pause_is_a_turn_for_others_and_company_is_forgotten() {
        let mut streak = Streak::default();
        let start = Instant::now();
        streak.met_another(start);
        let end = run(&mut streak, start);
        assert_eq!(streak.stand_back(end + STAND_BACK), None);
        let mut streak = Streak::default();
        streak.met_another(start);
        let end = run(&mut streak, start + COMPANY);
        assert_eq!(streak.stand_back(end), None);
    }
}
