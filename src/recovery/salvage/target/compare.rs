//! Compares the salvaged rows with the damaged file's indexes: detects missing and changed rows.
//!
//! An index entry proves that a row with its rowid had its values, however much of the index's
//! b-tree is lost. But the entry may be damaged. So an entry that its index could not have (by
//! number of fields, types, NOT NULL) does not count, and neither does an entry of a UNIQUE index
//! whose key another row has.
//!
//! Of an index on expressions only the plain columns are compared: the result of a function may
//! differ between versions.
//!
//! Memory: constant; rowids are kept in a temporary table.

use std::iter;

use super::IndexSource;
use super::affinity::Affinity;
use super::fill::{Fill, is_same};
use super::schema::{Afterwards, Table};
use super::statement::{Encoding, Statement, quoted};
use crate::engine::{Connection, Error, Progress, Result, Stage};
use crate::format::Value;
use crate::recovery::salvage::SchemaEntry;
use crate::recovery::salvage::report::{SuspectRow, TableSalvage};

/// Maximum number of rowids, and of suspects, in a report.
const NAMED: usize = 10_000;

/// Entries between two calls of [`Progress::check_cancelled`].
const INTERVAL: u64 = 1_000;

/// The input of a comparison.
pub(super) struct Comparison<'a> {
    pub(super) connection: &'a Connection,
    pub(super) encoding: Encoding,
    pub(super) tables: &'a [Table],
    pub(super) schema: &'a [SchemaEntry],
    /// The name of the `lost_and_found` table, if it has rows: those rows are not missing.
    pub(super) lost_and_found: Option<&'a str>,
    pub(super) indexes: &'a dyn IndexSource,
}

