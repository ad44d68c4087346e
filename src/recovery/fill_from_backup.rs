//! Fills the gaps of a salvage with rows of a backup.
//!
//! A row is taken from the backup only if the salvage found no row with its rowid, and
//!
//! - an index of the damaged file names that rowid, or
//! - no intact index covers the table, and the rowid lies in a range that a lost page held.
//!
//! If an intact index does not name the rowid, the row was deleted after the backup, and stays
//! deleted. A salvaged row is never overwritten. A lost row comes back as it was at the time of the
//! backup: later changes to it are lost.
//!
//! A full-text index is rebuilt if its content got rows, and only if it held every row of its
//! content before: an index may leave rows out on purpose, and a rebuild would add them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, params};

use super::rebuild::quoted;
use super::report::Filled;
use super::salvage::{Salvage, TableSalvage};
use crate::engine::{Connection, Error, Progress, Result, Stage};
use crate::health::{Content, FullText};

/// The suffix of the shadow table that holds a full-text table's content.
const CONTENT: &str = "_content";

/// Whether a backup could have rows that the salvage lacks.
pub(super) fn has_gaps(salvage: &Salvage) -> bool {
    salvage.tables.iter().any(wants_rows)
}

fn wants_rows(table: &TableSalvage) -> bool {
    table.rows_missing.is_some_and(|missing| missing > 0)
        || (!is_fully_listed(table) && !table.gaps.is_empty())
}

/// Whether an intact index names every missing row, and [`TableSalvage::missing`] lists all of
/// them.
fn is_fully_listed(table: &TableSalvage) -> bool {
    table.index_is_whole && table.rows_missing == Some(table.missing.len() as u64)
}

