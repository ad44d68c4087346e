//! The role and the b-tree of each page of a database file, for a picture of it.
//!
//! Walks every b-tree that the schema names, with overflow chains, the freelist and the pointer
//! map. The file may be damaged, so no page is trusted: each page is claimed once, by the first
//! page that leads to it, so that loops end and pages with two parents are detected. The walk reads
//! each page once, roots twice.
//!
//! | module | owns |
//! |---|---|
//! | [`walk`] | the walk |
//! | [`cells`] | the state of each page, and the runs of equal pages |
//! | [`pages`] | reading pages of the file and its WAL |
//!
//! Memory: 4 bytes per page, 24 bytes per page of the longest row of siblings, and the index of the
//! WAL's frames; about 40 MB for 10 GB in pages of 4 KiB. Any thread; blocks it for the whole walk.

mod cells;
pub(super) mod pages;
mod walk;

pub(super) use pages::Pages;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::info::PATIENCE;
use crate::engine::{Result, Storage, Task, View};

/// The most damaged pages that are listed one by one.
const LISTED: usize = 10_000;

/// The role of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Role {
    /// No page leads to it.
    #[default]
    Orphan,
    /// An interior page of a b-tree.
    Interior,
    /// A leaf of a b-tree.
    Leaf,
    /// An overflow page of a row or an index entry.
    Overflow,
    /// A trunk page of the freelist.
    FreeTrunk,
    /// A leaf page of the freelist.
    FreeLeaf,
    /// A page of the pointer map, in files with auto-vacuum.
    PointerMap,
    /// The lock-byte page at 1 GiB.
    LockByte,
    /// The header counts the page, but the file ends before it.
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
    /// Pages, including missing pages.
    pub pages: u64,
    /// Pages per cell, to which runs are rounded: 1 unless the file has more pages than
    /// [`Options::resolution`].
    pub pages_per_cell: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Pages that were read from the WAL.
    pub pages_from_wal: u64,
    /// Source of the names of b-trees.
    pub names_from: Names,
    /// Tables and indexes, in the schema's order.
    pub owners: Vec<Owner>,
    /// How many pages have each role.
    pub roles: BTreeMap<Role, u64>,
    /// The file from its first page to its last.
    pub runs: Vec<Run>,
    /// Damaged pages.
    pub damaged_pages: u64,
    /// The first 10,000 of them, each with the reason.
    pub damaged: Vec<DamagedPage>,
}

/// Source of the names of b-trees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Names {
    /// The file's own schema table.
    #[default]
    Schema,
    /// The readable rest of the schema table, and [`Options::known`].
    Known,
    /// No source: b-trees are found by their pages, and named after their root pages.
    Nothing,
}

/// A b-tree of an earlier schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Whether it is a table or an index.
    pub kind: OwnerKind,
    /// Its table; a table's own name.
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
    /// Whether it is a table or an index.
    #[serde(rename = "type")]
    pub kind: OwnerKind,
    /// Its table; a table's own name.
    pub table: String,
    /// The root page of its b-tree.
    pub root: u32,
    /// Its pages, without missing pages.
    pub pages: u64,
    /// How many of them are interior pages.
    pub interior_pages: u64,
    /// How many of them are overflow pages.
    pub overflow_pages: u64,
    /// How many of them are damaged.
    pub damaged_pages: u64,
    /// Pages that it leads to but that lie beyond the end of the file.
    pub missing_pages: u64,
}

/// The kind of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnerKind {
    /// A table.
    Table,
    /// An index.
    Index,
}

/// Adjacent pages with the same owner, role and damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Number of the first page.
    pub first: u64,
    /// Number of pages.
    pub pages: u64,
    /// Index in [`PageMap::owners`]; `None` for pages of no b-tree.
    pub owner: Option<u16>,
    /// Their role.
    pub role: Role,
    /// They are damaged; in a cell of several pages, at least one of them is.
    pub damaged: bool,
}

/// A damaged page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedPage {
    /// Its number.
    pub page: u32,
    /// Index in [`PageMap::owners`].
    pub owner: Option<u16>,
    /// The fault, for a person.
    pub reason: &'static str,
}

/// Options of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The most cells of the map, at least 1. If the file has more pages, a cell stands for several
    /// pages and shows the worst of them.
    pub resolution: u64,
    /// Pages that an integrity check reported as damaged.
    pub damaged: Vec<u32>,
    /// B-trees of an earlier schema, for a file whose schema table is damaged.
    pub known: Vec<Known>,
}

impl Default for Options {
    fn default() -> Self {
        Self { resolution: 50_000, damaged: Vec::new(), known: Vec::new() }
    }
}

/// Maps the database at `path`, which may be in use: readers and writers go on.
///
/// # Errors
/// `SQLITE_BUSY` if it is locked for longer than [`PATIENCE`]; SQLite's; `task`'s; `SQLITE_NOTADB`
/// if its page size is unknown. Damage is part of the map, not an error.
pub fn page_map(path: &Path, options: &Options, task: &dyn Task) -> Result<PageMap> {
    let view = View::open(path, Instant::now() + PATIENCE, task)?;
    let wal = view.wal().map(|wal| wal as &dyn Storage);
    let mut map = map(view.database(), wal, options, task).map_err(|error| error.at(path))?;
    map.path = view.path().to_string_lossy().into_owned();
    Ok(map)
}

/// Maps a database that no connection writes to meanwhile. [`PageMap::path`] is left empty.
///
/// # Errors
/// As [`page_map`].
pub fn map(
    database: &dyn Storage,
    wal: Option<&dyn Storage>,
    options: &Options,
    task: &dyn Task,
) -> Result<PageMap> {
    walk::walk(database, wal, options, task)
}
