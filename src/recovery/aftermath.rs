//! The end of an operation that has written to a database in use: a look at what it wrote, and
//! only then a checkpoint.

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use crate::engine::{Connection, Error, Result, Stage, Task};
use crate::health::{self, Health, Kind};

/// A connection to the database at `path` that checkpoints nothing, neither by itself nor when it
/// is closed.
///
/// # Errors
/// SQLite's.
pub(super) fn watcher(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    connection.sql()?.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    Ok(connection)
}

/// Checks what was written. The check is one of its own: one that is under way for somebody else
/// looks at what was there before. `task` is told how far it is, but cannot end it any more. Where
/// another connection has the file locked nothing is found, and nothing is known.
///
/// # Errors
/// `SQLITE_CORRUPT` with the message `failed` unless it `passes`; the file is then suspect.
pub(super) fn look(
    connection: &Connection,
    kind: Kind,
    passes: impl Fn(&Health) -> bool,
    failed: impl FnOnce() -> String,
    task: &dyn Task,
) -> Result<Health> {
    let health = health::inspect(connection, kind, &Committed(task))?;
    if health.is_locked() {
        return Ok(health);
    }
    let passed = passes(&health);
    if let Some(file) = connection.file() {
        if passed {
            // Whatever was doubted is not there any more.
            file.take_suspicion();
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

/// Checkpoints what passed. A checkpoint that readers prevent is left to the next one.
///
/// # Errors
/// `ERR_INVALID_STATE` once the connection is closed.
pub(super) fn checkpoint(connection: &Connection) -> Result<()> {
    drop(connection.sql()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    connection.checkpoint_on_close(true);
    Ok(())
}

/// The rest of an operation that cannot be undone any more: whoever cancels now comes too late.
struct Committed<'a>(&'a dyn Task);

impl Task for Committed<'_> {
    fn stage(&self, stage: Stage) {
        self.0.stage(stage);
    }

    fn go_on(&self) -> Result<()> {
        Ok(())
    }
}
