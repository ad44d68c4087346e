//! Creates the tables of the new database by their own statements, empty, in the schema's order.
//!
//! Tables whose names CREATE TABLE refuses (`sqlite_sequence`, `sqlite_stat1`, …) are filled under
//! a temporary name, and renamed at the end. Virtual tables are created at the end, too: until then
//! their shadow tables are ordinary tables.

use std::collections::HashMap;

use rusqlite::ffi;

use super::fill::Fill;
use super::module::OwnTables;
use super::shadow;
use super::shape::{self, Shape};
use super::statement::{Encoding, quoted};
use super::transaction::in_savepoint;
use crate::engine::stub_functions::{self, StubResult};
use crate::engine::{Connection, Error, Result};
use crate::format::sql::{self, Makes};
use crate::recovery::neutral;
use crate::recovery::salvage::SchemaEntry;

/// Statements that fail up to which virtual tables are asked for theirs.
const MOST_ASKED: usize = 100;

/// What becomes of a table once it is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// It is what it shall be.
    Nothing,
    /// Its rows go into `sqlite_sequence`, and it is dropped.
    Sequence,
    /// It gets its entry's name and this statement: it was filled under another name, or with
    /// another column name.
    Renamed(String),
    /// It is not there: only the application knows how it is sorted. It takes no row.
    LeftOut,
    /// As [`Self::Renamed`], with the indexes that its constraints make: it was filled under a
    /// neutral declaration, because only the application can compute what its own one asks for.
    Neutral {
        /// Its own text.
        statement: String,
        /// The names of those indexes, and the names that they have for now.
        automatic: Vec<(String, String)>,
    },
}

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) fill: Fill,
    pub(super) entry: SchemaEntry,
    pub(super) afterwards: Afterwards,
    /// Its rows are carried over by SQLite.
    pub(super) carried: bool,
}

/// The tables, and what is left of the schema.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) tables: Vec<Table>,
    pub(super) shapes: Vec<Shape>,
    pub(super) errors: Vec<String>,
}

