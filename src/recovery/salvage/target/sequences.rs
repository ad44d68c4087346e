//! AUTOINCREMENT: the next rowid of each table is as before the damage, or beyond its last row.

use super::schema::{Afterwards, Table};
use super::statement::quoted;
use crate::engine::{Connection, Result};

/// Puts the salvaged rows of `sqlite_sequence` into it, each as it is, or raised. Inserting the
/// tables' rows has filled it with what these rows ask for at least.
///
/// # Errors
/// Those of writing the file.
pub(super) fn restore(connection: &Connection, tables: &[Table]) -> Result<()> {
    let sql = connection.sql()?;
    for table in tables.iter().filter(|table| table.afterwards == Afterwards::Sequence) {
        let salvaged = quoted(&table.fill.name);
        sql.execute_batch(&format!(
            "CREATE TEMP TABLE least AS SELECT name, seq FROM main.sqlite_sequence;
             DELETE FROM main.sqlite_sequence;
             INSERT INTO main.sqlite_sequence(rowid, name, seq)
               SELECT rowid, name, (SELECT max(seq) FROM (
                   SELECT salvaged.seq AS seq
                   UNION ALL SELECT seq FROM least WHERE name = salvaged.name))
                 FROM main.{salvaged} AS salvaged;
             INSERT INTO main.sqlite_sequence(name, seq)
               SELECT name, seq FROM least
                WHERE NOT EXISTS (SELECT 1 FROM main.{salvaged} WHERE name = least.name);
             DROP TABLE least;
             DROP TABLE main.{salvaged}"
        ))?;
    }
    Ok(())
}
