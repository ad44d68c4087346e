//! Rows whose parent row is missing, by child table and parent table.
//!
//! Called on the thread of the check. Source:
//! <https://sqlite.org/pragma.html#pragma_foreign_key_check>.

use rusqlite::ffi;

use super::finding::Finding;
use super::inspect::quoted;
use super::integrity_check_output::{Findings, Subject};
use super::progress_handler::Watch;
use super::schema::Schema;
use crate::engine::{Connection, Error, Result};

/// How many rowids a finding keeps.
const ROWIDS: usize = 100;

/// Runs `PRAGMA foreign_key_check` for each table. A constraint that SQLite cannot resolve then
/// fails the check of its own table only.
pub(super) fn check(
    connection: &Connection,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    for table in schema.tables().skip(1) {
        watch.check_cancelled()?;
        match violations(connection, &table.name) {
            Ok(found) => found.into_iter().for_each(|finding| findings.push(finding)),
            Err(error) => {
                let error = watch.reason(Error::from(error).at(connection.path()));
                if error.errcode & 0xff != ffi::SQLITE_ERROR {
                    return Err(error);
                }
                findings.note(Subject::Constraint(table.name.clone()), None, &error.message);
            }
        }
    }
    Ok(())
}

fn violations(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Finding>> {
    let mut found: Vec<Finding> = Vec::new();
    let Ok(sql) = connection.sql() else {
        return Ok(found);
    };
    let mut statement =
        sql.prepare(&format!("PRAGMA main.foreign_key_check({})", quoted(table)))?;
    let mut answer = statement.query([])?;
    while let Some(row) = answer.next()? {
        // NULL for a table WITHOUT ROWID.
        let (rowid, referred): (Option<i64>, String) = (row.get(1)?, row.get(2)?);
        let known = found.iter_mut().find_map(|finding| match finding {
            Finding::ForeignKeyViolations { parent, rows, rowids, .. } if *parent == referred => {
                Some((rows, rowids))
            }
            _ => None,
        });
        match known {
            Some((rows, rowids)) => {
                *rows += 1;
                rowids.extend(rowid.filter(|_| rowids.len() < ROWIDS));
            }
            None => found.push(Finding::ForeignKeyViolations {
                table: table.to_owned(),
                parent: referred,
                rows: 1,
                rowids: rowid.into_iter().collect(),
            }),
        }
    }
    Ok(found)
}
