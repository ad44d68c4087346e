//! The schema that entries are written to: the table's SQL, the statements prepared on it, when
//! the table is created, and the faults that prevent writing.
//!
//! All of it runs inside a write transaction, so that the schema cannot change between the check of
//! the schema and the rows. The table is created if no connection of this file's log has seen it
//! before, and one of these holds:
//!
//! * the database never had a schema;
//! * the option `create_table` is set, and the schema has no table or view of that name.
//!
//! A table that existed and is gone was dropped by a migration. A new table would block that
//! migration, so none is created.
//!
//! Runs on the thread that owns the connection.

use std::ffi::{CString, c_void};
use std::ptr;

use rusqlite::{OptionalExtension, ffi};

use super::batch::Statement;
use super::entry::Field;
use super::log::LogCore;
use crate::engine::{Connection, Error, Result, SQLITE_ERROR};

/// SQL that creates the table: Fusion's schema, without the reference to `tasks`.
pub const SCHEMA: &str = "\
CREATE TABLE IF NOT EXISTS agentLogEntries (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  taskId TEXT NOT NULL,
  timestamp TEXT NOT NULL,
  text TEXT NOT NULL,
  type TEXT NOT NULL,
  detail TEXT,
  agent TEXT
);
CREATE INDEX IF NOT EXISTS idxAgentLogEntriesTaskIdTimestamp ON agentLogEntries(taskId, timestamp);
CREATE INDEX IF NOT EXISTS idxAgentLogEntriesTaskIdType ON agentLogEntries(taskId, type);
";

/// Sets the counter under key `?1` to the time in milliseconds, or to its value plus one if that is
/// more. One statement, so that no other write comes between its read and its write.
pub const BUMP: &str = "INSERT INTO main.__meta (key, value) \
    VALUES (?1, CAST(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) AS TEXT)) \
    ON CONFLICT (key) DO UPDATE \
    SET value = CAST(max(CAST(value AS INTEGER) + 1, CAST(excluded.value AS INTEGER)) AS TEXT)";

pub(super) const TABLE: &str = "agentLogEntries";

/// The INSERT of an entry; parameters in the order of the fields, then of the additional columns.
pub(super) fn insert(connection: &Connection, shared: &LogCore) -> Result<Statement> {
    let sql = insert_sql(&shared.options.columns);
    let mut prepared = prepare(connection, &sql);
    if prepared.as_ref().is_err_and(is_schema_error) && may_make(connection, shared)? {
        make(connection, shared)?;
        prepared = prepare(connection, &sql);
    } else if prepared.is_ok() {
        shared.see_table();
    }
    prepared.map_err(|error| insert_fault(connection, shared, error))
}

/// Called after [`insert`]'s statement failed: checks that it can still be prepared.
///
/// # Errors
/// `ERR_FUSION_SCHEMA` if it cannot: the schema is at fault, not the row; SQLite's.
pub(super) fn check(connection: &Connection, shared: &LogCore) -> Result<()> {
    match prepare(connection, &insert_sql(&shared.options.columns)) {
        Ok(_) => Ok(()),
        Err(error) => Err(insert_fault(connection, shared, error)),
    }
}

