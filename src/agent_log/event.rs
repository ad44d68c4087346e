//! What a log tells, and to whom. Events leave on whichever thread met what they tell of, most on
//! the writer's; a [`Listener`] passes them on and returns.

use std::sync::Arc;

use super::entry::Entries;
use crate::checkpoint;
use crate::engine::{Error, Remedy};
use crate::health::Health;
use crate::recovery::Report;

/// What a log tells its listeners.
#[derive(Debug)]
pub enum Event {
    /// Writing failed; the entries are kept and it is tried again.
    Error(Error),
    /// The file is damaged and is not repaired; writing has stopped, the entries are kept.
    Corrupt(Error),
    /// The file is damaged and is about to be repaired: what was found.
    Recovering(Health),
    /// The file is repaired, and writing goes on: the account of it.
    Recovered(Box<Report>),
    /// Connections to the file were wedged, by this error, and work again.
    Healed(Error, Remedy),
    /// Connections of this process to the file are to be opened anew: those that are in no
    /// transaction are to be closed at once, because the others wait for it.
    Reopen,
    /// The write lock is another connection's, and has been for a while: a thread whose own it is
    /// is to report that.
    LockedOut,
    /// The path leads to another file, or to none; writing has stopped, the entries are kept.
    Replaced(Error),
    /// A checkpoint reset the WAL, or was prevented.
    Checkpoint(checkpoint::Outcome),
    /// A row without a waiting call was rejected; the columns are the further ones of the log.
    Rejected(Entries, Arc<[String]>, Error),
    /// The queue refused entries (`true`), or has room again (`false`).
    Backpressure(bool),
}

/// Takes events. Called on any thread, never with a lock held; must not wait.
pub trait Listener: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);

    /// Replies that belong together follow, until [`Self::release`]: the callers that one
    /// transaction answers go on in one turn, and what they append next is one batch again.
    fn hold(&self) {}

    /// Ends a [`Self::hold`].
    fn release(&self) {}
}
