//! A saved copy of a file's schema and root pages, as data.

use serde::{Deserialize, Serialize};

/// A row of `sqlite_schema`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaEntry {
    /// `table`, `index`, `view` or `trigger`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table that it belongs to; a table's own name.
    pub table: String,
    /// Root page of its b-tree; 0 for views, triggers and virtual tables.
    pub root: u32,
    /// Its statement; none for automatic indexes.
    pub sql: Option<String>,
}

/// What a database file says of itself as a whole, at a moment when it was sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Bytes a page.
    pub page_size: u32,
    /// Bytes at the end of each page that are not SQLite's.
    pub reserved: u8,
    /// `PRAGMA encoding`, as the header has it: 1 UTF-8, 2 UTF-16le, 3 UTF-16be.
    pub encoding: u8,
    /// 0 none, 1 full, 2 incremental.
    pub auto_vacuum: u8,
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// `PRAGMA application_id`.
    pub application_id: i32,
    /// `PRAGMA schema_version`.
    pub schema_cookie: u32,
    /// The rows of `sqlite_schema`, in their order.
    pub schema: Vec<SchemaEntry>,
    /// Milliseconds since 1970-01-01 UTC.
    pub taken_ms: u64,
}
