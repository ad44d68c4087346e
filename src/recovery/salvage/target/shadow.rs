//! Shadow tables, as the virtual table's module creates them. For the same arguments a module
//! creates the same tables. So the module gives the statement of a shadow table if the file's is
//! damaged, and the rows of an empty virtual table if the shadow table is lost.
//!
//! Any thread. May call: the engine. Memory: the rows of an empty virtual table.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::types::Value;

use super::schema;
use super::statement::quoted;
use crate::engine::{Connection, Result};
use crate::format::sql::{self, Makes, unquoted};
use crate::recovery::salvage::SchemaEntry;

/// A shadow table of an empty virtual table.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) name: String,
    /// Its statement, and those of its indexes.
    statements: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Shadow {
    /// The part of its name after the virtual table's name and `_`.
    pub(super) fn suffix(&self, virtual_table: &str) -> &str {
        self.name.get(virtual_table.len() + 1..).unwrap_or_default()
    }

    /// Whether the existing shadow table has another statement.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn differs(&self, connection: &Connection) -> Result<bool> {
        let same = "SELECT NOT EXISTS (SELECT 1 FROM main.sqlite_schema
                     WHERE type = 'table' AND name = ?1 COLLATE NOCASE AND sql = ?2)";
        let statement = self.statements.first();
        Ok(connection.sql()?.query_row(same, (&self.name, statement), |row| row.get(0))?)
    }

    /// Creates the shadow table, with its rows.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn make(&self, connection: &Connection) -> Result<()> {
        let sql = connection.sql()?;
        for statement in &self.statements {
            sql.execute(statement, [])?;
        }
        for row in &self.rows {
            let places = vec!["?"; row.len()].join(", ");
            let insert = format!("INSERT INTO main.{} VALUES ({places})", quoted(&self.name));
            sql.execute(&insert, rusqlite::params_from_iter(row))?;
        }
        Ok(())
    }

    /// Gives the existing shadow table the module's statement. Its records do not change.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn declare(&self, connection: &Connection) -> Result<()> {
        schema::writable(connection, || {
            let declare = "UPDATE main.sqlite_schema SET sql = ?2
                            WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
            connection.sql()?.execute(declare, (&self.name, self.statements.first()))?;
            Ok(())
        })
    }

    /// Replaces the existing shadow table, if there is one.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn remake(&self, connection: &Connection) -> Result<()> {
        let drop = format!("DROP TABLE IF EXISTS main.{}", quoted(&self.name));
        connection.sql()?.execute_batch(&drop)?;
        self.make(connection)
    }
}

/// The shadow tables that the virtual table `of` has in a database with pages of that size.
///
/// # Errors
/// SQLite's, if the virtual table cannot be created: its module is unknown, its arguments are not
/// valid.
pub(super) fn all(schema: &[SchemaEntry], of: &SchemaEntry, page_size: u32) -> Result<Vec<Shadow>> {
    // A full-text table may ask the table of its content for the columns.
    made(&[], of, page_size).or_else(|error| {
        let text = of.sql.as_deref().unwrap_or_default();
        let names: Vec<String> =
            sql::tokens(text).map(|it| unquoted(it.text).to_ascii_lowercase()).collect();
        let is_named = |it: &&SchemaEntry| names.contains(&it.name.to_ascii_lowercase());
        let named: Vec<&SchemaEntry> = schema.iter().filter(is_named).collect();
        made(&named, of, page_size).map_err(|_| error)
    })
}

fn made(others: &[&SchemaEntry], of: &SchemaEntry, page_size: u32) -> Result<Vec<Shadow>> {
    let scratch = Connection::open(Path::new(":memory:"), OpenFlags::default(), Duration::ZERO)?;
    let sql = scratch.sql()?;
    sql.execute_batch(&format!("PRAGMA page_size = {page_size}"))?;
    for other in others {
        let text = other.sql.as_deref().unwrap_or_default();
        if sql::makes(text) == Some(Makes::Table) && !is_named_after(of, &other.name) {
            // What cannot be made is not there.
            let _ = sql.execute(text, []);
        }
    }
    // One statement only: a damaged file's text may go on with another.
    sql.execute(of.sql.as_deref().unwrap_or_default(), [])?;
    let mut list = sql.prepare(
        "SELECT tbl_name, sql FROM sqlite_schema
          WHERE type IN ('table', 'index') AND rootpage > 0 AND sql IS NOT NULL ORDER BY rowid",
    )?;
    let list = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut shadows: Vec<Shadow> = Vec::new();
    for found in list {
        let (name, statement): (String, String) = found?;
        if !is_named_after(of, &name) {
            continue;
        }
        match shadows.iter_mut().find(|shadow| shadow.name == name) {
            Some(shadow) => shadow.statements.push(statement),
            None => {
                let rows = rows(&scratch, &name)?;
                shadows.push(Shadow { name, statements: vec![statement], rows });
            }
        }
    }
    Ok(shadows)
}

fn rows(scratch: &Connection, table: &str) -> Result<Vec<Vec<Value>>> {
    let mut select = scratch.sql()?.prepare(&format!("SELECT * FROM main.{}", quoted(table)))?;
    let columns = select.column_count();
    let rows = select.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Whether a table's name is one that the virtual table gives to a table of its own.
pub(super) fn is_named_after(of: &SchemaEntry, name: &str) -> bool {
    let parts = name.get(..of.name.len()).zip(name.get(of.name.len()..));
    parts.is_some_and(|(start, rest)| start.eq_ignore_ascii_case(&of.name) && rest.starts_with('_'))
}

/// The statement that makes the table `name`, if that is one that a virtual table of `schema`
/// makes.
pub(super) fn statement(schema: &[SchemaEntry], name: &str) -> Option<String> {
    // The size of pages is no part of a statement.
    let page_size = 4096;
    schema
        .iter()
        .filter(|of| of.sql.as_deref().and_then(sql::makes) == Some(Makes::VirtualTable))
        .filter(|of| is_named_after(of, name))
        .filter_map(|of| all(schema, of, page_size).ok())
        .flatten()
        .find(|shadow| shadow.name.eq_ignore_ascii_case(name))
        .and_then(|shadow| shadow.statements.into_iter().next())
}
