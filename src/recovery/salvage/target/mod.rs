//! The new database that rows are put into.
//!
//! | module | owns |
//! |---|---|
//! | `schema` | the tables, made from their own statements |
//! | `shadow` | virtual tables' own tables, asked of their modules |
//! | `shape` | what their records look like |
//! | `index_shape` | what the entries of the damaged file's indexes look like |
//! | `carried` | tables that SQLite copies as they are |
//! | `affinity` | which values a column keeps as they are |
//! | `fill` | putting records into a table |
//! | `lost_and_found` | the table of records that belong to none |
//! | `sequences` | AUTOINCREMENT |
//! | `indexes` | the indexes, and rows in the way of a UNIQUE one |
//! | `compare` | what the damaged file's indexes tell of the rows |
//! | `virtual_tables` | putting them back, full-text indexes anew |
//! | `module` | what the modules of virtual tables are to a salvage |
//! | `rtree` | R-Trees whose nodes are damaged |
//! | `limits` | what a schema's statements may take |
//! | `transaction` | transactions of the new file |
//! | `watch` | ending a statement that runs long |
//! | `durable` | syncing the finished file |
//! | `statement` | one prepared statement, bound with stored values |
//!
//! Thread: whichever calls, one at a time. May call: the engine. Memory: the page cache
//! (`CACHE`), one record, and what SQLite's sorter takes.

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
use crate::engine::{Connection, Error, Likeness, Result, Task};
use crate::format::Value;
use crate::recovery::neutral;

/// Page cache while filling, in KiB.
const CACHE: i64 = 32 << 10;

/// A database being filled: one connection, which nobody else can look over the shoulder of. The
/// rows are one transaction, and what is made of them others, so that an index that cannot be made
/// costs no row. `finish` makes it durable. Dropped before, it leaves its file to whoever named it.
#[derive(Debug)]
pub struct Target {
    // Statements go before the connection that they belong to.
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

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It is in its table.
    Yes,
    /// The table has a row with the same rowid or key; `same` if it is the same byte for byte.
    Duplicate {
        /// Whether nothing is lost by leaving it out.
        same: bool,
    },
    /// The table does not take it: the reason.
    Refused(String),
}

/// How the b-trees of a target's indexes in the damaged file are walked, to compare them.
pub trait IndexSource {
    /// Calls `entry` with the fields of each readable entry of the index b-tree at `root`. An
    /// entry that is not wholly readable is left out.
    ///
    /// # Errors
    /// `entry`'s, which ends the walk.
    fn entries(&self, root: u32, entry: &mut dyn FnMut(&[Value<'_>]) -> Result<()>) -> Result<()>;
}

impl Target {
    /// Makes the database at `path`, which must not exist, with the tables of `schema`; of
    /// `header` everything but its schema is used. Statements that fail are kept for the report;
    /// what they may compute is within `limits`.
    ///
    /// # Errors
    /// Those of making and writing a file, of which nothing is left then; `SQLITE_CANTOPEN` if
    /// there is one already, which is left alone.
    pub fn create(
        path: &Path,
        header: &Snapshot,
        schema: &[SchemaEntry],
        limits: Limits,
    ) -> Result<Self> {
        // SQLite would open a file that is there already.
        Likeness::private()
            .create(path)
            .map_err(|error| Error::system(ffi::SQLITE_CANTOPEN, path, &error))?;
        Self::fill_new(path, header, schema, limits).map_err(|error| {
            // It is empty, and the error that is told is the reason.
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

    /// The tables that hold rows, in the schema's order. Their places are the numbers that
    /// [`Self::insert`] takes.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The indexes of the damaged file, as far as they can be made.
    pub fn index_shapes(&self) -> &[IndexShape] {
        &self.index_shapes
    }

    /// Puts a record into table number `table` of [`Self::shapes`]. `rowid` is none for WITHOUT
    /// ROWID tables. A record may have fewer fields than the table (added columns get their
    /// defaults), but not fewer than [`Shape::least_fields`]; of more, the row is refused. So is
    /// one with a value that its column would change: SQLite has not written it there. Generated
    /// columns and a rowid's alias are computed anew, whatever their fields hold.
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

    /// [`Self::insert`] of a record that was damaged, of whose field number `odd` (a rowid's alias,
    /// or a generated column) only the stored content may be known: the row is taken only if every
    /// generated column that it was stored with is computed to just that.
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

    /// Puts a record that belongs nowhere into `lost_and_found` (or `lost_and_found_0`, … where
    /// the schema has such a table), which has the columns of `.recover`'s and the reason:
    /// `rootpgno`, `pgno`, `nfield`, `id`, `reason`, `c0`, `c1`, …. Text that is half a UTF-16
    /// character too long is put there as a BLOB, and of more fields than a table can have columns
    /// the last ones are left out.
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

    /// Everything that is not a row: AUTOINCREMENT sequences, indexes (a UNIQUE one that rows
    /// stand in the way of has the later ones moved to `lost_and_found`), views, triggers, virtual
    /// tables, whose full-text indexes are rebuilt from their content; statistics; compares
    /// `tables` (by place in [`Self::shapes`]) with the indexes of the damaged file and fills in
    /// what they tell; commits and syncs.
    ///
    /// # Errors
    /// Those of writing the file; `task`'s.
    pub fn finish(
        mut self,
        indexes: &dyn IndexSource,
        tables: &mut [TableSalvage],
        task: &dyn Task,
    ) -> Result<Finished> {
        let path = self.connection.path().to_path_buf();
        let finished = self.complete(&path, indexes, tables, task);
        finished.map_err(|error| error.at(&path))
    }

    /// [`Self::finish`], with everything in its place: on an error the statements still go before
    /// their connection.
    fn complete(
        &mut self,
        path: &Path,
        indexes: &dyn IndexSource,
        tables: &mut [TableSalvage],
        task: &dyn Task,
    ) -> Result<Finished> {
        let mut errors = std::mem::take(&mut self.schema_errors);
        // What its statement could not make is there all the same.
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
        task.go_on()?;
        self.tables.clear();
        self.lost.forget_statements();
        connection.sql()?.execute_batch("COMMIT")?;
        self.connection.close()?;

        let mut rebuilt = Vec::new();
        if !virtual_tables.is_empty() {
            // Only a connection that reads the schema anew sees them.
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
        task.go_on()?;
        durable::sync(path)?;
        Ok(Finished { lost_and_found: self.lost.rows, rebuilt, schema_errors: errors })
    }
}

/// Opens the file for filling: nobody else has it open, and what is half done is thrown away.
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

/// Gives the empty file the format that `header` tells of, and begins the transaction. Its journal
/// is in memory: it holds nothing of a file that began empty, but lets one statement fail alone.
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

/// What [`Target::finish`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// Rows in `lost_and_found`.
    pub lost_and_found: u64,
    /// Virtual tables whose index was rebuilt, R-Trees that were made anew among them.
    pub rebuilt: Vec<String>,
    /// What of the schema could not be made again, or not wholly: `table t: reason`, `index i: …`.
    pub schema_errors: Vec<String>,
}
