//! How a log writes: plain data, fixed when the file's first handle is opened. Any thread.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Policy;
use crate::engine::Profile;

/// How long the end of the process may be delayed.
pub const END_DEADLINE: Duration = Duration::from_secs(5);

/// How a log writes. The first handle of a file decides for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Settings of the writer's connection.
    pub profile: Profile,
    /// Rows that close a batch.
    pub batch_rows: usize,
    /// Bytes that close a batch.
    pub batch_bytes: usize,
    /// How long an entry that no call waits for may stay queued, so that others join its batch.
    pub linger: Duration,
    /// How long entries that a call waits for stay queued at least, counted from the first of
    /// them. They also wait for the end of the turn that appended them.
    pub awaited_linger: Duration,
    /// Bytes that may be queued.
    pub queue_bytes: usize,
    /// How long attempts may fail before a waiting call gets the error.
    pub retry_deadline: Duration,
    /// The counter that each transaction increases; `None`: no counter.
    pub change_counter: Option<ChangeCounter>,
    /// Columns of the table that entries have values for, besides those of
    /// [`Field`](super::Field).
    pub columns: Arc<[String]>,
    /// Whether a missing table is created, whatever else the schema holds.
    pub create_table: bool,
    /// When to checkpoint.
    pub checkpoints: Policy,
    /// Whether the writer repairs a damaged file.
    pub repair: bool,
    /// How many copies of files that a repair replaced are kept.
    pub keep_copies: u32,
}

/// A counter in `__meta`.
#[derive(Debug, Clone, Eq)]
pub struct ChangeCounter {
    /// Its key.
    pub key: String,
    /// Whether a schema without `__meta` is an error. If not, such a schema has no counter.
    pub required: bool,
}

/// Compares the keys only: options of two handles that differ in `required` do not conflict, the
/// first handle's counts.
impl PartialEq for ChangeCounter {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            batch_rows: 1000,
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(500),
            awaited_linger: Duration::ZERO,
            queue_bytes: 64 << 20,
            retry_deadline: Duration::from_secs(60),
            change_counter: Some(ChangeCounter { key: "lastModified".to_owned(), required: false }),
            columns: Arc::default(),
            create_table: false,
            checkpoints: Policy::default(),
            repair: true,
            keep_copies: crate::engine::KEEP,
        }
    }
}
