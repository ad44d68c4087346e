//! What SQLite itself reads and checks of a damaged file without a fault: an oracle that shares no
//! code with the package.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Result};

use super::truth::{self, Row, Rows, Table};

/// The rows of tables that SQLite reads to their end, and whose b-trees (indexes included) its
/// check of the whole file faults nowhere.
#[derive(Debug, Default, Clone, Copy)]
pub struct Clean {
    /// Those that are not in the salvaged database.
    pub lost: usize,
    /// Those that are in it, and were never in the sound one: what SQLite finds no fault in is not
    /// judged.
    pub not_true: usize,
}

impl Clean {
    /// Compares the salvaged database with what SQLite reads of the damaged one.
    pub fn of(damaged: &Path, salvaged: &Path, tables: &[Table], truth: &Rows) -> Self {
        let clean = clean(damaged, tables).unwrap_or_default();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let Ok(salvaged) = Connection::open_with_flags(salvaged, flags) else {
            return Self::default();
        };
        let mut sum = Self::default();
        for (table, rows) in clean {
            let mut found = Vec::new();
            drop(truth::read_table(&salvaged, table, &mut found));
            let found: HashSet<Row> = found.into_iter().collect();
            let truth: HashSet<&Row> = truth.get(&table.name).into_iter().flatten().collect();
            sum.lost += rows.iter().filter(|row| !found.contains(*row)).count();
            sum.not_true +=
                rows.iter().filter(|row| found.contains(*row) && !truth.contains(row)).count();
        }
        sum
    }
}

/// The tables without a fault, with what SQLite reads of them; none if it cannot say of one.
fn clean<'t>(damaged: &Path, tables: &'t [Table]) -> Result<Vec<(&'t Table, Vec<Row>)>> {
    let connection = Connection::open_with_flags(damaged, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA writable_schema = ON")?;
    let mut check = connection.prepare("PRAGMA integrity_check(1000000)")?;
    let lines: Vec<String> =
        check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>>>()?;
    let lines: Vec<&str> = lines.iter().flat_map(|row| row.lines()).collect();
    // Of what comes after the place where the check gave up it says nothing.
    if lines.contains(&"database disk image is malformed") {
        return Ok(Vec::new());
    }
    let mut schema = connection
        .prepare("SELECT name, rootpage FROM sqlite_schema WHERE tbl_name = ?1 AND rootpage > 0")?;
    let mut clean = Vec::new();
    for table in tables.iter().filter(|table| !table.virtual_table) {
        let objects = schema.query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let objects: Vec<(String, u32)> = objects.collect::<Result<_>>()?;
        let faults = |line: &&&str| {
            objects.iter().any(|(name, root)| {
                line.starts_with(&format!("Tree {root} ")) || line.contains(name.as_str())
            })
        };
        if objects.is_empty() || lines.iter().any(|line| faults(&line)) {
            continue;
        }
        let mut rows = Vec::new();
        if truth::read_table(&connection, table, &mut rows).is_ok() {
            clean.push((table, rows));
        }
    }
    Ok(clean)
}
