//! The new database that rows are put into.

use std::path::Path;

use super::report::TableSalvage;
use super::snapshot::{SchemaEntry, Snapshot};
use crate::engine::{Error, Result, Task};
use crate::format::Value;

/// A database being filled: one connection, one transaction, no journal, since nobody uses a half
/// of it. `finish` makes it durable.
#[derive(Debug)]
pub struct Target {}

/// What a table's records look like, for telling whose an orphan record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The table.
    pub table: String,
    /// Its root page in the damaged file.
    pub root: u32,
    /// A WITHOUT ROWID table: its records are those of an index b-tree.
    pub without_rowid: bool,
    /// The stored fields of a record, in their order. Virtual generated columns have none.
    pub fields: Vec<Field>,
    /// A record of a row older than `ALTER TABLE ADD COLUMN` has fewer fields than the table has
    /// columns, but never fewer than this.
    pub least_fields: usize,
}

/// One stored field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column.
    pub name: String,
    /// Its affinity (<https://sqlite.org/datatype3.html>, 3.1).
    pub affinity: Affinity,
    /// Declared NOT NULL (or part of a WITHOUT ROWID primary key): a NULL in it belongs to
    /// another table. A rowid alias is stored as NULL and is not counted as such.
    pub not_null: bool,
    /// The rowid's alias (`INTEGER PRIMARY KEY`): always stored as NULL.
    pub rowid_alias: bool,
}

/// A column's affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Whatever was given.
    Blob,
    /// Text, unless it is a BLOB or NULL.
    Text,
    /// Numbers where they look like ones.
    Numeric,
    /// As numeric.
    Integer,
    /// Doubles, stored as integers where that loses nothing.
    Real,
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
    /// `header` everything but its schema is used. Statements that fail are kept for the report.
    ///
    /// # Errors
    /// Those of making and writing a file.
    pub fn create(path: &Path, header: &Snapshot, schema: &[SchemaEntry]) -> Result<Self> {
        let _ = (path, header, schema);
        Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
    }

    /// The tables that hold rows, in the schema's order. Their places are the numbers that
    /// [`Self::insert`] takes.
    pub fn shapes(&self) -> &[Shape] {
        &[]
    }

    /// Puts a record into table number `table` of [`Self::shapes`]. `rowid` is none for WITHOUT
    /// ROWID tables. A record may have fewer fields than the table (added columns get their
    /// defaults); of more, the row is refused.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn insert(
        &mut self,
        table: usize,
        rowid: Option<i64>,
        fields: &[Value<'_>],
    ) -> Result<Inserted> {
        let _ = (table, rowid, fields);
        Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
    }

    /// Puts a record that belongs nowhere into `lost_and_found` (or `lost_and_found_0`, … where
    /// the schema has such a table), which has the columns of `.recover`'s: `rootpgno`, `pgno`,
    /// `nfield`, `id`, `c0`, `c1`, ….
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn lost(
        &mut self,
        root: u32,
        page: u32,
        rowid: Option<i64>,
        fields: &[Value<'_>],
    ) -> Result<()> {
        let _ = (root, page, rowid, fields);
        Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
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
        self,
        indexes: &dyn IndexSource,
        tables: &mut [TableSalvage],
        task: &dyn Task,
    ) -> Result<Finished> {
        let _ = (indexes, tables, task);
        Err(Error::fusion("ERR_FUSION_INTERNAL", "not yet"))
    }
}

/// What [`Target::finish`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// Rows in `lost_and_found`.
    pub lost_and_found: u64,
    /// Virtual tables whose index was rebuilt.
    pub rebuilt: Vec<String>,
    /// Statements that failed, with the reason.
    pub schema_errors: Vec<String>,
}
