//! The new database of a salvage.
//!
//! | module | owns |
//! |---|---|
//! | `schema` | the tables, created by their own statements |
//! | `shadow` | shadow tables, as the virtual tables' modules create them |
//! | `shape` | the layouts of the tables' records |
//! | `index_shape` | the layouts of index entries in the damaged file |
//! | `carried` | tables that SQLite copies byte for byte |
//! | `affinity` | the values that a column stores unchanged |
//! | `fill` | inserting records into a table |
//! | `lost_and_found` | the table of records without a table |
//! | `sequences` | AUTOINCREMENT |
//! | `indexes` | the indexes, and rows that violate a UNIQUE one |
//! | `compare` | comparing the rows with the damaged file's indexes |
//! | `virtual_tables` | restoring virtual tables, rebuilding full-text indexes |
//! | `module` | the kinds of virtual table modules |
//! | `rtree` | R-Trees with damaged nodes |
//! | `limits` | bounds of a schema's statements |
//! | `transaction` | transactions of the new file |
//! | `watch` | cancelling a statement that runs long |
//! | `durable` | syncing the finished file |
//! | `statement` | one prepared statement, bound with stored values |
//!
//! Any thread, one at a time. May call: the engine. Memory: the page cache (`CACHE`), one record,
//! and SQLite's sorter.

mod affinity;
mod carried;
mod compare;
mod durable;
mod fill;
mod index_shape;
mod indexes;
mod limits;
mod lost_and_found;
mod module;
mod rtree;
mod schema;
mod sequences;
mod shadow;
mod shape;
mod statement;
mod transaction;
mod virtual_tables;
mod watch;

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

pub use affinity::Affinity;
pub(in crate::recovery) use fill::is_same;
pub use index_shape::{IndexShape, Part};
pub use limits::Limits;
pub(in crate::recovery) use lost_and_found::{LostAndFound, LostRow};
pub use shape::{Field, Shape};
pub(in crate::recovery) use watch::watched;

use self::carried::Carried;
use self::schema::Table;
pub(in crate::recovery) use self::statement::{Encoding, Row, Statement};
use super::report::TableSalvage;
use super::snapshot::{SchemaEntry, Snapshot};
use crate::engine::{Connection, Error, Likeness, Progress, Result};
use crate::format::Value;
use crate::recovery::neutral;

/// Page cache while filling, in KiB.
const CACHE: i64 = 32 << 10;

/// A database being filled, through one connection with an exclusive lock. The rows are one
/// transaction. The indexes have transactions of their own, so that an index that fails costs no
/// row. `finish` makes the file durable. If the target is dropped before, its file stays, and the
/// caller has to remove it.
#[derive(Debug)]
pub struct Target {
    // Declared first: the statements must be finalized before their connection closes.
    tables: Vec<Table>,
    lost: LostAndFound,
    connection: Connection,
    encoding: Encoding,
    limits: Limits,
    page_size: u32,
    shapes: Vec<Shape>,
    index_shapes: Vec<IndexShape>,
    schema_errors: Vec<String>,
    schema: Vec<SchemaEntry>,
    carried: Carried,
}

/// The result of inserting a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// The row is in its table.
    Yes,
    /// The table has another row with the same rowid or key.
    Duplicate {
        /// The two rows are identical byte for byte.
        same: bool,
    },
    /// The table refuses the row, for this reason.
    Refused(String),
}

