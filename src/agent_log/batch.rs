//! One transaction's worth of rows on one connection.
//!
//! The statements are prepared once. Values are bound in place, from the arena. The caller opens
//! and commits the transaction: the writer its own, a JavaScript thread the one it has open.
//!
//! If the outcome of an earlier COMMIT is unknown, its rows are looked up first, under the write
//! lock, so that no row is written twice: see [`Statements::write`].
//!
//! If SQLite refuses a row, only that row is rejected: its statement is rolled back, and the
//! transaction goes on. A trigger's `RAISE(ROLLBACK)` ends the whole transaction, and its
//! `RAISE(FAIL)` leaves the refused row in the table; in both cases the caller begins a new
//! transaction and writes the batch again without the rows that were refused.
//!
//! A row is rejected only for its own values, never for a fault of the schema:
//!
//! | `sqlite3_step` returns | cause |
//! |---|---|
//! | CONSTRAINT*, TOOBIG, MISMATCH | the row's fault |
//! | DONE without an inserted row: `RAISE(IGNORE)`, `ON CONFLICT IGNORE` | the row's fault |
//! | ERROR, and the INSERT can be prepared: an expression fails for the values | the row's fault |
//! | ERROR, and the INSERT cannot be prepared | the schema's fault: the batch is kept |
//! | CONSTRAINT_NOTNULL of a column that no entry has a value for | the schema's fault |
//! | any error of the change counter's statement | no row's fault: the batch is kept |

use std::ffi::{CStr, c_int};
use std::ptr;

use rusqlite::ffi;

use super::entry::{Entry, Value};
use super::log::LogCore;
use super::queue::{Batch, RowOutcome, UncertainCommit, commit_unknown};
use super::table;
use crate::engine::{Class, Connection, Error, Result, errstr};

/// A prepared statement.
pub(super) struct Statement(*mut ffi::sqlite3_stmt);

/// The statements of appending, prepared on one connection.
///
/// They do not borrow the connection, because the writer keeps both in one struct; the order of
/// that struct's fields drops the statements before the connection.
pub(super) struct Statements {
    insert: Statement,
    bump: Option<Statement>,
}

/// How writing a batch ended, short of an error.
pub(super) enum Written {
    /// Every row of the batch has an outcome; the transaction is open.
    All,
    /// A refused row ended the transaction: begin a new one and pass the same outcomes.
    TransactionEnded,
    /// A refused row is in the table: roll back, begin again and pass the same outcomes.
    LeftBehind,
}

/// Outcomes by row; `None` for a row without one yet.
pub(super) type Outcomes = Vec<Option<RowOutcome>>;

impl Statement {
    pub fn prepare(connection: &Connection, sql: &CStr) -> Result<Self> {
        let mut statement = ptr::null_mut();
        // SAFETY: the connection is open and used by this thread alone; `sql` is
        // NUL-terminated; the out-pointer is valid.
        let rc = unsafe {
            ffi::sqlite3_prepare_v3(
                connection.raw(),
                sql.as_ptr(),
                -1,
                ffi::SQLITE_PREPARE_PERSISTENT as _,
                &mut statement,
                ptr::null_mut(),
            )
        };
        if rc == ffi::SQLITE_OK {
            return Ok(Self(statement));
        }
        Err(connection.last_error().at(connection.path()))
    }

    /// Runs to the end and resets; the values bound must still be alive.
    fn run(&self, connection: &Connection) -> Result<()> {
        // SAFETY: the statement belongs to `connection`, which is open; the caller keeps the
        // bound values alive until this returns.
        unsafe {
            let mut rc = ffi::sqlite3_step(self.0);
            while rc == ffi::SQLITE_ROW {
                rc = ffi::sqlite3_step(self.0);
            }
            let error = (rc != ffi::SQLITE_DONE).then(|| connection.last_error());
            ffi::sqlite3_reset(self.0);
            error.map_or(Ok(()), |error| Err(error.at(connection.path())))
        }
    }