impl Comparison<'_> {
    /// Adds the result for each table to its report.
    ///
    /// # Errors
    /// Those of reading the new file; `task`'s.
    pub(super) fn run(&self, report: &mut [TableSalvage], task: &dyn Progress) -> Result<()> {
        let indexes = |table: &Table| {
            let of = table.entry.name.clone();
            self.schema.iter().filter(move |entry| {
                entry.kind == "index" && entry.root > 0 && entry.table.eq_ignore_ascii_case(&of)
            })
        };
        let comparable = |table: &Table| {
            !table.fill.table.without_rowid
                && !table.carried
                && table.afterwards == Afterwards::Nothing
        };
        let total: usize =
            self.tables.iter().filter(|it| comparable(it)).map(|it| indexes(it).count()).sum();
        let mut done = 0;
        let sql = self.connection.sql()?;
        sql.execute_batch("CREATE TEMP TABLE missing(id INTEGER PRIMARY KEY)")?;
        for (table, report) in self.tables.iter().zip(report).filter(|(it, _)| comparable(it)) {
            let mut heard = false;
            for index in indexes(table) {
                task.stage(Stage { name: "comparing", done, total: total as u64 });
                task.check_cancelled()?;
                if let Some(key) = self.key(&table.fill, &index.name)? {
                    heard |= self.index(&table.fill, index, &key, report, task)?;
                }
                done += 1;
            }
            if heard {
                self.missing(table, report)?;
            }
        }
        sql.execute_batch("DROP TABLE temp.missing")?;
        task.stage(Stage { name: "comparing", done, total: total as u64 });
        Ok(())
    }

    /// Compares one index's entries with the rows. Returns whether the index had a usable entry.
    fn index(
        &self,
        fill: &Fill,
        index: &SchemaEntry,
        key: &Key,
        report: &mut TableSalvage,
        task: &dyn Progress,
    ) -> Result<bool> {
        let prepare = |sql: &str| Statement::prepare(self.connection, self.encoding, sql);
        let columns: Vec<String> = key.parts.iter().map(Part::sql).collect();
        let table = quoted(&fill.name);
        let mut row_of = prepare(&format!(
            "SELECT {} FROM main.{table} WHERE {}",
            columns.join(", "),
            fill.table.is_identified()
        ))?;
        // Without the application's collation the statement fails, and the query is skipped.
        let mut row_with = key.unique_condition().and_then(|condition| {
            prepare(&format!("SELECT 1 FROM main.{table} WHERE {condition}")).ok()
        });
        let mut miss = prepare("INSERT OR IGNORE INTO temp.missing(id) VALUES (?)")?;
        let mut entries = 0_u64;
        let mut named = 0_u64;
        let mut heard = false;
        self.indexes.entries(index.root, &mut |fields| {
            entries += 1;
            if entries.is_multiple_of(INTERVAL) {
                task.check_cancelled()?;
            }
            let Some((&Value::Integer(rowid), values)) = fields.split_last() else {
                return Ok(());
            };
            if !key.can_be(values, self.encoding) {
                return Ok(());
            }
            heard = true;
            let mut found = None;
            row_of.each(iter::once(Value::Integer(rowid)), |row| {
                found =
                    Some(values.iter().zip(&key.parts).enumerate().all(|(at, (&value, part))| {
                        part.column.is_none() || is_same(row.value(at), value)
                    }));
                Ok(false)
            })?;
            named += u64::from(found.is_some());
            match found {
                Some(true) => {}
                Some(false) => {
                    if report.suspects.len() < NAMED {
                        report.suspects.push(SuspectRow { rowid, index: index.name.clone() });
                    }
                }
                None => {
                    let mut replaced = false;
                    if let Some(row_with) = &mut row_with
                        && !values.iter().any(|value| match value {
                            Value::Null => true,
                            Value::Text(text) => !self.encoding.binds_as_is(text),
                            _ => false,
                        })
                    {
                        row_with.each(values.iter().copied(), |_| {
                            replaced = true;
                            Ok(false)
                        })?;
                    }
                    if !replaced {
                        miss.run(iter::once(Value::Integer(rowid)))?;
                    }
                }
            }
            Ok(())
        })?;
        report.index_is_whole |= heard && named >= report.rows;
        Ok(heard)
    }

    /// Moves the collected rowids to the report.
    fn missing(&self, table: &Table, report: &mut TableSalvage) -> Result<()> {
        let sql = self.connection.sql()?;
        if let Some(lost) = self.lost_and_found {
            sql.execute(
                &format!(
                    "DELETE FROM temp.missing WHERE id IN
                       (SELECT id FROM main.{} WHERE rootpgno = ?1)",
                    quoted(lost)
                ),
                [table.entry.root],
            )?;
        }
        let count: i64 =
            sql.query_row("SELECT count(*) FROM temp.missing", [], |row| row.get(0))?;
        report.rows_missing = Some(count.unsigned_abs());
        let mut statement = sql.prepare("SELECT id FROM temp.missing ORDER BY id LIMIT ?1")?;
        let rows = statement.query_map([NAMED as i64], |row| row.get(0))?;
        report.missing = rows.collect::<std::result::Result<_, _>>()?;
        sql.execute_batch("DELETE FROM temp.missing")?;
        Ok(())
    }

    /// The key of the new index `index`. `None` if that index was not made.
    fn key(&self, fill: &Fill, index: &str) -> Result<Option<Key>> {
        let sql = self.connection.sql()?;
        let list = "SELECT \"unique\" AND NOT partial FROM pragma_index_list(?1) WHERE name = ?2";
        let mut unique = sql.prepare(list)?;
        let mut rows = unique.query([&fill.name, index])?;
        let Some(unique) = rows.next()?.map(|row| row.get::<_, bool>(0)).transpose()? else {
            return Ok(None);
        };
        let mut statement = sql.prepare(
            "SELECT cid, name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno",
        )?;
        let parts = statement.query_map([index], |row| {
            let name: Option<String> = row.get(1)?;
            let collation: String = row.get(2)?;
            let stored = fill
                .table
                .fields
                .iter()
                .zip(&fill.table.derived)
                .find(|(field, derived)| !**derived && name.as_ref() == Some(&field.name));
            Ok(Part {
                column: stored.map(|(field, _)| field.name.clone()),
                affinity: stored.map_or(Affinity::Blob, |(field, _)| {
                    if field.rowid_alias { Affinity::Integer } else { field.affinity }
                }),
                not_null: stored.is_some_and(|(field, _)| field.not_null || field.rowid_alias),
                collation,
            })
        })?;
        let parts = parts.collect::<std::result::Result<_, _>>().map_err(Error::from)?;
        Ok(Some(Key { parts, unique }))
    }
}

/// The key of an index.
struct Key {
    parts: Vec<Part>,
    unique: bool,
}

/// A part of an index's key.
struct Part {
    /// The column; `None` for a computed part.
    column: Option<String>,
    affinity: Affinity,
    not_null: bool,
    collation: String,
}

impl Part {
    fn sql(&self) -> String {
        self.column.as_deref().map_or_else(|| "NULL".to_owned(), quoted)
    }
}

impl Key {
    /// Whether an entry can have these values as its key.
    fn can_be(&self, values: &[Value<'_>], encoding: Encoding) -> bool {
        values.len() == self.parts.len()
            && values.iter().zip(&self.parts).all(|(&value, part)| {
                part.affinity.keeps(value, encoding) && !(part.not_null && value == Value::Null)
            })
    }

    /// An SQL condition with a parameter for each part, which holds for the one row with that key.
    /// `None` unless the index is UNIQUE and has no computed part.
    fn unique_condition(&self) -> Option<String> {
        if !self.unique {
            return None;
        }
        let parts: Option<Vec<String>> = self
            .parts
            .iter()
            .map(|part| {
                let column = part.column.as_deref()?;
                Some(format!("{} = ? COLLATE {}", quoted(column), quoted(&part.collation)))
            })
            .collect();
        parts.map(|parts| parts.join(" AND "))
    }
}
