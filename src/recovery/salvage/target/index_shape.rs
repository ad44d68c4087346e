//! The layouts of index entries in the damaged file, as SQLite reports them: each index is created
//! on the empty tables and rolled back.
//!
//! Runs on the connection's thread. May call: the engine.

use rusqlite::ffi;

use super::schema::{self, Afterwards, Table};
use crate::engine::stub_functions::{self, StubResult};
use crate::engine::{Connection, Result};
use crate::format::sql::Makes;
use crate::recovery::salvage::SchemaEntry;

/// The layout of an index's entries: assigns orphan entries to an index, and entries to rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexShape {
    /// Its root page in the damaged file.
    pub root: u32,
    /// The place of its table among those of the target.
    pub table: usize,
    /// The fields of an entry, in their order.
    pub parts: Vec<Part>,
    /// For each field of the sort key, whether it is descending. Ends before the first field with a
    /// collation other than BINARY.
    pub descending: Vec<bool>,
    /// A partial index (with a WHERE clause).
    pub partial: bool,
}

/// The source of a field of an index entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// That field of the row's record.
    Field(usize),
    /// The rowid, or its alias.
    Rowid,
    /// The value of an expression, or of a virtual column.
    Computed,
}

/// Describes the indexes of `schema` that are on `tables` and can be made.
///
/// # Errors
/// Those of writing the file.
pub(super) fn describe_all(
    connection: &Connection,
    tables: &[Table],
    schema: &[SchemaEntry],
) -> Result<Vec<IndexShape>> {
    let mut shapes = Vec::new();
    let sql = connection.sql()?;
    for entry in schema.iter().filter(|entry| entry.kind == "index" && entry.root != 0) {
        let of = |table: &Table| table.entry.name.eq_ignore_ascii_case(&entry.table);
        let Some(place) = tables.iter().position(of) else { continue };
        let Some(table) = tables.get(place) else { continue };
        if table.afterwards != Afterwards::Nothing {
            continue;
        }
        let describe = || {
            sql.execute_batch("SAVEPOINT description")?;
            // CREATE TABLE has made a constraint's index already.
            let made = match entry.sql {
                Some(_) => schema::run(connection, entry, &[Makes::Index, Makes::UniqueIndex]),
                None => Ok(()),
            };
            let shape = made.and_then(|()| describe(connection, entry, place, table));
            sql.execute_batch("ROLLBACK TO description; RELEASE description")?;
            shape
        };
        let shape = match (describe(), entry.sql.as_deref()) {
            (Err(error), Some(statement)) if error.errcode & 0xff == ffi::SQLITE_ERROR => {
                // The statement may name a function or collation that only the application has.
                stub_functions::with_stubs(connection, statement, StubResult::Error, describe)
            }
            (outcome, _) => outcome,
        };
        match shape {
            Ok(shape) => shapes.extend(shape),
            // The later CREATE INDEX reports the error.
            Err(error) if schema::is_of_statement(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(shapes)
}

/// Describes an existing index. `None` if there is no index of that name.
fn describe(
    connection: &Connection,
    entry: &SchemaEntry,
    place: usize,
    table: &Table,
) -> Result<Option<IndexShape>> {
    let sql = connection.sql()?;
    let mut list = sql.prepare("SELECT partial FROM pragma_index_list(?1) WHERE name = ?2")?;
    let mut found = list.query([&table.fill.name, &entry.name])?;
    let Some(partial) = found.next()?.map(|row| row.get::<_, bool>(0)).transpose()? else {
        return Ok(None);
    };
    let described = &table.fill.table;
    let mut parts = Vec::new();
    let mut descending = Vec::new();
    let mut fields = sql.prepare("SELECT cid, name, \"desc\", coll FROM pragma_index_xinfo(?1)")?;
    let mut rows = fields.query([&entry.name])?;
    while let Some(row) = rows.next()? {
        let column: i64 = row.get(0)?;
        let name: Option<String> = row.get(1)?;
        let binary = row.get_ref(3)?.as_str().is_ok_and(|it| it.eq_ignore_ascii_case("BINARY"));
        if binary && descending.len() == parts.len() {
            descending.push(row.get(2)?);
        }
        let field = name.and_then(|name| described.fields.iter().position(|it| it.name == name));
        // -1 is the rowid, -2 an expression.
        parts.push(match field {
            _ if column == -1 => Part::Rowid,
            Some(field) if described.rowid_alias == Some(field) => Part::Rowid,
            Some(field) => Part::Field(field),
            None => Part::Computed,
        });
    }
    Ok(Some(IndexShape { root: entry.root, table: place, parts, descending, partial }))
}