    /// The number in the single row of the result.
    pub fn number(&self, connection: &Connection) -> Result<i64> {
        // SAFETY: as in `run`; nothing is bound.
        unsafe {
            let answer = match ffi::sqlite3_step(self.0) {
                ffi::SQLITE_ROW => Ok(ffi::sqlite3_column_int64(self.0, 0)),
                _ => Err(connection.last_error().at(connection.path())),
            };
            ffi::sqlite3_reset(self.0);
            answer
        }
    }

    /// # Safety
    /// The value's text stays alive and unchanged until the statement is reset or bound again.
    unsafe fn bind_value(&self, parameter: c_int, value: Value<'_>) -> c_int {
        // SAFETY: the statement is alive; the text by the caller.
        unsafe {
            match value {
                Value::Null => self.bind(parameter, None),
                Value::Text(text) => self.bind(parameter, Some(text)),
                Value::Integer(value) => ffi::sqlite3_bind_int64(self.0, parameter, value),
                Value::Real(value) => ffi::sqlite3_bind_double(self.0, parameter, value),
            }
        }
    }

    /// # Safety
    /// `value` stays alive and unchanged until the statement is reset or bound again.
    unsafe fn bind(&self, parameter: c_int, value: Option<&[u8]>) -> c_int {
        // SAFETY: the statement is alive; the pointer is valid for the length given, and stays
        // so until the next reset by the caller's promise (SQLITE_STATIC). Text is taken by
        // length, so NUL bytes inside it are kept.
        unsafe {
            match value {
                Some(value) => ffi::sqlite3_bind_text64(
                    self.0,
                    parameter,
                    value.as_ptr().cast(),
                    value.len() as u64,
                    ffi::SQLITE_STATIC(),
                    ffi::SQLITE_UTF8 as u8,
                ),
                None => ffi::sqlite3_bind_null(self.0, parameter),
            }
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: finalised once, here; the connection outlives its statements (see
        // `Statements`).
        unsafe { ffi::sqlite3_finalize(self.0) };
    }
}

impl Statements {
    /// Prepares the statements in the write transaction that is open on `connection`, and creates
    /// the table where [`table`] requires it.
    ///
    /// # Errors
    /// `ERR_FUSION_SCHEMA`; SQLite's.
    pub fn prepare(connection: &Connection, shared: &LogCore) -> Result<Self> {
        let insert = table::insert(connection, shared)?;
        Ok(Self { insert, bump: table::bump(connection, shared)? })
    }

    /// Inserts the rows of `batch` that have no outcome yet, within the transaction that is open
    /// on `connection`, and bumps the change counter if any row was inserted.
    ///
    /// Rows of a COMMIT whose outcome is unknown are not inserted again if the table has them.
    ///
    /// # Errors
    /// `ERR_FUSION_COMMIT_UNKNOWN`, `ERR_FUSION_SCHEMA`; each error that is not a single row's
    /// fault. The caller rolls back.
    pub fn write(
        &self,
        connection: &Connection,
        shared: &LogCore,
        batch: &Batch,
        outcomes: &mut Outcomes,
    ) -> Result<Written> {
        let db = connection.raw();
        let committed = match &batch.unknown {
            Some(unknown) if was_committed(connection, batch, unknown)? => {
                outcomes.clone_from(&unknown.outcomes.iter().cloned().map(Some).collect());
                unknown.outcomes.len()
            }
            _ => 0,
        };
        let (mut row, mut bytes, mut inserted) = (0, 0, false);
        'batch: for chunk in &batch.chunks {
            let mut position = chunk.position;
            while let Some((entry, next)) = chunk.entries.at(position) {
                if row == batch.limit_rows || bytes >= batch.limit_bytes {
                    break 'batch;
                }
                bytes += chunk.entries.bytes_from(position) - chunk.entries.bytes_from(next);
                position = next;
                if row == outcomes.len() {
                    outcomes.push(None);
                }
                let Some(outcome) = outcomes.get_mut(row) else {
                    break 'batch;
                };
                row += 1;
                if row <= committed || matches!(outcome, Some(RowOutcome::Rejected(_))) {
                    continue;
                }
                let result = self.insert_row(connection, shared, &entry);
                // After RAISE(FAIL) in a trigger that fires after the INSERT.
                let left_behind = result.is_err() && changes(connection) > 0;
                match result {
                    Ok(()) => {
                        inserted = true;
                        // SAFETY: the connection is open and used by this thread alone.
                        *outcome = Some(RowOutcome::Inserted(unsafe {
                            ffi::sqlite3_last_insert_rowid(db)
                        }));
                    }
                    Err(error) if is_rows_fault(connection, shared, &error)? => {
                        *outcome = Some(RowOutcome::Rejected(error));
                        if connection.is_autocommit() {
                            return Ok(Written::TransactionEnded);
                        }
                        if left_behind {
                            return Ok(Written::LeftBehind);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if inserted && let Some(key) = shared.options.change_counter.as_ref() {
            self.bump(connection, &key.key).map_err(table::counter_fault)?;
        }
        Ok(Written::All)
    }

    fn insert_row(
        &self,
        connection: &Connection,
        shared: &LogCore,
        entry: &Entry<'_>,
    ) -> Result<()> {
        let mut more = entry.more;
        let fields = entry.values.iter().map(|value| value.map_or(Value::Null, Value::Text));
        let further = shared.options.columns.iter().map(|_| more.next().unwrap_or(Value::Null));
        for (parameter, value) in (1..).zip(fields.chain(further)) {
            // SAFETY: `entry` outlives the run below, which resets the statement; the next run
            // binds every parameter again.
            let rc = unsafe { self.insert.bind_value(parameter, value) };
            if rc != ffi::SQLITE_OK {
                return Err(Error::sqlite(rc, "a value of the log entry is too large for SQLite"));
            }
        }
        self.insert.run(connection)?;
        if changes(connection) == 0 && !table::is_view(connection)? {
            return Err(Error::sqlite(
                ffi::SQLITE_CONSTRAINT_TRIGGER,
                "agentLogEntries ignored the row: a trigger by RAISE(IGNORE), or a constraint by \
                 ON CONFLICT IGNORE",
            )
            .at(connection.path()));
        }
        Ok(())
    }

    fn bump(&self, connection: &Connection, key: &str) -> Result<()> {
        let Some(statement) = &self.bump else {
            return Ok(());
        };
        // SAFETY: the key outlives the run below.
        let rc = unsafe { statement.bind(1, Some(key.as_bytes())) };
        if rc != ffi::SQLITE_OK {
            return Err(Error::sqlite(rc, errstr(rc)));
        }
        statement.run(connection)
    }
}

/// Rows that the last statement inserted and did not roll back.
fn changes(connection: &Connection) -> i64 {
    // SAFETY: the connection is open and used by this thread alone.
    unsafe { ffi::sqlite3_changes64(connection.raw()) }
}

/// Whether `error`, of the INSERT, is the row's fault: see the module's table.
///
/// # Errors
/// `ERR_FUSION_SCHEMA` where the schema is at fault.
fn is_rows_fault(connection: &Connection, shared: &LogCore, error: &Error) -> Result<bool> {
    if error.errcode & 0xff == ffi::SQLITE_ERROR {
        table::check(connection, shared)?;
        return Ok(true);
    }
    if error.errcode == ffi::SQLITE_CONSTRAINT_NOTNULL {
        table::check_required(connection, shared, error)?;
    }
    Ok(error.class() == Class::Row)
}

/// What the table has under the id that a row was given.
#[derive(PartialEq, Eq)]
enum Found {
    Itself,
    Another,
    Nothing,
}

/// Whether the transaction of `unknown` was committed, judged by the rows of `batch` that it
/// wrote. The caller holds the write lock, so that the answer stays true.
///
/// * The table has a row with its id and its values: yes. A transaction is committed as a whole,
///   so its missing rows were deleted since.
/// * The ids belong to other rows: no. Ids are given under the write lock.
/// * The table has no row with these ids, and every id that was ever used is lower: no. The
///   highest used id is the one in `sqlite_sequence`, or `max(rowid)` without AUTOINCREMENT.
///
/// # Errors
/// `ERR_FUSION_COMMIT_UNKNOWN` in every other case; SQLite's.
fn was_committed(
    connection: &Connection,
    batch: &Batch,
    unknown: &UncertainCommit,
) -> Result<bool> {
    let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
    let sql = connection.sql()?;
    let select = sql
        .prepare(
            "SELECT taskId, timestamp, text, type, detail, agent FROM main.agentLogEntries \
             WHERE rowid = ?1",
        )
        .map_err(at);
    let mut select = match select {
        // The INSERT can be prepared, the SELECT cannot: the table has no rowids to look up.
        Err(error) if error.errcode == ffi::SQLITE_ERROR => {
            return Err(commit_unknown(&unknown.error));
        }
        select => select?,
    };
    let (mut itself, mut another, mut first_id) = (0, 0, None);
    let mut outcomes = unknown.outcomes.iter();
    for chunk in &batch.chunks {
        let mut position = chunk.position;
        while let Some((entry, next)) = chunk.entries.at(position) {
            let Some(outcome) = outcomes.next() else {
                break;
            };
            position = next;
            let RowOutcome::Inserted(id) = outcome else {
                continue;
            };
            first_id = Some(first_id.map_or(*id, |first: i64| first.min(*id)));
            let mut rows = select.query([id]).map_err(at)?;
            let found = match rows.next().map_err(at)? {
                None => Found::Nothing,
                Some(row) => {
                    let mut same = true;
                    for (column, value) in entry.values.iter().enumerate() {
                        let stored = row.get_ref(column).map_err(at)?.as_bytes_or_null();
                        same &= stored.is_ok_and(|stored| stored == *value);
                    }
                    if same { Found::Itself } else { Found::Another }
                }
            };
            itself += usize::from(found == Found::Itself);
            another += usize::from(found == Found::Another);
        }
    }
    let Some(first_id) = first_id else {
        // Every row was rejected: there was nothing to commit.
        return Ok(false);
    };
    match (itself, another) {
        (0, 0) => {
            let number = |query: &str| sql.query_row(query, [], |row| row.get::<_, Option<i64>>(0));
            let sequence =
                number("SELECT max(seq) FROM main.sqlite_sequence WHERE name = 'agentLogEntries'");
            let last_used = match sequence {
                Ok(Some(last_used)) => Some(last_used),
                // No row was ever inserted, or the table has no AUTOINCREMENT.
                Ok(None) => number("SELECT max(rowid) FROM main.agentLogEntries").map_err(at)?,
                Err(error) => {
                    let error = at(error);
                    if error.errcode != ffi::SQLITE_ERROR {
                        return Err(error);
                    }
                    // Nothing in this database has AUTOINCREMENT.
                    number("SELECT max(rowid) FROM main.agentLogEntries").map_err(at)?
                }
            };
            if last_used.is_none_or(|last_used| last_used < first_id) {
                Ok(false)
            } else {
                Err(commit_unknown(&unknown.error))
            }
        }
        (0, _) => Ok(false),
        (_, 0) => Ok(true),
        _ => Err(commit_unknown(&unknown.error)),
    }
}

/// The outcomes of a batch whose every row has one.
pub(super) fn complete(outcomes: Outcomes) -> Vec<RowOutcome> {
    outcomes.into_iter().flatten().collect()
}
