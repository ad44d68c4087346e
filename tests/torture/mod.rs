//! Proof that a failing disk and a loss of power cost nothing that was acknowledged. `tests/fault_matrix.rs`
//! and `tests/power_loss.rs` run a part of it, `benches/torture.rs` as much as is asked for.
//!
//! | module | owns |
//! |---|---|
//! | [`calls`] | the C library's file calls of this program, which are this module's |
//! | [`site`] | a folder whose files' calls are counted, fail as planned and are recorded |
//! | [`tape`] | what was recorded, in order |
//! | [`disk`] | the states that a power cut can leave of it |
//! | [`power`] | operations that are recorded, and what must hold of each state |
//! | [`matrix`] | operations during which a call fails, and what must hold afterwards |
//! | [`rows`] | the rows of both, and what a database with them must look like |
//!
//! The calls are intercepted below SQLite and below `std::fs` alike: a function of the C library that
//! the program defines itself is the one that is called, by SQLite's unix VFS, by the lock shim and by
//! the standard library. So renames, syncs of folders, copies and the schema snapshot, which go
//! through no VFS, fail and are recorded like everything else, and nothing of the package knows.
//! Linux with glibc alone: elsewhere `tests/faults.rs` has its VFS.
//!
//! Not covered: the index of the WAL in shared memory, which no power cut leaves; calls that are not
//! in [`calls`].

#![allow(dead_code, reason = "each program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../damage/random.rs"]
pub mod random;

pub mod calls;
pub mod disk;
pub mod matrix;
pub mod power;
pub mod rows;
pub mod site;
pub mod tape;
