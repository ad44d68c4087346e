//! The type and the owner of each page of a database file, for a page map.
//!
//! Walks every b-tree that the schema lists, overflow chains, the freelist and the pointer map. The
//! file may be damaged, so no pointer is trusted. The first pointer to a page claims it: so loops
//! end, and a second pointer to the same page is detected. The walk reads each page once, roots
//! twice.
//!
//! | module | owns |
//! |---|---|
//! | [`walk`] | the walk |
//! | [`map_cells`] | the state of each page, and the runs of equal pages |
//! | [`pages`] | the pages of a database, those in its WAL included |
//!
//! Memory: 4 bytes per page, 24 bytes per page that waits for its visit, and the WAL's page index;
//! about 40 MB for 10 GB in pages of 4 KiB. Any thread; blocks it while the file is read.

mod map_cells;
pub(super) mod pages;
mod walk;

pub(super) use pages::Pages;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::info::PATIENCE;
use crate::engine::{PageSnapshot, PageSource, Progress, Result};

/// Damaged pages that are listed individually.
const LISTED_PAGES: usize = 10_000;

/// Type of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Role {
    /// No page points to it.
    #[default]
    Orphan,
    /// Interior page of a b-tree.
    Interior,
    /// Leaf page of a b-tree: rows or index entries.
    Leaf,
    /// Overflow page of a row or an index entry.
    Overflow,
    /// Freelist trunk page.
    FreeTrunk,
    /// Freelist leaf page.
    FreeLeaf,
    /// Pointer map page, in files with auto-vacuum.
    PointerMap,
    /// The lock-byte page, at 1 GiB.
    LockByte,
    /// The header counts it, but the file ends before it.
    Missing,
}

/// A page map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageMap {
    /// The path, as SQLite resolved it.
    pub path: String,
    /// Bytes per page.
    pub page_size: u32,
    /// Pages, missing ones included.
    pub pages: u64,
    /// Pages that one cell of the map stands for: 1 unless there are more pages than the
    /// resolution.
    pub pages_per_cell: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Pages that were read from the WAL.
    pub pages_from_wal: u64,
    /// Source of the b-trees' names.
    pub names_from: Names,
    /// Tables and indexes, in the schema's order.
    pub owners: Vec<Owner>,
    /// How many pages have each role.
    pub roles: BTreeMap<Role, u64>,
    /// Runs of equal pages, from the first page of the file to its last.
    pub runs: Vec<Run>,
    /// Number of damaged pages.
    pub damaged_pages: u64,
    /// The first 10,000 of them, and the reason of each.
    pub damaged: Vec<DamagedPage>,
}

/// Source of the names of the b-trees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Names {
    /// The file's own schema table.
    #[default]
    Schema,
    /// The readable rows of the damaged schema table, and [`MapOptions::known`].
    Known,
    /// No source: each b-tree is named by its root page.
    Nothing,
}

/// A b-tree with a known name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Table or index.
    pub kind: OwnerKind,
    /// The table of an index; the own name of a table.
    pub table: String,
    /// The root page of its b-tree.
    pub root: u32,
}

/// A table or an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Table or index.
    #[serde(rename = "type")]
    pub kind: OwnerKind,
    /// The table of an index; the own name of a table.
    pub table: String,
    /// The root page of its b-tree.
    pub root: u32,
    /// Its pages, without missing ones.
    pub pages: u64,
    /// How many of them are interior pages.
    pub interior_pages: u64,
    /// How many of them are overflow pages.
    pub overflow_pages: u64,
    /// How many of them are damaged.
    pub damaged_pages: u64,
    /// Pages that it points to and that lie beyond the end of the file.
    pub missing_pages: u64,
}

/// Kind of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnerKind {
    /// A table.
    Table,
    /// An index.
    Index,
}

/// Consecutive pages with the same owner, role and damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Number of the first page.
    pub first: u64,
    /// Number of pages.
    pub pages: u64,
    /// Index into [`PageMap::owners`]; `None` for pages of no b-tree.
    pub owner: Option<u16>,
    /// Their type.
    pub role: Role,
    /// Whether they are damaged. If several pages share a cell: whether one of them is.
    pub damaged: bool,
}

/// A damaged page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedPage {
    /// Its number.
    pub page: u32,
    /// Index into [`PageMap::owners`].
    pub owner: Option<u16>,
    /// The damage, as a message to the user.
    pub reason: &'static str,
}

/// Options of a page map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapOptions {
    /// Largest number of cells in the map, at least 1. If there are more pages, a cell stands for
    /// several of them, and has the state of the worst.
    pub resolution: u64,
    /// Pages that a check has reported as damaged.
    pub damaged: Vec<u32>,
    /// B-trees of an earlier version of the schema, for a file whose schema table is damaged.
    pub known: Vec<Known>,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self { resolution: 50_000, damaged: Vec::new(), known: Vec::new() }
    }
}

/// Maps the database at `path`. It may be in use: the map blocks neither readers nor writers.
///
/// # Errors
/// `SQLITE_BUSY` if it is locked for longer than [`PATIENCE`]; SQLite's; `task`'s; `SQLITE_NOTADB`
/// if its page size cannot be determined. Damage is part of the map, not an error.
pub fn page_map(path: &Path, options: &MapOptions, task: &dyn Progress) -> Result<PageMap> {
    let view = PageSnapshot::open(path, Instant::now() + PATIENCE, task)?;
    let wal = view.wal().map(|wal| wal as &dyn PageSource);
    let mut map = map(view.database(), wal, options, task).map_err(|error| error.at(path))?;
    map.path = view.path().to_string_lossy().into_owned();
    Ok(map)
}

/// Maps a database that no connection writes to meanwhile. [`PageMap::path`] is left empty.
///
/// # Errors
/// As [`page_map`].
pub fn map(
    database: &dyn PageSource,
    wal: Option<&dyn PageSource>,
    options: &MapOptions,
    task: &dyn Progress,
) -> Result<PageMap> {
    walk::walk(database, wal, options, task)
}