/// Makes the tables of `schema`. Statements that fail are in [`Made::errors`].
///
/// # Errors
/// Those of writing the file.
pub(super) fn make_tables(
    connection: &Connection,
    encoding: Encoding,
    schema: &[SchemaEntry],
) -> Result<Made> {
    let scratch = Connection::open(
        std::path::Path::new(":memory:"),
        rusqlite::OpenFlags::default(),
        std::time::Duration::ZERO,
    )?;
    scratch.sql()?.execute_batch(&format!("PRAGMA encoding = '{}'", encoding.name()))?;
    let own_tables = OwnTables::of(schema);
    let mut made = Made::default();
    for entry in schema.iter().filter(|entry| entry.kind == "table") {
        if entry.sql.as_deref().and_then(sql::makes) == Some(Makes::VirtualTable) {
            continue;
        }
        let make = |entry: &SchemaEntry| {
            in_savepoint(connection, || {
                make_table(connection, &scratch, encoding, schema, &made.tables, entry)
            })
        };
        let outcome = match make(entry) {
            Err(error) if is_of_statement(&error) => {
                let statement = if made.errors.len() < MOST_ASKED {
                    shadow::statement(schema, &entry.name)
                } else {
                    None
                };
                match statement {
                    Some(sql) => make(&SchemaEntry { sql: Some(sql), ..entry.clone() }),
                    None => Err(error),
                }
            }
            outcome => outcome,
        };
        match outcome {
            Ok((table, mut shape)) => {
                // SQLite and its modules write all columns, and never add any.
                if own_tables.contain(&entry.name) || table.afterwards == Afterwards::Sequence {
                    shape.least_fields = shape.fields.len();
                }
                if table.afterwards == Afterwards::LeftOut {
                    made.errors.push(format!(
                        "table {}: only the application knows how it is sorted; it is left out, \
                         and its rows are in lost_and_found: {}",
                        entry.name,
                        entry.sql.as_deref().unwrap_or_default()
                    ));
                }
                made.tables.push(table);
                made.shapes.push(shape);
            }
            Err(error) if is_of_statement(&error) => {
                made.errors.push(format!("table {}: {}", entry.name, error.message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

fn make_table(
    connection: &Connection,
    scratch: &Connection,
    encoding: Encoding,
    schema: &[SchemaEntry],
    earlier: &[Table],
    entry: &SchemaEntry,
) -> Result<(Table, Shape)> {
    let is = |name: &str| entry.name.eq_ignore_ascii_case(name);
    let stand_in = neutral::columns_of_internal(&entry.name);
    let sql = connection.sql()?;
    let mut needs_application = false;
    let (mut name, mut afterwards) = match stand_in {
        Some(columns) => {
            let name = free_name(schema, earlier);
            let quoted = quoted(&name);
            let afterwards = if is("sqlite_sequence") {
                // Only a table with AUTOINCREMENT makes sqlite_sequence.
                sql.execute_batch(&format!(
                    "CREATE TABLE {quoted}(id INTEGER PRIMARY KEY AUTOINCREMENT);
                     DROP TABLE {quoted}"
                ))?;
                Afterwards::Sequence
            } else {
                // SQLite's own text, whatever is left of the file's.
                Afterwards::Renamed(format!(
                    "CREATE TABLE {}({columns})",
                    entry.name.to_ascii_lowercase()
                ))
            };
            sql.execute(&format!("CREATE TABLE {quoted}({columns})"), [])?;
            (name, afterwards)
        }
        None => {
            let make = || run(connection, entry, &[Makes::Table]);
            match (make(), entry.sql.as_deref()) {
                (Err(error), Some(statement)) if error.errcode & 0xff == ffi::SQLITE_ERROR => {
                    // It may name what only the application knows.
                    stub_functions::with_stubs(connection, statement, StubResult::Error, make)?;
                    needs_application = true;
                }
                (outcome, _) => outcome?,
            }
            (entry.name.clone(), Afterwards::Nothing)
        }
    };
    let mut table = shape::describe(connection, scratch, encoding, &name)?;
    let names: Vec<String> = table.fields.iter().map(|field| field.name.clone()).collect();
    if table.rowid.is_none() && !table.without_rowid {
        // All names of the rowid are columns' names: for a while one column has another name.
        // ALTER TABLE refuses to rename such a column.
        let taken = |name: &str| table.columns.iter().any(|it| it.eq_ignore_ascii_case(name));
        let free = (0_u64..)
            .map(|number| format!("salvaged_{number}"))
            .find(|name| !taken(name))
            .unwrap_or_default();
        let statement: String = sql.query_row(
            "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1",
            [&name],
            |row| row.get(0),
        )?;
        writable(connection, || {
            sql.execute(
                "UPDATE main.sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1",
                [&name, &sql::with_another_name(&statement, "oid", &free)],
            )?;
            Ok(())
        })?;
        table = shape::describe(connection, scratch, encoding, &name)?;
        afterwards = Afterwards::Renamed(statement);
    }
    let mut fields = table.fields.clone();
    for (field, name) in fields.iter_mut().zip(names) {
        field.name = name;
    }
    let shape = Shape {
        table: entry.name.clone(),
        root: entry.root,
        without_rowid: table.without_rowid,
        fields,
        least_fields: table.least_fields,
        key_fields: table.key_fields,
        descending: table.descending.clone(),
    };
    if needs_application {
        let twin = free_name(schema, earlier);
        let automatic = make_neutral(connection, encoding, schema, entry, &twin)?;
        table = table.neutral();
        let statement = entry.sql.clone().unwrap_or_default();
        afterwards = match automatic {
            Some(automatic) => Afterwards::Neutral { statement, automatic },
            None => Afterwards::LeftOut,
        };
        name = twin;
    }
    let fill = Fill::new(name, table, encoding);
    Ok((Table { fill, entry: entry.clone(), afterwards, carried: false }, shape))
}

/// Makes the table of `entry`, which is there under its own declaration, again as `twin` under a
/// neutral one; returns the names of the indexes that its constraints make. None: only the
/// application knows the order of such an index or of the table, and it is not made.
///
/// # Errors
/// SQLite's.
fn make_neutral(
    connection: &Connection,
    encoding: Encoding,
    schema: &[SchemaEntry],
    entry: &SchemaEntry,
    twin: &str,
) -> Result<Option<Vec<(String, String)>>> {
    let sql = connection.sql()?;
    sql.execute(&format!("DROP TABLE main.{}", quoted(&entry.name)), [])?;
    let Ok(table) = neutral::describe_one(schema, entry, encoding) else { return Ok(None) };
    let of = |index: usize| schema.get(index).filter(|index| index.sql.is_none());
    let own = table.indexes.iter().filter_map(|index| Some((index, of(index.entry)?)));
    if !table.order_is_known() || own.clone().any(|(index, _)| !index.order_is_known()) {
        return Ok(None);
    }
    sql.execute(&table.declaration(&format!("main.{}", quoted(twin))), [])?;
    let mut made = Vec::new();
    for (index, of) in own {
        let for_now = format!("{twin}_{}", made.len());
        let name = format!("main.{}", quoted(&for_now));
        if let Some(make) = index.as_index(&name, &quoted(twin)) {
            sql.execute(&make, [])?;
            made.push((of.name.clone(), for_now));
        }
    }
    Ok(Some(made))
}

/// Carries out an entry's statement, which has to make one of `kinds` and nothing else: a damaged
/// file's text may say anything.
///
/// # Errors
/// SQLite's; `SQLITE_ERROR` if it is another statement.
pub(super) fn run(connection: &Connection, entry: &SchemaEntry, kinds: &[Makes]) -> Result<()> {
    let other = || Error::sqlite(ffi::SQLITE_ERROR, format!("no statement for a {}", entry.kind));
    let text = entry.sql.as_deref().ok_or_else(other)?;
    if !sql::makes(text).is_some_and(|makes| kinds.contains(&makes)) {
        return Err(other());
    }
    let sql = connection.sql()?;
    sql.execute_batch("SAVEPOINT statement")?;
    let done = sql.execute(text, []).and_then(|_| {
        let named = "SELECT count(*) FROM main.sqlite_schema WHERE type = ?1 AND name = ?2";
        sql.query_row(named, [&entry.kind, &entry.name], |row| row.get::<_, i64>(0))
    });
    let outcome = match done {
        Ok(1) => Ok(()),
        Ok(_) => Err(Error::sqlite(ffi::SQLITE_ERROR, "the statement is another's")),
        Err(error) => Err(error.into()),
    };
    if outcome.is_err() {
        sql.execute_batch("ROLLBACK TO statement")?;
    }
    sql.execute_batch("RELEASE statement")?;
    outcome
}

/// Gives tables their own names and statements that were filled under others.
///
/// # Errors
/// Those of writing the file.
pub(super) fn rename(connection: &Connection, tables: &[Table]) -> Result<()> {
    let sql = connection.sql()?;
    writable(connection, || {
        for table in tables {
            let (statement, automatic) = match &table.afterwards {
                Afterwards::Renamed(statement) => (statement, &[][..]),
                Afterwards::Neutral { statement, automatic } => (statement, automatic.as_slice()),
                Afterwards::Nothing | Afterwards::Sequence | Afterwards::LeftOut => continue,
            };
            for (name, for_now) in automatic {
                sql.execute(
                    "UPDATE main.sqlite_schema SET name = ?2, tbl_name = ?3, sql = NULL
                      WHERE type = 'index' AND name = ?1",
                    [for_now, name, &table.entry.name],
                )?;
            }
            sql.execute(
                "UPDATE main.sqlite_schema SET name = ?2, tbl_name = ?2, sql = ?3
                  WHERE type = 'table' AND name = ?1",
                [&table.fill.name, &table.entry.name, statement],
            )?;
        }
        Ok(())
    })
}

/// Creates the views and triggers. Returns an error text for each statement that failed. No trigger
/// fires: triggers are off on this connection.
///
/// # Errors
/// Those of writing the file.
pub(super) fn make_views_and_triggers(
    connection: &Connection,
    schema: &[SchemaEntry],
) -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for (kind, makes) in [("view", Makes::View), ("trigger", Makes::Trigger)] {
        for entry in schema.iter().filter(|entry| entry.kind == kind) {
            match run(connection, entry, &[makes]) {
                Err(error) if is_of_statement(&error) => {
                    errors.push(format!("{kind} {}: {}", entry.name, error.message));
                }
                outcome => outcome?,
            }
        }
    }
    Ok(errors)
}

/// Gives the objects the order that they have in `schema`; what is not in it comes last.
///
/// # Errors
/// Those of writing the file.
pub(super) fn put_in_order(connection: &Connection, schema: &[SchemaEntry]) -> Result<()> {
    let mut places: HashMap<(&str, String), usize> = HashMap::new();
    for (place, entry) in schema.iter().enumerate() {
        places.entry((&entry.kind, entry.name.to_ascii_lowercase())).or_insert(place);
    }
    let place = |kind: &str, name: &str| {
        places.get(&(kind, name.to_ascii_lowercase())).copied().unwrap_or(usize::MAX)
    };
    let sql = connection.sql()?;
    let mut objects =
        sql.prepare("SELECT rowid, type, name, tbl_name FROM main.sqlite_schema ORDER BY rowid")?;
    let objects = objects.query_map([], |row| {
        let (kind, name, of): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let own = place(&kind, &name);
        // SQLite reads no index or trigger that comes before its table.
        let depends = matches!(kind.as_str(), "index" | "trigger");
        let table = || place("table", &of).min(place("view", &of));
        let first = if depends { own.max(table()) } else { own };
        Ok(((first, depends, own), row.get::<_, i64>(0)?))
    })?;
    let mut objects: Vec<_> = objects.collect::<std::result::Result<_, _>>()?;
    if objects.is_sorted() {
        return Ok(());
    }
    let beyond = objects.last().map_or(0, |(_, rowid)| *rowid);
    objects.sort_unstable();
    writable(connection, || {
        let mut update =
            sql.prepare("UPDATE main.sqlite_schema SET rowid = ?2 WHERE rowid = ?1")?;
        for (place, (_, rowid)) in (1..).zip(&objects) {
            update.execute([*rowid, beyond + place])?;
        }
        for place in (1..).take(objects.len()) {
            update.execute([beyond + place, place])?;
        }
        Ok(())
    })
}

/// Runs `change`, which may write to `sqlite_schema`. SQLite reads the schema again afterwards.
///
/// # Errors
/// `change`'s; SQLite's.
pub(super) fn writable(connection: &Connection, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let sql = connection.sql()?;
    sql.execute_batch("PRAGMA writable_schema = ON")?;
    let changed = change();
    sql.execute_batch("PRAGMA writable_schema = RESET")?;
    changed
}

/// Whether an error is caused by the statement, and not by the file or the system.
pub(super) fn is_of_statement(error: &Error) -> bool {
    matches!(
        error.errcode & 0xff,
        ffi::SQLITE_ERROR
            | ffi::SQLITE_CONSTRAINT
            | ffi::SQLITE_TOOBIG
            | ffi::SQLITE_MISMATCH
            | ffi::SQLITE_AUTH
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_RANGE
    )
}

/// A name that neither the schema nor an earlier temporary table has.
fn free_name(schema: &[SchemaEntry], earlier: &[Table]) -> String {
    let taken = |name: &String| {
        schema.iter().any(|entry| entry.name.eq_ignore_ascii_case(name))
            || earlier.iter().any(|table| table.fill.name == *name)
    };
    (0_u64..)
        .map(|number| format!("salvaged_{number}"))
        .find(|name| !taken(name))
        .unwrap_or_default()
}
