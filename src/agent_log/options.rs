//! Options of a log: plain data, fixed when the file's first handle is opened. Any thread.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Policy;
use crate::engine::Profile;

/// How long pending entries may delay the end of the process.
pub const END_DEADLINE: Duration = Duration::from_secs(5);

/// Options of a log. The first handle of a file sets them for all handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Settings of the writer's connection.
    pub profile: Profile,
    /// Rows that close a batch.
    pub batch_rows: usize,
    /// Bytes that close a batch.
    pub batch_bytes: usize,
    /// How long an entry without a waiting call may stay queued, so that others join its batch.
    pub linger: Duration,
    /// The same for the entries of a waiting call, counted from the append. Their batch starts no
    /// earlier than this, and not before the JavaScript turn ends (which is awaited for 10 ms).
    pub awaited_linger: Duration,
    /// Bytes that may be queued.
    pub queue_bytes: usize,
    /// How long failures in a row may last before a waiting call gets the error.
    pub retry_deadline: Duration,
    /// The counter that each transaction increments; `None`: no counter.
    pub change_counter: Option<ChangeCounter>,
    /// Additional columns of the table, after those of [`Field`](super::Field), for which entries
    /// have values.
    pub columns: Arc<[String]>,
    /// Whether a missing table is created, whatever else the schema holds.
    pub create_table: bool,
    /// When to checkpoint.
    pub checkpoints: Policy,
    /// Whether a damaged file is repaired.
    pub repair: bool,
    /// How many copies of each kind are kept of the files that repairs replaced.
    pub keep_copies: u32,
}

/// A counter in `__meta`.
#[derive(Debug, Clone, Eq)]
pub struct ChangeCounter {
    /// Its key.
    pub key: String,
    /// Whether a schema without `__meta` is an error. If not, no counter is incremented then.
    pub required: bool,
}

/// Equal if the keys are equal: `required` of the first handle counts.
impl PartialEq for ChangeCounter {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Default for Options {
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
