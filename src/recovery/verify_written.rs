//! The end of an operation that wrote to a database in use: it verifies what it wrote, and only
//! then runs a checkpoint.

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use crate::engine::{Connection, Error, Progress, Result, Stage};
use crate::health::{self, CheckKind, Health};

/// A connection to the database at `path` that runs no checkpoint, neither automatically nor when
/// it is closed.
///
/// # Errors
/// SQLite's.
pub(super) fn watcher(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    connection.sql()?.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    Ok(connection)
}

/// Checks what was written. It does not join a check that another caller has started: that one may
/// have read the content from before the write. `task` gets the progress, but cannot cancel any
/// more. If another connection has the file locked nothing is checked, and the health says so.
///
/// # Errors
/// `SQLITE_CORRUPT` with the message `failed` unless the health `passes`. The file is then marked
/// as suspect, so that the next checkpoint verifies it first.
pub(super) fn verify_written(
    connection: &Connection,
    kind: CheckKind,
    passes: impl Fn(&Health) -> bool,
    failed: impl FnOnce() -> String,
    task: &dyn Progress,
) -> Result<Health> {
    let health = health::inspect(connection, kind, &Committed(task))?;
    if health.is_locked() {
        return Ok(health);
    }
    let passed = passes(&health);
    if let Some(file) = connection.file() {
        if passed {
            // The write has replaced the content that was suspect.
            file.take_unverified();
        } else {
            file.suspect();
        }
    }
    if passed {
        Ok(health)
    } else {
        Err(Error::sqlite(ffi::SQLITE_CORRUPT, failed()).at(connection.path()))
    }
}

/// Runs a checkpoint after the check has passed. If readers block it, a later checkpoint does the
/// work.
///
/// # Errors
/// `ERR_INVALID_STATE` once the connection is closed.
pub(super) fn checkpoint(connection: &Connection) -> Result<()> {
    drop(connection.sql()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    connection.checkpoint_on_close(true);
    Ok(())
}

/// The task of an operation that has committed: it forwards progress and ignores cancellation.
struct Committed<'a>(&'a dyn Progress);

impl Progress for Committed<'_> {
    fn stage(&self, stage: Stage) {
        self.0.stage(stage);
    }

    fn check_cancelled(&self) -> Result<()> {
        Ok(())
    }
}
