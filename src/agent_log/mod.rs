//! Batched appends to `agentLogEntries`. Knows the engine, not Node.
//!
//! A JavaScript thread encodes entries ([`Entries`]) and hands them to the file's one [`Log`],
//! which is a bounded queue and a writer thread. The writer groups what is queued into
//! transactions, answers through callbacks, and checkpoints the WAL between transactions.
//!
//! ```text
//!  JavaScript threads          writer thread, one per file
//!  ------------------          ---------------------------------------------
//!  Entries ──▶ Queue ────────▶ take the write gate ▶ BEGIN IMMEDIATE ▶ take a batch ▶
//!                              read the schema cookie ▶ insert rows ▶ bump change counter ▶
//!                              COMMIT ▶
//!  Reply   ◀────────────────── settle receipts ▶ checkpoint if due
//! ```
//!
//! Invariants of this room:
//!
//! 1. An accepted entry is in exactly one place: the queue, the batch of the open transaction, the
//!    database, or the caller that took it back.
//! 2. The queue is first in, first out; a batch that failed goes back to its front.
//! 3. A batch leaves the queue only under the write lock, so that a thread which holds that lock
//!    can always empty the queue ([`Log::write_in_caller_transaction`]).
//! 4. A receipt is settled after COMMIT, never before.

mod batch;
mod caller_transaction;
mod entry;
mod event;
mod log;
mod options;
mod queue;
mod registry;
mod stats;
mod table;
mod thread;
mod writer;

pub use caller_transaction::CallerTransaction;
pub use entry::{Entries, Entry, Field, More, Position, Value, ValueKind};
pub use event::{Event, Listener};
pub use options::{ChangeCounter, END_DEADLINE, LogOptions};
pub use queue::{Answer, Receipt, Refusal, Rejection, Reply};
pub use registry::{
    LockedOut, Log, at_end, flush_all, flush_unlocked, flush_until, open, open_in_memory, replaced,
    resume,
};
pub use stats::{Latency, Stats, WalStatus};
pub use table::{BUMP, SCHEMA};
