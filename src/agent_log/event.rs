//! Events of a log and their listeners. An event is emitted on the thread that detected its cause,
//! usually the writer's. A [`Listener`] forwards the event and returns.

use std::sync::Arc;

use super::entry::Entries;
use crate::checkpoint;
use crate::engine::{Error, Remedy};
use crate::health::Health;
use crate::recovery::Report;

/// An event of a log.
#[derive(Debug)]
pub enum Event {
    /// Writing failed. The entries are kept, and the writer tries again.
    Error(Error),
    /// The file is damaged and is not repaired. Writing has stopped; the entries are kept.
    Corrupt(Error),
    /// The file is damaged, and its repair is about to start. Holds the result of the check.
    Recovering(Health),
    /// The file is repaired, and writing goes on. Holds the report of the repair.
    Recovered(Box<Report>),
    /// Connections to the file had a stale `-wal` or `-shm` and work again. Holds the error that
    /// showed it, and the remedy.
    Healed(Error, Remedy),
    /// Connections of this process to the file must be reopened. A connection without an open
    /// transaction must be closed at once: opening waits until all stale connections are closed.
    Reopen,
    /// Another connection has held the write lock for a while. If it belongs to this process, its
    /// thread reports that.
    LockedOut,
    /// The path leads to another file, or to no file. Writing has stopped; the entries are kept.
    Replaced(Error),
    /// A checkpoint reset the WAL, or a reader, writer or checkpointer blocked it.
    Checkpoint(checkpoint::Outcome),
    /// A row without a waiting call was rejected. Holds the names of the log's additional columns.
    Rejected(Entries, Arc<[String]>, Error),
    /// The queue refused entries (`true`), or has room again (`false`).
    Backpressure(bool),
}

/// Receives events. Called on any thread, never with a lock held; must not block.
pub trait Listener: Send + Sync {
    /// Receives one event.
    fn event(&self, event: &Event);

    /// The replies of one transaction follow, until [`Self::release`]. Delivered in one JavaScript
    /// turn, they let the entries that the callers append next share a batch.
    fn hold(&self) {}

    /// Ends a [`Self::hold`].
    fn release(&self) {}
}