/// Inserts rows of the database at `backup` into the gaps of the new database at `database`. The
/// backup is sound, and no connection writes to it. Returns the number of rows for each table that
/// got any. On an error nothing is inserted.
///
/// # Errors
/// SQLite's; `task`'s.
pub(super) fn merge(
    database: &Path,
    salvage: &Salvage,
    backup: &Path,
    task: &dyn Progress,
) -> Result<Vec<Filled>> {
    let at = |error: rusqlite::Error| Error::from(error).at(database);
    let Some(name) = backup.to_str() else {
        let message = "SQLite attaches only files whose path is Unicode";
        return Err(Error::sqlite(rusqlite::ffi::SQLITE_CANTOPEN, message).at(backup));
    };
    let connection = Connection::open(database, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    // The triggers ran when the rows were first written, and the salvage has what they wrote.
    connection.enable_triggers(false);
    let sql = connection.sql()?;
    sql.execute("ATTACH ?1 AS backup", [name]).map_err(at)?;
    sql.execute_batch("PRAGMA foreign_keys = OFF; BEGIN").map_err(at)?;
    let full_text = full_text_tables(sql).map_err(at)?;
    let whole: Vec<_> =
        full_text.into_iter().filter(|index| holds_every_row(&connection, index)).collect();
    let mut filled = Vec::new();
    let tables: Vec<_> = salvage.tables.iter().filter(|table| wants_rows(table)).collect();
    let total = tables.len() as u64;
    for (done, table) in (0..).zip(tables) {
        task.check_cancelled()?;
        task.stage(Stage { name: "merging the backup", done, total });
        filled.extend(fill(sql, table).map_err(at)?);
    }
    for (table, index) in whole {
        if !filled.is_empty() && is_of(sql, &table, &index, &filled).map_err(at)? {
            let name = quoted(&table);
            // If the rebuild fails, the index stays as it was.
            drop(sql.execute_batch(&format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')")));
        }
    }
    sql.execute_batch("COMMIT; DETACH backup").map_err(at)?;
    Ok(filled)
}

/// The full-text tables, and what their statements say.
fn full_text_tables(sql: &rusqlite::Connection) -> rusqlite::Result<Vec<(String, FullText)>> {
    let mut statement = sql.prepare(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0",
    )?;
    let entries = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let entries: Vec<(String, String)> = entries.collect::<rusqlite::Result<_>>()?;
    let index = |(name, sql): (String, String)| {
        let index = FullText::of(&name, &sql)?;
        Some((name, index))
    };
    Ok(entries.into_iter().filter_map(index).collect())
}

/// Whether an index holds every row of its content. `false` if that is unknown.
fn holds_every_row(connection: &Connection, (_, index): &(String, FullText)) -> bool {
    index.rows(connection).is_ok_and(|rows| rows.left_out == Some(0))
}

/// Whether the content of the full-text table `table` got rows.
fn is_of(
    sql: &rusqlite::Connection,
    table: &str,
    index: &FullText,
    filled: &[Filled],
) -> rusqlite::Result<bool> {
    let content = match index.content() {
        Content::Own => format!("{table}{CONTENT}"),
        Content::External(content) => content.clone(),
        Content::None => return Ok(false),
    };
    // A view may select from any table.
    let is_table: bool = sql.query_row(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema
                         WHERE type = 'table' AND name = ?1 COLLATE NOCASE)",
        [&content],
        |row| row.get(0),
    )?;
    Ok(!is_table || filled.iter().any(|table| table.name.eq_ignore_ascii_case(&content)))
}

/// Fills the gaps of one table. `None` if the backup had no row for them.
fn fill(sql: &rusqlite::Connection, table: &TableSalvage) -> rusqlite::Result<Option<Filled>> {
    let columns = shared_columns(sql, &table.name)?;
    let Some(rowid) = rowid_name(&columns) else { return Ok(None) };
    if columns.is_empty() || !takes_rows(sql, &table.name)? {
        return Ok(None);
    }
    let name = quoted(&table.name);
    let list: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
    let list = list.join(", ");
    // A row of the backup that breaks a constraint conflicts with a salvaged row, which wins.
    let insert = format!(
        "INSERT OR IGNORE INTO main.{name} ({rowid}, {list}) \
         SELECT {rowid}, {list} FROM backup.{name} WHERE {rowid} BETWEEN ?1 AND ?2"
    );
    let mut statement = sql.prepare(&insert)?;
    let mut take = |first: i64, last: i64| -> rusqlite::Result<u64> {
        Ok(statement.execute(params![first, last])? as u64)
    };
    let mut filled = Filled { name: table.name.clone(), rows: 0, named: 0 };
    // Named rows first: a gap may hold them too, and each row is counted once.
    for rowid in &table.missing {
        filled.named += take(*rowid, *rowid)?;
    }
    filled.rows = filled.named;
    if !is_fully_listed(table) {
        for (first, last) in &table.gaps {
            filled.rows += take(*first, *last)?;
        }
    }
    Ok((filled.rows > 0).then_some(filled))
}

/// The columns that both databases store. Empty if the backup lacks the table.
fn shared_columns(sql: &rusqlite::Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let columns = |schema: &str| -> rusqlite::Result<Vec<String>> {
        let mut statement = sql.prepare(
            "SELECT name FROM pragma_table_xinfo(?1, ?2) WHERE hidden NOT IN (2, 3) ORDER BY cid",
        )?;
        statement.query_map([table, schema], |row| row.get(0))?.collect()
    };
    let backup = columns("backup")?;
    let mut shared = columns("main")?;
    shared.retain(|column| backup.iter().any(|other| other.eq_ignore_ascii_case(column)));
    Ok(shared)
}

/// A name of the rowid that no column of the table has.
fn rowid_name(columns: &[String]) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
}

/// Whether `table` is a rowid table in both databases, and not a shadow table with a virtual
/// table's index, which is derived from the content.
fn takes_rows(sql: &rusqlite::Connection, table: &str) -> rusqlite::Result<bool> {
    let mut statement = sql.prepare(
        "SELECT type FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE \
         AND schema IN ('main', 'backup') AND wr = 0",
    )?;
    let kinds: Vec<String> =
        statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(kinds.len() == 2
        && kinds.iter().all(|kind| {
            kind == "table" || (kind == "shadow" && table.to_ascii_lowercase().ends_with(CONTENT))
        }))
}
