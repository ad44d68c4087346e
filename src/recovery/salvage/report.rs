//! What was saved and what was not.

use serde::Serialize;

/// The report of a salvage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Salvage {
    /// Bytes a page.
    pub page_size: u32,
    /// Pages that the database has, or had by its header.
    pub pages: u64,
    /// Pages that were read from the WAL instead of the file.
    pub pages_from_wal: u64,
    /// Pages whose content is lost.
    pub pages_lost: u64,
    /// Where the schema came from.
    pub schema_from: SchemaSource,
    /// The tables, in the schema's order. Virtual tables have no rows of their own and are left
    /// out; their shadow tables are included.
    pub tables: Vec<TableSalvage>,
    /// Rows without a known table, in `lost_and_found`.
    pub lost_and_found: u64,
    /// Virtual tables whose index was rebuilt from its content.
    pub rebuilt: Vec<String>,
    /// Statements of the schema that failed in the new database, each with the reason.
    pub schema_errors: Vec<String>,
}

/// Where a salvage took the schema from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SchemaSource {
    /// The file's own schema table, which is intact.
    #[default]
    File,
    /// Orphan pages of the file's own schema table.
    Orphans,
    /// The snapshot, for at least a part of the schema.
    Snapshot,
    /// There was none: every row is in `lost_and_found`.
    None,
}

/// One table of a salvage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSalvage {
    /// The table's name.
    pub name: String,
    /// Rows that are in the new database.
    pub rows: u64,
    /// How many of them were on orphan pages.
    pub adopted: u64,
    /// Pages of its b-tree that could not be read.
    pub pages_lost: u64,
    /// Rows that an index names and that were not found. `None` if no index of the table could be
    /// compared.
    pub rows_missing: Option<u64>,
    /// Rowids of such rows, at most 10,000.
    pub missing: Vec<i64>,
    /// Whether one of those indexes names every row that was saved. A row that such an index does
    /// not name did not exist. An index that has lost pages itself does not prove that.
    pub index_is_whole: bool,
    /// Ranges of rowids, both ends inclusive, that lost pages held: every lost row was in one of
    /// them. Empty if no page was lost, and for WITHOUT ROWID tables.
    pub gaps: Vec<(i64, i64)>,
    /// Records that are damaged beyond reading.
    pub records_lost: u64,
    /// Rows that were read in spite of a damaged record header: exactly one value of one field, or
    /// of one bit, makes the record valid.
    pub mended: u64,
    /// Rows that were found twice, with the same rowid or key. The better-placed one was kept. The
    /// others are in `lost_and_found`, unless they are identical byte for byte.
    pub duplicates: u64,
    /// Rows that an index contradicts, at most 10,000: one of the two is damaged.
    pub suspects: Vec<SuspectRow>,
}

impl TableSalvage {
    /// Whether the table is complete: no row was lost, mended, or found twice.
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
    /// The rowid of the row.
    pub rowid: i64,
    /// The name of the index.
    pub index: String,
}
