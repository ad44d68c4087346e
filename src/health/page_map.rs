//! What each page of a database file is and belongs to, for a picture of it.
//!
//! Walks every b-tree that the schema names, with overflow chains, the list of free pages and the
//! pointer map, over whatever is left of them. Nothing of it is trusted: each page is claimed
//! once, by the first that leads to it, so that loops end and pages that two lead to are found;
//! the walk reads each page once, roots twice.
//!
//! | module | owns |
//! |---|---|
//! | [`walk`] | the walk |
//! | [`map_cells`] | what is known of each page, and the runs that they make |
//! | [`pages`] | the pages of a database, those in its WAL included |
//!
//! Memory: 4 bytes a page, 24 bytes a page of the deepest row of siblings, and the WAL's index;
//! 40 MB or so for 10 GB in pages of 4 KiB. Any thread; blocks it as long as reading takes.

mod map_cells;
pub(super) mod pages;
mod walk;

pub(super) use pages::Pages;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::info::PATIENCE;
use crate::engine::{PageSource, Progress, Result, View};

/// Pages whose damage is told one by one.
const TOLD: usize = 10_000;

/// What a page is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Role {
    /// Nothing leads to it.
    #[default]
    Orphan,
    /// Of a b-tree, with children.
    Interior,
    /// Of a b-tree, with rows or index entries only.
    Leaf,
    /// The continuation of a row or an index entry.
    Overflow,
    /// Part of the list of free pages.
    FreeTrunk,
    /// Free.
    FreeLeaf,
    /// Of the pointer map, in files with auto-vacuum.
    PointerMap,
    /// The page at 1 GiB, where SQLite's locks are.
    LockByte,
    /// The header counts it, and the file ends before it.
    Missing,
}

/// A page map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageMap {
    /// The path, as SQLite resolved it.
    pub path: String,
    /// Bytes a page.
    pub page_size: u32,
    /// Pages, missing ones included.
    pub pages: u64,
    /// Pages that the runs are rounded to: 1 unless there are more pages than the resolution.
    pub pages_per_cell: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Pages that were read from the WAL.
    pub pages_from_wal: u64,
    /// What names the b-trees.
    pub names_from: Names,
    /// Tables and indexes, in the schema's order.
    pub owners: Vec<Owner>,
    /// How many pages have each role.
    pub roles: BTreeMap<Role, u64>,
    /// The file from its first page to its last.
    pub runs: Vec<Run>,
    /// Damaged pages.
    pub damaged_pages: u64,
    /// The first 10,000 of them, and why they are.
    pub damaged: Vec<DamagedPage>,
}

/// What the names of b-trees are from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Names {
    /// The file's own schema table.
    #[default]
    Schema,
    /// In addition to what is left of the schema table, [`MapOptions::known`].
    Known,
    /// Nothing: b-trees are told apart, and called by their root pages.
    Nothing,
}

/// A b-tree that is known of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// What it is.
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
    /// What it is.
    #[serde(rename = "type")]
    pub kind: OwnerKind,
    /// Its table; a table's own name.
    pub table: String,
    /// The root page of its b-tree.
    pub root: u32,
    /// All of its pages that there are.
    pub pages: u64,
    /// How many of them are interior pages.
    pub interior_pages: u64,
    /// How many of them are overflow pages.
    pub overflow_pages: u64,
    /// How many of them are damaged.
    pub damaged_pages: u64,
    /// Pages that it leads to, and before which the file ends.
    pub missing_pages: u64,
}

/// What an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnerKind {
    /// A table.
    Table,
    /// An index.
    Index,
}

/// Neighbouring pages that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The first.
    pub first: u64,
    /// How many.
    pub pages: u64,
    /// Place in [`PageMap::owners`]; none for pages of no b-tree.
    pub owner: Option<u16>,
    /// What they are.
    pub role: Role,
    /// They are damaged; of pages that share a cell, one of them is.
    pub damaged: bool,
}

/// A damaged page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedPage {
    /// Its number.
    pub page: u32,
    /// Place in [`PageMap::owners`].
    pub owner: Option<u16>,
    /// What is wrong with it, for a person.
    pub reason: &'static str,
}

/// What a map is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapOptions {
    /// Cells that the runs are made of, at most, 1 at least; a cell stands for several pages
    /// where there are more pages, and is as the worst of them.
    pub resolution: u64,
    /// Pages that are damaged by somebody else's finding.
    pub damaged: Vec<u32>,
    /// B-trees that there were at an earlier time, for a file whose schema table is damaged.
    pub known: Vec<Known>,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self { resolution: 50_000, damaged: Vec::new(), known: Vec::new() }
    }
}

/// Maps the database at `path`, which may be in use: readers and writers go on.
///
/// # Errors
/// `SQLITE_BUSY` where it is locked for longer than [`PATIENCE`]; SQLite's; `task`'s;
/// `SQLITE_NOTADB` where not even the size of its pages can be told. Damage is none.
pub fn page_map(path: &Path, options: &MapOptions, task: &dyn Progress) -> Result<PageMap> {
    let view = View::open(path, Instant::now() + PATIENCE, task)?;
    let wal = view.wal().map(|wal| wal as &dyn PageSource);
    let mut map = map(view.database(), wal, options, task).map_err(|error| error.at(path))?;
    map.path = view.path().to_string_lossy().into_owned();
    Ok(map)
}

/// Maps a database that nobody writes to meanwhile. [`PageMap::path`] is left empty.
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
