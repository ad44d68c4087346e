//! Batched appends to `agentLogEntries`. Knows the engine, not Node.
//!
//! A JavaScript thread encodes entries ([`Entries`]) and hands them to the file's one [`Log`],
//! which is a bounded queue and a writer thread. The writer groups what is queued into
//! transactions, answers through callbacks, and checkpoints the WAL between transactions.
//!
//! ```text
//!  JavaScript threads          writer thread, one per file
//!  ------------------          ---------------------------------------------
//!  Entries ──▶ Queue ────────▶ take a turn ▶ BEGIN IMMEDIATE ▶ take a batch ▶
//!                              look at the schema ▶ insert rows ▶ bump change counter ▶ COMMIT ▶
//!  Reply   ◀────────────────── settle receipts ▶ checkpoint if due
//! ```
//!
//! What holds everywhere in here:
//!
//! 1. An accepted entry is in exactly one place: the queue, the batch of the transaction under
//!    way, the database, or the hands of whoever took it back.
//! 2. The queue is first in, first out; a batch that failed goes back to its front.
//! 3. A batch leaves the queue only once the write lock is held, so that a thread which holds
//!    that lock itself can always take the queue over ([`Log::write_on`]).
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
