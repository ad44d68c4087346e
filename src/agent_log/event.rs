//! Events of a log, and their listeners. An event is emitted on the thread that detected its cause,
//! mostly the writer's; a [`Listener`] passes it on and returns.

use std::sync::Arc;

use super::entry::Entries;
use crate::checkpoint;
use crate::engine::{Error, Remedy};
use crate::health::Health;
use crate::recovery::Report;

/// An event of a log.
#[derive(Debug)]
pub enum Event {
    /// Writing failed; the entries are kept, and the writer tries again.
    Error(Error),
    /// The file is damaged and is not repaired; writing has stopped, the entries are kept.
    Corrupt(Error),
    /// The file is damaged and is about to be repaired; what the check found.
    Recovering(Health),
    /// The file is repaired, and writing goes on; the report of the repair.
    Recovered(Box<Report>),
    /// Connections to the file were stale, which caused this error, and work again.
    Healed(Error, Remedy),
    /// This process must reopen its connections to the file. A connection without a transaction
    /// must be closed at once: the others cannot reopen before that.
    Reopen,
    /// Another connection has held the write lock for a while: a thread that owns that connection
    /// reports it.
    LockedOut,
    /// The path leads to another file, or to no file; writing has stopped, the entries are kept.
    Replaced(Error),
    /// A checkpoint reset the WAL, or was prevented.
    Checkpoint(checkpoint::CheckpointOutcome),
    /// A row that no call waits for was rejected; the columns are the log's additional columns.
    Rejected(Entries, Arc<[String]>, Error),
    /// The queue refused entries (`true`), or has room again (`false`).
    Backpressure(bool),
}

/// Receives events. Called on any thread, never with a lock held; must not wait.
pub trait Listener: Send + Sync {
    /// Receives one event.
    fn event(&self, event: &Event);

    /// The replies of one transaction follow, until [`Self::release`]. The listener delivers them
    /// in one turn of the event loop, so that the entries which their callers append next form one
    /// batch.
    fn hold(&self) {}

    /// Ends a [`Self::hold`].
    fn release(&self) {}
}
