//! Reads one b-tree to its end, without any other.
//!
//! SQLite's checks read a table together with its indexes. If a check stops in the middle, the
//! damage may be in any of these b-trees. Reading each of them alone shows which one is damaged.
//!
//! * A table is read by a scan that no index takes part in. Each record's header is parsed; values
//!   are not computed, so that a generated column needs no function of the application.
//! * An index, and a table WITHOUT ROWID, is read through an imposter table
//!   (<https://sqlite.org/imposter.html>): a declaration for its root page that only lists columns.
//!   So functions and collations of the application are not needed here either.
//!
//! Nothing is written: an imposter table exists only in the connection's schema, until it is
//! dropped.
//!
//! Called on the thread of the check.

use std::collections::HashMap;
use std::ffi::c_int;

use rusqlite::ffi;

use super::inspect::{identifier, is_of_statement, quoted};
use super::progress_handler::Watch;
use super::schema::{Object, Schema};
use crate::engine::{Class, Connection, Error, Result};

/// Name of the imposter table.
const IMPOSTER: &str = "fusion_sqlite_one_index";

/// SQLite's error when it reads the b-tree of `object`, a table or an index, alone. `None` if
/// SQLite reads it to the end, or cannot prepare the statement.
///
/// # Errors
/// Errors that are not damage: contention, a failed read, the task's.
pub(super) fn damage(
    connection: &Connection,
    object: &Object,
    watch: &Watch<'_>,
) -> Result<Option<String>> {
    let read = if object.kind == "index" {
        read_index(connection, object, watch)
    } else {
        read_table(connection, object, watch)
    };
    match read {
        Ok(()) => Ok(None),
        Err(error) if error.class() == Class::Corrupt => Ok(Some(error.message)),
        // The statement cannot be prepared, so the state of the b-tree is unknown.
        Err(error) if is_of_statement(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The b-trees of these pages, according to SQLite's walk over each b-tree
/// (<https://sqlite.org/dbstat.html>). A page that two b-trees point to gets no owner. A page
/// without a pointer belongs to the b-tree that SQLite could not walk to the end, if exactly one
/// failed.
///
/// # Errors
/// Errors that are not damage: contention, a failed read, the task's.
pub(super) fn owners<'s>(
    schema: &'s Schema,
    pages: &[u32],
    watch: &Watch<'_>,
) -> Result<HashMap<u32, &'s Object>> {
    let mut owners: HashMap<u32, Option<&'s Object>> = HashMap::new();
    let mut broken = Vec::new();
    let list = pages.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    for tree in schema.tables().chain(schema.indexes()) {
        watch.check_cancelled()?;
        let walk = format!(
            "SELECT CAST(pageno AS TEXT) FROM dbstat('main') WHERE name = {} AND pageno IN ({list})",
            quoted(&tree.name)
        );
        let walked = watch.texts(&walk, |page| {
            let Ok(page) = page.parse() else { return };
            let owner = owners.entry(page).or_insert(Some(tree));
            if owner.is_some_and(|owner| owner.root != tree.root) {
                *owner = None;
            }
        });
        match walked {
            Ok(()) => {}
            Err(error) if error.class() == Class::Corrupt => broken.push(tree),
            Err(error) if is_of_statement(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if let [broken] = broken[..] {
        for page in pages {
            owners.entry(*page).or_insert(Some(broken));
        }
    }
    Ok(owners.into_iter().filter_map(|(page, owner)| Some((page, owner?))).collect())
}

fn read_table(connection: &Connection, table: &Object, watch: &Watch<'_>) -> Result<()> {
    // Hidden columns of kind 2 are computed.
    let columns = names(
        connection,
        "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 2 ORDER BY cid",
        &table.name,
    )?;
    if is_without_rowid(connection, &table.name)? {
        // NOT INDEXED does not keep SQLite from reading another index of such a table instead.
        return read_keyed(connection, table.root, columns.len(), watch);
    }
    let types: Vec<_> =
        columns.iter().map(|name| format!("typeof({})", identifier(name))).collect();
    let types = if types.is_empty() { "1".to_owned() } else { types.join(", ") };
    let table = identifier(&table.name);
    watch.texts(&format!("SELECT {types} FROM main.{table} NOT INDEXED"), |_| {})
}

fn is_without_rowid(connection: &Connection, table: &str) -> Result<bool> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND name = ?1 AND wr";
    Ok(!names(connection, sql, table)?.is_empty())
}

fn read_index(connection: &Connection, index: &Object, watch: &Watch<'_>) -> Result<()> {
    let columns = names(
        connection,
        "SELECT CAST(seqno AS TEXT) FROM pragma_index_xinfo(?1, 'main')",
        &index.name,
    )?;
    read_keyed(connection, index.root, columns.len(), watch)
}

/// Reads the b-tree of an index, or of a table WITHOUT ROWID, with so many fields in its records.
fn read_keyed(connection: &Connection, root: u32, fields: usize, watch: &Watch<'_>) -> Result<()> {
    let (Some(last), Ok(root)) = (fields.checked_sub(1), c_int::try_from(root)) else {
        return Ok(());
    };
    let names: Vec<_> = (0..fields).map(|field| format!("c{field}")).collect();
    let declaration = format!(
        "CREATE TABLE main.{IMPOSTER} ({}, PRIMARY KEY (c0)) WITHOUT ROWID",
        names.join(", ")
    );
    let _imposter = Imposter::make(connection, root, &declaration)?;
    watch.texts(&format!("SELECT typeof(c{last}) FROM main.{IMPOSTER}"), |_| {})
}

fn names(connection: &Connection, sql: &str, of: &str) -> Result<Vec<String>> {
    let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
    let mut statement = connection.sql()?.prepare(sql).map_err(at)?;
    let names = statement.query_map([of], |row| row.get(0)).map_err(at)?;
    names.collect::<rusqlite::Result<_>>().map_err(at)
}

/// An imposter table, until it is dropped.
struct Imposter<'a> {
    connection: &'a Connection,
    root: c_int,
}

impl<'a> Imposter<'a> {
    /// Declares a read-only table whose b-tree is the one at `root`.
    fn make(connection: &'a Connection, root: c_int, declaration: &str) -> Result<Self> {
        let sql = connection.sql()?;
        // The control asks for a schema that has been read.
        sql.query_row("SELECT count(*) FROM pragma_table_list", [], |_| Ok(()))?;
        let imposter = Self { connection, root };
        control(connection, 2, root);
        let made = sql.execute_batch(declaration);
        control(connection, 0, 0);
        made.map_err(|error| Error::from(error).at(connection.path()))?;
        Ok(imposter)
    }
}

impl Drop for Imposter<'_> {
    fn drop(&mut self) {
        // A root page with mode 0 has the schema read again, without imposters.
        control(self.connection, 0, self.root);
    }
}

/// Imposter mode 2 is on and makes read-only tables, 0 is off.
fn control(connection: &Connection, mode: c_int, root: c_int) {
    // SAFETY: the control takes an open connection, the name of one of its databases, and two
    // ints; the connection is used by this thread alone.
    unsafe {
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_IMPOSTER,
            connection.raw(),
            c"main".as_ptr(),
            mode,
            root,
        );
    }
}
