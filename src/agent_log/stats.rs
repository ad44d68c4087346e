//! Figures of one log, for people and for decisions. Plain data: the queue's mutex guards
//! [`Stats`], a mutex of its own guards [`WalStatus`].

use std::time::{Duration, SystemTime};

/// Durations in buckets a quarter of a power of two wide, from a microsecond to half an hour.
#[derive(Debug, Clone)]
pub struct Latency {
    buckets: [u64; 128],
    count: u64,
    max: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [0; 128], count: 0, max: Duration::ZERO }
    }
}

impl Latency {
    /// Counts `time` as having happened `times` times.
    pub fn record(&mut self, time: Duration, times: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let octave = micros.ilog2();
        let quarter = if octave < 2 { 0 } else { (micros >> (octave - 2)) & 3 };
        let index = usize::try_from(u64::from(octave) * 4 + quarter).unwrap_or(usize::MAX);
        let index = index.min(self.buckets.len() - 1);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += times;
        }
        self.count += times;
        self.max = self.max.max(time);
    }

    /// The duration that a `share` (0 to 1) of all did not exceed, to a quarter of an octave.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut left = (self.count as f64 * share).ceil().max(1.0) as u64;
        if self.count == 0 {
            return Duration::ZERO;
        }
        for (index, bucket) in (0_u32..).zip(self.buckets) {
            if bucket >= left {
                let (octave, quarter) = (index / 4, u64::from(index % 4));
                let upper = if octave < 2 { 2 << octave } else { (5 + quarter) << (octave - 2) };
                return Duration::from_micros(upper).min(self.max);
            }
            left -= bucket;
        }
        self.max
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Figures of one log since it was opened.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Transactions committed.
    pub batches: u64,
    /// Rows committed.
    pub rows: u64,
    /// Rows rejected, each alone.
    pub rejected: u64,
    /// Bytes of the committed rows' values.
    pub bytes: u64,
    /// Attempts that failed with a transient error.
    pub retries: u64,
    /// Attempts that failed with another error.
    pub failures: u64,
    /// Appends refused because the queue was full.
    pub refused: u64,
    /// Entries returned by `take_pending`.
    pub taken_back: u64,
    /// Time from BEGIN to COMMIT, counted by transaction.
    pub commit: Latency,
    /// Time from acceptance to COMMIT, counted by row.
    pub append: Latency,
}

/// State of the WAL and its checkpoints.
#[derive(Debug, Clone, Default)]
pub struct WalStatus {
    /// Frames after the last commit or checkpoint.
    pub frames: u32,
    /// How many of them are in the database, after the last checkpoint.
    pub backfilled: u32,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Largest size seen.
    pub peak_bytes: u64,
    /// Checkpoints carried out, by [`crate::checkpoint::Mode`].
    pub completed: [u64; 4],
    /// Checkpoints that a reader, a writer or another checkpointer prevented.
    pub prevented: u64,
    /// The first prevented checkpoint since the last completed one.
    pub prevented_since: Option<SystemTime>,
    /// Checkpoints that failed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_quarter_octave() {
        let mut latency = Latency::default();
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros), 1);
        }
        let median = latency.quantile(0.5).as_micros();
        assert!((500..=640).contains(&median), "{median}");
        assert_eq!(latency.quantile(1.0).as_micros(), 1000);
        assert_eq!(latency.count(), 1000);
        assert_eq!(Latency::default().quantile(0.99), Duration::ZERO);
    }
}
