//! The statements of virtual tables' own tables. A damaged one can be had anew: the module makes
//! the same tables again for the same arguments.
//!
//! Thread: whichever calls. May call: the engine.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;

use super::sql::{self, Makes};
use crate::engine::Connection;
use crate::recovery::salvage::SchemaEntry;

/// The statement that makes the table `name`, if that is one that a virtual table of `schema`
/// makes.
pub(super) fn statement(schema: &[SchemaEntry], name: &str) -> Option<String> {
    let of = schema.iter().find(|entry| {
        let sql = entry.sql.as_deref();
        let rest = name.get(..entry.name.len()).zip(name.get(entry.name.len()..));
        sql.and_then(sql::makes) == Some(Makes::VirtualTable)
            && rest.is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(&entry.name) && rest.starts_with('_')
            })
    })?;
    let scratch =
        Connection::open(Path::new(":memory:"), OpenFlags::default(), Duration::ZERO).ok()?;
    let sql = scratch.sql().ok()?;
    // One statement only: a damaged file's text may go on with another.
    sql.execute(of.sql.as_deref()?, []).ok()?;
    sql.query_row(
        "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
        [name],
        |row| row.get(0),
    )
    .ok()
}
