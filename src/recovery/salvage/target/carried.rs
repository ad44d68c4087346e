//! Tables that SQLite itself copies byte for byte, rows and index entries, under neutral
//! declarations (`recovery::neutral`).
//!
//! `INSERT INTO x SELECT * FROM y` between tables of one declaration copies records byte for byte
//! (the transfer optimisation, `xferOptimization` in `sqlite3.c`). A table without an INTEGER
//! PRIMARY KEY is copied by its rowids, which that optimisation does not keep.
//!
//! A copied object has a temporary name until the end. Then its b-trees become those of the
//! schema's object, or that object's schema entry is written with its own text.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, ffi};

use super::statement::quoted;
use super::transaction::atomically;
use super::watch::watched;
use super::{Limits, Target, schema};
use crate::engine::{Connection, PageImage, Progress, Result, Stage};
use crate::format::sql;
use crate::recovery::neutral::{self, NeutralTable};
use crate::recovery::original::{Format, ORIGINAL, Original};
use crate::recovery::salvage::SchemaEntry;

/// The copied tables.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// The prefix of the temporary names.
    prefix: String,
    tables: Vec<CarriedTable>,
    /// The names of all carried tables and indexes, in lower case.
    names: HashSet<String>,
}

/// A table that is carried, and its indexes, each with its place in the schema.
#[derive(Debug)]
struct CarriedTable {
    entry: (usize, SchemaEntry),
    indexes: Vec<(usize, SchemaEntry)>,
}

impl Carried {
    /// No table yet; the prefix is one that no name of `schema` has.
    pub(super) fn new(schema: &[SchemaEntry]) -> Self {
        let is_taken = |prefix: &String| {
            let starts = |name: &str| {
                name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            };
            schema.iter().any(|entry| starts(&entry.name))
        };
        let prefixes = (0_u64..).map(|number| format!("carried_{number}_"));
        let prefix = prefixes.into_iter().find(|prefix| !is_taken(prefix)).unwrap_or_default();
        Self { prefix, ..Self::default() }
    }

    /// Whether the table or index is carried.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(&name.to_ascii_lowercase())
    }

    /// The temporary name of an object, by its place in the schema.
    fn stand_in(&self, place: usize) -> String {
        format!("{}{place}", self.prefix)
    }

    fn add(&mut self, table: CarriedTable) {
        let entries = std::iter::once(&table.entry).chain(&table.indexes);
        self.names.extend(entries.map(|(_, entry)| entry.name.to_ascii_lowercase()));
        self.tables.push(table);
    }
}

impl Target {
    /// Copies `tables` of the pages as they are, each with all of its indexes. Returns the number
    /// of rows of each, or none where SQLite could not read it to its end, of which nothing is
    /// left.
    ///
    /// # Errors
    /// Those of writing the file; `task`'s.
    pub(in crate::recovery::salvage) fn carry(
        &mut self,
        pages: &dyn PageImage,
        format: Format,
        tables: &[NeutralTable],
        task: &dyn Progress,
    ) -> Result<Vec<Option<u64>>> {
        let sql = self.connection.sql()?;
        sql.execute_batch("COMMIT")?;
        neutral::keep_order(&self.connection)?;
        set_attached(&self.connection, 1);
        let image = Original::carried(pages, format, tables, &self.connection)?;
        let mut carried = Vec::with_capacity(tables.len());
        let total = tables.len() as u64;
        for (done, table) in (0..).zip(tables) {
            task.stage(Stage { name: "sound tables", done, total });
            let copied = atomically(&self.connection, || {
                copy(&self.connection, &self.limits, &self.carried, table, task)
            });
            carried.push(match copied {
                Ok(rows) => {
                    let entry = |place: usize| Some((place, self.schema.get(place)?.clone()));
                    let indexes = table.indexes.iter().filter_map(|index| entry(index.entry));
                    if let Some(entry) = entry(table.entry) {
                        let indexes = indexes.collect();
                        self.carried.add(CarriedTable { entry, indexes });
                    }
                    Some(rows)
                }
                Err(error) if is_of_the_table(&error) => None,
                Err(error) => return Err(error),
            });
        }
        task.stage(Stage { name: "sound tables", done: total, total });
        sql.execute_batch(&format!("DETACH {ORIGINAL}"))?;
        set_attached(&self.connection, 0);
        drop(image);
        sql.execute_batch("BEGIN EXCLUSIVE")?;
        for table in &mut self.tables {
            table.carried = self.carried.has(&table.entry.name);
        }
        Ok(carried)
    }
}

