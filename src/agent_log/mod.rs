//! Batched appends to `agentLogEntries`. Knows the engine, not Node.
//!
//! A JavaScript thread encodes entries ([`Entries`]) and passes them to the file's one [`Log`], a
//! bounded queue with a writer thread. The writer groups queued entries into transactions, reports
//! the outcomes through callbacks, and checkpoints the WAL between transactions.
//!
//! ```text
//!  JavaScript threads          writer thread, one per file
//!  ------------------          ---------------------------------------------
//!  Entries ──▶ Queue ────────▶ take a turn ▶ BEGIN IMMEDIATE ▶ take a batch ▶
//!                              look at the schema ▶ insert rows ▶ bump change counter ▶ COMMIT ▶
//!  Reply   ◀────────────────── settle receipts ▶ checkpoint if due
//! ```
//!
//! Invariants of this module:
//!
//! 1. An accepted entry is in exactly one place: the queue, the batch of the open transaction, the
//!    database, or the result of [`Log::take_pending`].
//! 2. The queue is first in, first out; a batch that failed goes back to its front.
//! 3. A batch leaves the queue only while its transaction holds the write lock. So a thread that
//!    holds that lock can always take the queue ([`Log::write_on`]).
//! 4. A receipt is settled after COMMIT, never before.

mod batch;
mod borrowed;
mod entry;
mod event;
mod options;
mod queue;
mod registry;
mod shared;
mod stats;
mod table;
mod thread;
mod writer;

pub use borrowed::Borrowed;
pub use entry::{Entries, Entry, Field, Kind, More, Position, Value};
pub use event::{Event, Listener};
pub use options::{ChangeCounter, END_DEADLINE, Options};
pub use queue::{Answer, Receipt, Refusal, Rejection, Reply};
pub use registry::{
    LockedOut, Log, at_end, flush_all, flush_unlocked, flush_until, open, open_in_memory, replaced,
    resume,
};
pub use stats::{Latency, Stats, WalStatus};
pub use table::{BUMP, SCHEMA};
