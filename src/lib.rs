//! fusion-sqlite: one SQLite per process, whose locks hold, and one background writer per
//! database file.
//!
//! A room imports from those below it only (`tests/rooms.rs`):
//!
//! | room | owns |
//! |---|---|
//! | [`node`] | the N-API surface: converts values, holds no logic |
//! | [`agent_log`] | batched appends: queue, transaction, writer thread, registry |
//! | [`recovery`] | reading a damaged file page by page, repair, backup, restore |
//! | [`health`] | checks off the JavaScript thread, and what they mean |
//! | [`checkpoint`] | when and how the WAL is checkpointed |
//! | [`engine`] | the one SQLite of this process: locks, file identity, profile, errors |
//! | [`format`](mod@format) | SQLite's file format: pure functions on bytes |

pub mod agent_log;
pub mod checkpoint;
pub mod engine;
pub mod format;
pub mod health;
pub mod node;
pub mod recovery;