/// Called after a NOT NULL constraint failed with `error`: checks that an entry can have a value
/// for each NOT NULL column without a default.
///
/// # Errors
/// `ERR_FUSION_SCHEMA` if it cannot: the schema is at fault, not the row; SQLite's.
pub(super) fn check_required(
    connection: &Connection,
    shared: &LogCore,
    error: &Error,
) -> Result<()> {
    let names = || {
        let mut select = connection.sql()?.prepare(
            // SQLite chooses the value of an INTEGER PRIMARY KEY.
            "SELECT name FROM pragma_table_info(?1, 'main') \
             WHERE \"notnull\" AND dflt_value IS NULL AND NOT (pk > 0 AND upper(type) = 'INTEGER')",
        )?;
        let names = select.query_map([TABLE], |row| row.get(0))?;
        names.collect::<rusqlite::Result<Vec<String>>>().map_err(Error::from)
    };
    let names = names().map_err(|error| error.at(connection.path()))?;
    let is_given = |name: &String| {
        let fields = Field::ALL.iter().map(|field| field.name());
        let further = shared.options.columns.iter().map(String::as_str);
        fields.chain(further).any(|given| given.eq_ignore_ascii_case(name))
    };
    match names.iter().find(|name| !is_given(name)) {
        None => Ok(()),
        Some(name) => Err(error.clone().explained(
            "ERR_FUSION_SCHEMA",
            &format!(
                "Log entries cannot be written to the table agentLogEntries as it is: its column \
                 {name} must not be NULL, has no default, and the option columns does not name it. \
                 They are kept, and written once that is changed."
            ),
        )),
    }
}

/// The statement that increases the change counter, if there is one.
pub(super) fn bump(connection: &Connection, shared: &LogCore) -> Result<Option<Statement>> {
    let Some(counter) = &shared.options.change_counter else {
        return Ok(None);
    };
    if !counter.required && !has_meta(connection)? {
        return Ok(None);
    }
    prepare(connection, BUMP).map(Some).map_err(counter_fault)
}

/// Whether the schema has a table `__meta`. This runs for each append to a database in memory:
/// preparing a statement that fails would cost ten times as much.
fn has_meta(connection: &Connection) -> Result<bool> {
    refresh(connection)?;
    let none: *mut c_void = ptr::null_mut();
    // SAFETY: the connection is open and used by this thread alone; the names are NUL-terminated;
    // the column name and the out-pointers may be null.
    let rc = unsafe {
        ffi::sqlite3_table_column_metadata(
            connection.raw(),
            c"main".as_ptr(),
            c"__meta".as_ptr(),
            ptr::null(),
            none.cast(),
            none.cast(),
            none.cast(),
            none.cast(),
            none.cast(),
        )
    };
    match rc {
        ffi::SQLITE_OK => Ok(true),
        ffi::SQLITE_ERROR => Ok(false),
        _ => Err(connection.last_error().at(connection.path())),
    }
}

/// Makes the connection read the file's current schema. Preparing a statement does not compare the
/// schema cookie with the file's, running one does.
fn refresh(connection: &Connection) -> Result<()> {
    if connection.file().is_none() {
        // No other connection can change the schema.
        return Ok(());
    }
    let sql = "SELECT 1 FROM main.sqlite_schema LIMIT 1";
    let read = connection.sql()?.query_row(sql, [], |_| Ok(())).optional();
    read.map(drop).map_err(|error| Error::from(error).at(connection.path()))
}

/// Explains an error of the change counter. It is no row's fault, and no row is written without
/// the counter.
pub(super) fn counter_fault(error: Error) -> Error {
    if !is_schema_error(&error) && error.errcode & 0xff != ffi::SQLITE_CONSTRAINT {
        return error;
    }
    error.explained(
        "ERR_FUSION_SCHEMA",
        "Log entries cannot be written, because the change counter in __meta (key, value) cannot \
         be increased. They are kept, and written once it can be; a database without such a \
         counter is opened with changeCounter: null.",
    )
}

/// The statement that reads the schema cookie.
pub(super) fn cookie(connection: &Connection) -> Result<Statement> {
    Statement::prepare(connection, c"PRAGMA main.schema_version")
}

/// Whether `error` is SQLITE_ERROR: an error in a statement or in the schema.
fn is_schema_error(error: &Error) -> bool {
    error.code == SQLITE_ERROR && error.errcode & 0xff == ffi::SQLITE_ERROR
}

