//! Rows of a backup where a salvage has gaps.
//!
//! A row is taken only into a place that is proven to be empty: the salvage found none with its
//! rowid, and either an index of the damaged file says that there was one, or, of a table without
//! an index that could tell (or whose indexes have lost pages themselves), the rowid lies in a
//! range that a lost page held. Where a whole index names no such row, it was deleted since the
//! backup, and stays deleted. What the
//! salvage found is never overridden; what was changed since the backup in a row that is lost
//! comes back as it was then.
//!
//! A full-text index is rebuilt where its content got rows, and only if it held every row of it
//! before: one that leaves rows out may do so on purpose, and a rebuild would add them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, params};

use super::rebuild::quoted;
use super::report::Filled;
use super::salvage::{Salvage, TableSalvage};
use crate::engine::{Connection, Error, Result, Stage, Task};
use crate::health::{Content, FullText};

/// What the one table of a full-text table that is no index of it is called: its content.
const CONTENT: &str = "_content";

/// Whether a backup could have rows that the salvage has not.
pub(super) fn has_gaps(salvage: &Salvage) -> bool {
    salvage.tables.iter().any(wants_rows)
}

fn wants_rows(table: &TableSalvage) -> bool {
    table.rows_missing.is_some_and(|missing| missing > 0)
        || (!is_told(table) && !table.gaps.is_empty())
}

/// Whether an index tells all the rows that are missing, and all of them are named.
fn is_told(table: &TableSalvage) -> bool {
    table.index_is_whole && table.rows_missing == Some(table.missing.len() as u64)
}

/// Puts rows of the database at `backup`, which is sound and nobody writes to, into the gaps of
/// the new one at `database`, and returns how many, for each table that had any. On an error
/// nothing was put into it.
///
/// # Errors
/// SQLite's; `task`'s.
pub(super) fn merge(
    database: &Path,
    salvage: &Salvage,
    backup: &Path,
    task: &dyn Task,
) -> Result<Vec<Filled>> {
    let at = |error: rusqlite::Error| Error::from(error).at(database);
    let Some(name) = backup.to_str() else {
        let message = "SQLite attaches only files whose path is Unicode";
        return Err(Error::sqlite(rusqlite::ffi::SQLITE_CANTOPEN, message).at(backup));
    };
    let connection = Connection::open(database, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    // What triggers would do was done when the rows were written, and is salvaged as well.
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
        task.go_on()?;
        task.stage(Stage { name: "merging the backup", done, total });
        filled.extend(fill(sql, table).map_err(at)?);
    }
    for (table, index) in whole {
        if !filled.is_empty() && is_of(sql, &table, &index, &filled).map_err(at)? {
            let name = quoted(&table);
            // One that cannot be rebuilt is as it was.
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

/// Whether an index leaves no row of its content out; not where that cannot be told.
fn holds_every_row(connection: &Connection, (_, index): &(String, FullText)) -> bool {
    index.rows(connection).is_ok_and(|rows| rows.left_out == Some(0))
}

/// Whether the index of the full-text table `table` is of rows that were filled in.
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
    // A view may be of any table.
    let is_table: bool = sql.query_row(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema
                         WHERE type = 'table' AND name = ?1 COLLATE NOCASE)",
        [&content],
        |row| row.get(0),
    )?;
    Ok(!is_table || filled.iter().any(|table| table.name.eq_ignore_ascii_case(&content)))
}

/// Fills the gaps of one table; none where there was no row for them.
fn fill(sql: &rusqlite::Connection, table: &TableSalvage) -> rusqlite::Result<Option<Filled>> {
    let columns = shared_columns(sql, &table.name)?;
    let Some(rowid) = rowid_name(&columns) else { return Ok(None) };
    if columns.is_empty() || !takes_rows(sql, &table.name)? {
        return Ok(None);
    }
    let name = quoted(&table.name);
    let list: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
    let list = list.join(", ");
    // One that breaks a constraint would stand in the way of a row that was salvaged.
    let insert = format!(
        "INSERT OR IGNORE INTO main.{name} ({rowid}, {list}) \
         SELECT {rowid}, {list} FROM backup.{name} WHERE {rowid} BETWEEN ?1 AND ?2"
    );
    let mut statement = sql.prepare(&insert)?;
    let mut take = |first: i64, last: i64| -> rusqlite::Result<u64> {
        Ok(statement.execute(params![first, last])? as u64)
    };
    let mut filled = Filled { name: table.name.clone(), rows: 0, named: 0 };
    // These first: a gap may hold them as well, and a row is taken once.
    for rowid in &table.missing {
        filled.named += take(*rowid, *rowid)?;
    }
    filled.rows = filled.named;
    if !is_told(table) {
        for (first, last) in &table.gaps {
            filled.rows += take(*first, *last)?;
        }
    }
    Ok((filled.rows > 0).then_some(filled))
}

/// The columns that are stored in both databases; none where the backup lacks the table.
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

/// A name of the rowid that no column of the table has taken.
fn rowid_name(columns: &[String]) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
}

/// Whether it is a table with rowids in both databases, and not a virtual table's index, which is
/// made from the content.
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
