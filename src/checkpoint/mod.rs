//! When and how the WAL is checkpointed (<https://sqlite.org/wal.html#checkpointing>).
//!
//! [`policy`] decides and is pure; [`run`] carries out, on the thread that owns the connection:
//! the file's writer, between two of its transactions. No connection of a JavaScript thread
//! checkpoints inside its commits.

mod policy;

use std::ffi::c_int;

use rusqlite::ffi;

use crate::engine::{Class, Connection, Result};

pub use policy::{CheckpointInput, Policy, decide};

/// How far a checkpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Copies as many frames as possible without waiting for readers or writers.
    Passive,
    /// Copies all frames, or reports busy after the connection's busy timeout (the writer's is 0).
    Full,
    /// As `Full`, and the next commit starts the WAL from its beginning.
    Restart,
    /// As `Restart`, and the WAL file is truncated to 0 bytes.
    Truncate,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointOutcome {
    /// The mode that was asked for.
    pub mode: Mode,
    /// A reader, a writer or another checkpointer prevented it from completing.
    pub busy: bool,
    /// Frames in the WAL afterwards.
    pub frames: u32,
    /// How many of them are in the database file.
    pub backfilled: u32,
}

impl Mode {
    /// The name used in JavaScript.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passive => "passive",
            Self::Full => "full",
            Self::Restart => "restart",
            Self::Truncate => "truncate",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Passive, Self::Full, Self::Restart, Self::Truncate]
            .into_iter()
            .find(|mode| mode.name() == name)
    }

    const fn raw(self) -> c_int {
        match self {
            Self::Passive => ffi::SQLITE_CHECKPOINT_PASSIVE,
            Self::Full => ffi::SQLITE_CHECKPOINT_FULL,
            Self::Restart => ffi::SQLITE_CHECKPOINT_RESTART,
            Self::Truncate => ffi::SQLITE_CHECKPOINT_TRUNCATE,
        }
    }
}

/// Checkpoints the main database of `connection`.
///
/// The modes beyond `Passive` hold the write lock while they copy, so a passive pass goes first
/// and leaves them almost nothing to do under that lock.
///
/// # Errors
/// SQLite's. A checkpoint that a lock prevented is not an error: see [`CheckpointOutcome::busy`].
pub fn run(connection: &Connection, mode: Mode) -> Result<CheckpointOutcome> {
    let passive = step(connection, Mode::Passive)?;
    if mode == Mode::Passive {
        return Ok(passive);
    }
    step(connection, mode)
}

fn step(connection: &Connection, mode: Mode) -> Result<CheckpointOutcome> {
    let db = connection.raw();
    let (mut frames, mut backfilled): (c_int, c_int) = (-1, -1);
    // SAFETY: the connection is open and used by this thread alone; the two integers outlive
    // the call.
    let rc = unsafe {
        ffi::sqlite3_wal_checkpoint_v2(
            db,
            c"main".as_ptr(),
            mode.raw(),
            &mut frames,
            &mut backfilled,
        )
    };
    let count = |n: c_int| u32::try_from(n).unwrap_or(0);
    let (frames, backfilled) = (count(frames), count(backfilled));
    if rc == ffi::SQLITE_OK {
        return Ok(CheckpointOutcome { mode, busy: backfilled < frames, frames, backfilled });
    }
    let error = connection.last_error().at(connection.path());
    match error.class() {
        Class::Transient => Ok(CheckpointOutcome { mode, busy: true, frames, backfilled }),
        _ => Err(error),
    }
}