/// Walks the b-trees of the indexes in the damaged file.
pub trait IndexSource {
    /// Calls `entry` with the fields of each readable entry of the index b-tree at `root`. Skips
    /// entries that are not completely readable.
    ///
    /// # Errors
    /// `entry`'s, which ends the walk.
    fn entries(&self, root: u32, entry: &mut dyn FnMut(&[Value<'_>]) -> Result<()>) -> Result<()>;
}

impl Target {
    /// Creates the database at `path`, which must not exist, with the tables of `schema`. Uses
    /// everything of `header` except its schema. Statements that fail go into the report; `limits`
    /// bound what statements may compute.
    ///
    /// # Errors
    /// Those of creating and writing the file, which is then removed; `SQLITE_CANTOPEN` if a file
    /// exists, which is not changed.
    pub fn create(
        path: &Path,
        header: &Snapshot,
        schema: &[SchemaEntry],
        limits: Limits,
    ) -> Result<Self> {
        // SQLite would open an existing file.
        Likeness::private()
            .create(path)
            .map_err(|error| Error::system(ffi::SQLITE_CANTOPEN, path, &error))?;
        Self::fill_new(path, header, schema, limits).map_err(|error| {
            // The file has no rows yet. The original error is returned, not that of the removal.
            let _ = std::fs::remove_file(path);
            error.at(path)
        })
    }

    fn fill_new(
        path: &Path,
        header: &Snapshot,
        schema: &[SchemaEntry],
        limits: Limits,
    ) -> Result<Self> {
        let encoding = Encoding::of_header(header.encoding);
        let connection = open(path)?;
        format(&connection, encoding, header)?;
        limits.set_for_rows(&connection, header.page_size)?;
        let made = schema::make_tables(&connection, encoding, schema)?;
        let index_shapes = index_shape::describe_all(&connection, &made.tables, schema)?;
        let names = schema.iter().map(|entry| entry.name.as_str());
        let widest = made.shapes.iter().map(|shape| shape.fields.len()).max().unwrap_or(0);
        Ok(Self {
            tables: made.tables,
            lost: LostAndFound::new(names, widest),
            connection,
            encoding,
            limits,
            page_size: header.page_size,
            shapes: made.shapes,
            index_shapes,
            schema_errors: made.errors,
            schema: schema.to_vec(),
            carried: Carried::new(schema),
        })
    }

    /// The tables with rows, in the schema's order. [`Self::insert`] takes a table's place in it.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The indexes of the damaged file that could be described.
    pub fn index_shapes(&self) -> &[IndexShape] {
        &self.index_shapes
    }

    /// Inserts a record into table number `table` of [`Self::shapes`]. `rowid` is `None` for
    /// WITHOUT ROWID tables. A record may have fewer fields than the table (added columns get their
    /// defaults), but not fewer than [`Shape::least_fields`]. The row is refused if it has more
    /// fields than the table, or a value that its column's affinity would change, because SQLite
    /// cannot have written it there. SQLite computes generated columns and a rowid alias; their
    /// fields are ignored.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn insert(
        &mut self,
        table: usize,
        rowid: Option<i64>,
        fields: &[Value<'_>],
    ) -> Result<Inserted> {
        match self.tables.get_mut(table) {
            Some(table) => table.fill.insert(&self.connection, rowid, fields),
            None => Ok(Inserted::Refused("there is no such table".to_owned())),
        }
    }

    /// [`Self::insert`] of a repaired record. Of its field number `odd` (a rowid alias or a
    /// generated column) only the stored bytes are known. The row is refused unless every generated
    /// column is computed to the value that the record has.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn insert_mended(
        &mut self,
        table: usize,
        rowid: Option<i64>,
        fields: &[Value<'_>],
        odd: Option<(usize, &[u8])>,
    ) -> Result<Inserted> {
        match self.tables.get_mut(table) {
            Some(table) => table.fill.insert_mended(&self.connection, rowid, fields, odd),
            None => Ok(Inserted::Refused("there is no such table".to_owned())),
        }
    }

    /// Inserts a record without a table into `lost_and_found` (or `lost_and_found_0`, … if the
    /// schema has a table of that name). The table has the columns of `.recover`, and the reason:
    /// `rootpgno`, `pgno`, `nfield`, `id`, `reason`, `c0`, `c1`, …. UTF-16 text with an odd number
    /// of bytes becomes a BLOB. Fields beyond the maximum number of columns are left out.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn lost(
        &mut self,
        root: u32,
        page: u32,
        rowid: Option<i64>,
        fields: &[Value<'_>],
        reason: &str,
    ) -> Result<()> {
        let row = LostRow { root, page, rowid, fields, reason };
        self.lost.add(&self.connection, self.encoding, row)
    }

    /// Finishes the database: creates AUTOINCREMENT sequences, indexes (rows that violate a UNIQUE
    /// one move to `lost_and_found`), views, triggers, virtual tables (full-text indexes are
    /// rebuilt from their content) and statistics. Compares the rows with the indexes of the
    /// damaged file, and adds the result to `tables` (by place in [`Self::shapes`]). Commits and
    /// syncs.
    ///
    /// # Errors
    /// Those of writing the file; `task`'s.
    pub fn finish(
        mut self,
        indexes: &dyn IndexSource,
        tables: &mut [TableSalvage],
        task: &dyn Progress,
    ) -> Result<Finished> {
        let path = self.connection.path().to_path_buf();
        let finished = self.complete(&path, indexes, tables, task);
        finished.map_err(|error| error.at(&path))
    }

    /// [`Self::finish`], without taking fields out of `self`: also after an error the statements
    /// are finalized before their connection closes.
    fn complete(
        &mut self,
        path: &Path,
        indexes: &dyn IndexSource,
        tables: &mut [TableSalvage],
        task: &dyn Progress,
    ) -> Result<Finished> {
        let mut errors = std::mem::take(&mut self.schema_errors);
        // SQLite has copied a carried table even if its statement failed.
        errors.retain(|error| {
            let of = error.strip_prefix("table ").and_then(|rest| rest.split_once(": "));
            !of.is_some_and(|(name, _)| self.carried.has(name))
        });
        let (connection, encoding, limits) = (&self.connection, self.encoding, &self.limits);
        limits.set_for_indexes(connection, self.page_size)?;
        sequences::restore(connection, &self.tables)?;
        schema::rename(connection, &self.tables)?;
        carried::put_in_place(connection, &self.carried)?;
        connection.sql()?.execute_batch("COMMIT")?;
        let making = indexes::Making {
            connection,
            encoding,
            limits,
            tables: &self.tables,
            lost: &mut self.lost,
            report: &mut *tables,
        };
        let rest: Vec<SchemaEntry> =
            self.schema.iter().filter(|entry| !self.carried.has(&entry.name)).cloned().collect();
        errors.extend(making.make(&rest, task)?);
        connection.sql()?.execute_batch("BEGIN EXCLUSIVE")?;
        let comparison = compare::Comparison {
            connection,
            encoding,
            tables: &self.tables,
            schema: &self.schema,
            lost_and_found: self.lost.name(),
            indexes,
        };
        comparison.run(tables, task)?;
        errors.extend(schema::make_views_and_triggers(connection, &self.schema)?);
        let virtual_tables = virtual_tables::put_back(connection, &self.schema, &mut errors)?;
        schema::put_in_order(connection, &self.schema)?;
        task.check_cancelled()?;
        self.tables.clear();
        self.lost.forget_statements();
        connection.sql()?.execute_batch("COMMIT")?;
        self.connection.close()?;

        let mut rebuilt = Vec::new();
        if !virtual_tables.is_empty() {
            // Only a connection that reads the schema from the file sees the virtual tables.
            self.connection = open(path)?;
            limits.set_for_indexes(&self.connection, self.page_size)?;
            let derived = virtual_tables::derive(
                &self.connection,
                encoding,
                &self.schema,
                &virtual_tables,
                &self.carried,
                tables,
                &mut self.lost,
                limits,
                task,
            )?;
            self.lost.forget_statements();
            self.connection.close()?;
            rebuilt = derived.rebuilt;
            errors.extend(derived.errors);
        }
        task.check_cancelled()?;
        durable::sync(path)?;
        Ok(Finished { lost_and_found: self.lost.rows, rebuilt, schema_errors: errors })
    }
}

/// Opens the file for filling. No other connection has it open, and an incomplete file is
/// discarded, so it is not synced.
fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open(path, flags, Duration::ZERO)?;
    neutral::allow_any_schema(&connection);
    connection.sql()?.execute_batch(&format!(
        "PRAGMA cache_size = -{CACHE};
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA synchronous = OFF;
         PRAGMA foreign_keys = OFF;
         PRAGMA ignore_check_constraints = ON;
         PRAGMA recursive_triggers = OFF;"
    ))?;
    Ok(connection)
}

/// Gives the empty file the format of `header`, and begins the transaction. The journal is in
/// memory: it lets a statement fail without ending the transaction.
fn format(connection: &Connection, encoding: Encoding, header: &Snapshot) -> Result<()> {
    let mut reserved = std::ffi::c_int::from(header.reserved);
    // SAFETY: the connection is open, and this file control reads and writes one int.
    unsafe {
        ffi::sqlite3_file_control(
            connection.raw(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut reserved).cast(),
        );
    }
    connection.sql()?.execute_batch(&format!(
        "PRAGMA page_size = {};
         PRAGMA auto_vacuum = {};
         PRAGMA encoding = '{}';
         PRAGMA journal_mode = MEMORY;
         BEGIN EXCLUSIVE;
         PRAGMA user_version = {};
         PRAGMA application_id = {};",
        header.page_size,
        header.auto_vacuum,
        encoding.name(),
        header.user_version,
        header.application_id,
    ))?;
    Ok(())
}

/// The result of [`Target::finish`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// Rows in `lost_and_found`.
    pub lost_and_found: u64,
    /// Virtual tables whose index was rebuilt, R-Trees included.
    pub rebuilt: Vec<String>,
    /// Objects of the schema that could not be created, or not completely: `table t: reason`,
    /// `index i: …`.
    pub schema_errors: Vec<String>,
}