fn prepare(connection: &Connection, sql: &str) -> Result<Statement> {
    let sql = CString::new(sql)
        .map_err(|_| Error::fusion("ERR_FUSION_SCHEMA", "the name of a column holds a NUL byte"))?;
    match Statement::prepare(connection, &sql) {
        Err(error) if is_schema_error(&error) => {
            refresh(connection)?;
            Statement::prepare(connection, &sql)
        }
        prepared => prepared,
    }
}

fn insert_sql(columns: &[String]) -> String {
    let mut names = "taskId, timestamp, text, type, detail, agent".to_owned();
    let mut values = "?1, ?2, ?3, ?4, ?5, ?6".to_owned();
    for (column, number) in columns.iter().zip(7..) {
        names.push_str(&format!(", {}", quoted(column)));
        values.push_str(&format!(", ?{number}"));
    }
    format!("INSERT INTO main.agentLogEntries ({names}) VALUES ({values})")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether `name` is a `table` or a `view` of the schema, or neither.
pub(super) fn kind_of(connection: &Connection, name: &str) -> Result<Option<String>> {
    let sql = "SELECT type FROM main.sqlite_schema \
               WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')";
    let found = connection.sql()?.query_row(sql, [name], |row| row.get(0)).optional();
    found.map_err(|error| Error::from(error).at(connection.path()))
}

/// Whether [`insert`]'s rows go to a view: then triggers decide which rows are stored.
pub(super) fn is_view(connection: &Connection) -> Result<bool> {
    Ok(kind_of(connection, TABLE)?.is_some_and(|kind| kind == "view"))
}

fn may_make(connection: &Connection, shared: &LogCore) -> Result<bool> {
    if shared.knows_table() || kind_of(connection, TABLE)?.is_some() {
        return Ok(false);
    }
    Ok(shared.options.create_table
        || (cookie(connection)?.number(connection)? == 0 && is_empty(connection)?))
}

fn is_empty(connection: &Connection) -> Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM main.sqlite_schema)";
    let found = connection.sql()?.query_row(sql, [], |row| row.get(0));
    found.map_err(|error| Error::from(error).at(connection.path()))
}

fn make(connection: &Connection, shared: &LogCore) -> Result<()> {
    let mut sql = SCHEMA.to_owned();
    for column in shared.options.columns.iter() {
        sql.push_str(&format!("ALTER TABLE agentLogEntries ADD COLUMN {};\n", quoted(column)));
    }
    let made = connection.sql()?.execute_batch(&sql);
    made.map_err(|error| insert_fault(connection, shared, Error::from(error).at(connection.path())))
}

/// Explains why an entry's INSERT could not be prepared, where the schema is the reason.
fn insert_fault(connection: &Connection, shared: &LogCore, error: Error) -> Error {
    if !is_schema_error(&error) {
        return error;
    }
    let lead = match kind_of(connection, TABLE) {
        Err(error) => return error,
        Ok(None) => {
            "Log entries cannot be written, because there is no table agentLogEntries. They are \
             kept, and written once it is there: create it (AGENT_LOG_SCHEMA is its SQL), or open \
             the database with createTable: true."
                .to_owned()
        }
        Ok(Some(kind)) => {
            shared.see_table();
            let triggers = triggers(connection);
            let among = if triggers.is_empty() {
                String::new()
            } else {
                format!(" and its triggers ({})", triggers.join(", "))
            };
            format!(
                "Log entries cannot be written to the {kind} agentLogEntries as it{among} is. They \
                 are kept, and written once that is changed."
            )
        }
    };
    error.explained("ERR_FUSION_SCHEMA", &lead)
}

fn triggers(connection: &Connection) -> Vec<String> {
    let names = || {
        let mut select = connection.sql().ok()?.prepare(
            "SELECT name FROM main.sqlite_schema \
             WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
        );
        let rows = select.as_mut().ok()?.query_map([TABLE], |row| row.get(0)).ok()?;
        rows.collect::<rusqlite::Result<_>>().ok()
    };
    names().unwrap_or_default()
}
