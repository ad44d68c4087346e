//! What was saved and what was not.

use serde::Serialize;

/// The account of a salvage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Salvage {
    /// Bytes a page.
    pub page_size: u32,
    /// Pages that the database has, or had by its header.
    pub pages: u64,
    /// Pages that were read from the WAL instead of the file.
    pub pages_from_wal: u64,
    /// Pages that no longer hold what they held, whatever it was.
    pub pages_lost: u64,
    /// Where the schema came from.
    pub schema_from: SchemaSource,
    /// By table, in the schema's order; tables that hold no rows of their own (virtual ones) are
    /// not among them, their shadow tables are.
    pub tables: Vec<TableSalvage>,
    /// Rows that belong to no table that is known, in `lost_and_found`.
    pub lost_and_found: u64,
    /// Virtual tables whose index was rebuilt from its content.
    pub rebuilt: Vec<String>,
    /// Statements of the schema that could not be carried out again, each with the reason.
    pub schema_errors: Vec<String>,
}

/// Where a salvage took the schema from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SchemaSource {
    /// The file's own schema table, whole.
    #[default]
    File,
    /// The file's own pages, found apart from their b-tree, where they were complete.
    Orphans,
    /// The snapshot, for at least a part of it.
    Snapshot,
    /// There was none: every row is in `lost_and_found`.
    None,
}

/// One table of a salvage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSalvage {
    /// Its name.
    pub name: String,
    /// Rows that are in the new database.
    pub rows: u64,
    /// How many of them were on pages that the table's b-tree no longer led to.
    pub adopted: u64,
    /// Pages of its b-tree that could not be read.
    pub pages_lost: u64,
    /// Rows that an index proves to have existed and that were not found; none where the table
    /// has no index that could tell.
    pub rows_missing: Option<u64>,
    /// Rowids of such rows, at most 10,000.
    pub missing: Vec<i64>,
    /// Whether one of those indexes names every row that was saved: what it does not name was not
    /// there. One that has lost pages itself cannot tell that.
    pub index_is_whole: bool,
    /// Ranges of rowids, both ends inclusive, that lost pages held: a row that is gone was in
    /// one of them. Empty where nothing was lost, and for WITHOUT ROWID tables.
    pub gaps: Vec<(i64, i64)>,
    /// Records that are damaged beyond reading.
    pub records_lost: u64,
    /// How many of the rows were read in spite of a damaged header: only one value of one field, or
    /// of one bit, made them rows.
    pub mended: u64,
    /// Rows that were found twice, with the same rowid or key; the better-placed one was kept,
    /// the others are in `lost_and_found`, unless they are the same byte for byte.
    pub duplicates: u64,
    /// Rows that an index contradicts, at most 10,000: a bit flipped in one of the two.
    pub suspects: Vec<SuspectRow>,
}

impl TableSalvage {
    /// Whether the table is as it was: nothing of it was lost, mended, or found twice.
    pub fn is_whole(&self) -> bool {
        self.pages_lost == 0
            && self.rows_missing.unwrap_or(0) == 0
            && self.gaps.is_empty()
            && self.records_lost == 0
            && self.mended == 0
            && self.duplicates == 0
            && self.suspects.is_empty()
    }
}

/// A row that an index contradicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SuspectRow {
    /// The row.
    pub rowid: i64,
    /// The index.
    pub index: String,
}