/// Copies one table and its indexes; returns its rows.
fn copy(
    connection: &Connection,
    limits: &Limits,
    carried: &Carried,
    table: &NeutralTable,
    task: &dyn Progress,
) -> Result<u64> {
    let sql = connection.sql()?;
    let to = quoted(&carried.stand_in(table.entry));
    sql.execute(&table.declaration(&format!("main.{to}")), [])?;
    let columns: Vec<String> = std::iter::once("rowid".to_owned()).chain(table.names()).collect();
    let columns = columns.join(", ");
    let from = format!("{ORIGINAL}.t{}", table.entry);
    let insert = if table.has_rowid() && table.alias.is_none() {
        format!("INSERT INTO main.{to}({columns}) SELECT {columns} FROM {from} NOT INDEXED")
    } else {
        format!("INSERT INTO main.{to} SELECT * FROM {from}")
    };
    let rows = watched(connection, limits, task, || Ok(sql.execute(&insert, [])?))?;
    for index in &table.indexes {
        let to = quoted(&carried.stand_in(index.entry));
        sql.execute(&index.as_table(&format!("main.{to}")), [])?;
        let insert = format!("INSERT INTO main.{to} SELECT * FROM {ORIGINAL}.i{}", index.entry);
        watched(connection, limits, task, || Ok(sql.execute(&insert, [])?))?;
    }
    Ok(rows as u64)
}

/// Whether an error means that SQLite cannot read the table.
fn is_of_the_table(error: &crate::engine::Error) -> bool {
    schema::is_of_statement(error) || error.errcode & 0xff == ffi::SQLITE_IOERR
}

/// How many databases may be attached.
fn set_attached(connection: &Connection, count: std::ffi::c_int) {
    // SAFETY: the connection is open, and any limit and value may be given.
    unsafe { ffi::sqlite3_limit(connection.raw(), ffi::SQLITE_LIMIT_ATTACHED, count) };
}

/// Gives the copied objects their own names and texts, in the caller's transaction.
///
/// # Errors
/// Those of writing the file.
pub(super) fn put_in_place(connection: &Connection, carried: &Carried) -> Result<()> {
    if carried.tables.is_empty() {
        return Ok(());
    }
    let sql = connection.sql()?;
    for table in &carried.tables {
        continue_sequence(connection, carried, table)?;
    }
    schema::writable(connection, || {
        for table in &carried.tables {
            for (place, entry) in std::iter::once(&table.entry).chain(&table.indexes) {
                put_one_in_place(sql, &carried.stand_in(*place), entry)?;
            }
        }
        Ok(())
    })?;
    // The temporary names now have the empty b-trees of the schema's objects.
    let mut left = sql.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1",
    )?;
    let left = left.query_map([&carried.prefix], |row| row.get(0))?;
    let left: Vec<String> = left.collect::<std::result::Result<_, _>>()?;
    for name in left {
        sql.execute(&format!("DROP TABLE main.{}", quoted(&name)), [])?;
    }
    Ok(())
}

fn put_one_in_place(sql: &rusqlite::Connection, stand_in: &str, entry: &SchemaEntry) -> Result<()> {
    let is = "type = ?1 AND name = ?2 COLLATE NOCASE AND rootpage > 0";
    let root = |kind: &str, name: &str| {
        let select = format!("SELECT rootpage FROM main.sqlite_schema WHERE {is}");
        sql.query_row(&select, [kind, name], |row| row.get::<_, i64>(0)).optional()
    };
    let Some(own) = root("table", stand_in)? else { return Ok(()) };
    if let Some(empty) = root(&entry.kind, &entry.name)? {
        let swap = format!("UPDATE main.sqlite_schema SET rootpage = ?3 WHERE {is}");
        sql.execute(&swap, (&entry.kind, &entry.name, own))?;
        sql.execute(&swap, ("table", stand_in, empty))?;
    } else {
        sql.execute(
            &format!(
                "UPDATE main.sqlite_schema SET type = ?3, name = ?4, tbl_name = ?5, sql = ?6
                  WHERE {is}"
            ),
            ("table", stand_in, &entry.kind, &entry.name, &entry.table, &entry.sql),
        )?;
    }
    Ok(())
}

/// Raises the table's entry in `sqlite_sequence` to its last rowid, if the entry is lost or out of
/// date.
fn continue_sequence(
    connection: &Connection,
    carried: &Carried,
    table: &CarriedTable,
) -> Result<()> {
    let (place, entry) = &table.entry;
    let text = entry.sql.as_deref().unwrap_or_default();
    let sql = connection.sql()?;
    if !sql::tokens(text).any(|token| token.is("AUTOINCREMENT"))
        || !sql.table_exists(Some("main"), "sqlite_sequence")?
    {
        return Ok(());
    }
    sql.execute(
        &format!(
            "UPDATE main.sqlite_sequence SET seq = most
               FROM (SELECT max(rowid) AS most FROM main.{})
              WHERE name = ?1 AND seq < most",
            quoted(&carried.stand_in(*place))
        ),
        [&entry.name],
    )?;
    sql.execute(
        &format!(
            "INSERT INTO main.sqlite_sequence(name, seq)
               SELECT ?1, max(rowid) FROM main.{}
                WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ?1)
               HAVING max(rowid) IS NOT NULL",
            quoted(&carried.stand_in(*place))
        ),
        [&entry.name],
    )?;
    Ok(())
}
