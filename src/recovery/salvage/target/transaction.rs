//! Transactions and savepoints of the new file: a failure is rolled back.

use crate::engine::{Connection, Result};

/// Runs `work` in a savepoint of the current transaction.
///
/// # Errors
/// `work`'s; SQLite's.
pub(super) fn in_savepoint<R>(
    connection: &Connection,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let sql = connection.sql()?;
    sql.execute_batch("SAVEPOINT work")?;
    let outcome = work();
    if outcome.is_err() {
        sql.execute_batch("ROLLBACK TO work")?;
    }
    sql.execute_batch("RELEASE work")?;
    outcome
}

/// Runs `work` in a transaction of its own.
///
/// # Errors
/// `work`'s; SQLite's.
pub(super) fn atomically<R>(
    connection: &Connection,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let sql = connection.sql()?;
    sql.execute_batch("BEGIN IMMEDIATE")?;
    match work() {
        Ok(done) => {
            sql.execute_batch("COMMIT")?;
            Ok(done)
        }
        Err(error) => {
            if !connection.is_autocommit() {
                sql.execute_batch("ROLLBACK")?;
            }
            Err(error)
        }
    }
}
