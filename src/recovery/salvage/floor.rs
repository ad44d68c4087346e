//! The floor: tables that SQLite itself reads to their end, and in which its check of the whole
//! file finds no fault, indexes included. The salvage keeps them exactly.
//!
//! SQLite copies their rows and index entries byte for byte ([`super::target`]), under neutral
//! declarations, so a sound table needs no function or collation of its application. No heuristic
//! changes them. They own their pages before the walks begin, so no other b-tree gets one. SQLite's
//! own tables (`sqlite_…`) keep their pages, too; their rows go into the tables that SQLite makes.
//!
//! Runs on the salvage's thread. May call: `original`, `neutral`.

use super::forest;
use super::geometry::Geometry;
use super::pages::{AsImage, Pages};
use super::snapshot::SchemaEntry;
use super::target::Target;
use super::tree::{Owner, Owners, Tree};
use crate::engine::{Progress, Result};
use crate::recovery::neutral::NeutralTable;
use crate::recovery::original::{Original, is_of_the_file};

/// A table that SQLite reads and checks without a fault.
#[derive(Debug)]
pub(super) struct Sound {
    /// Its place among the target's tables; none where it could not be made by its statement.
    place: Option<usize>,
    /// Its rows in the target, where it is carried over.
    rows: Option<u64>,
    name: String,
    /// Its own pages: with records, in the b-tree's order, and others.
    tree: Claimed,
    /// By root.
    indexes: Vec<(u32, Claimed)>,
}

/// The pages of one b-tree.
#[derive(Debug)]
struct Claimed {
    root: u32,
    table: bool,
    records: Vec<u32>,
    others: Vec<u32>,
}

/// The sound tables of a file.
#[derive(Debug, Default)]
pub(super) struct Floor {
    tables: Vec<Sound>,
}

impl Floor {
    /// Finds the sound tables of `schema` and has the target carry them over.
    ///
    /// # Errors
    /// Those of writing the target; `task`'s.
    pub(super) fn lay(
        pages: &Pages<'_>,
        geometry: &Geometry,
        schema: &[SchemaEntry],
        target: &mut Target,
        task: &dyn Progress,
    ) -> Result<Self> {
        let format = geometry.format();
        let image = AsImage::whole(pages);
        let original = match Original::open(&image, format, schema) {
            Ok(original) => original,
            // SQLite takes no such image: then it reads nothing, and there is no floor.
            Err(error) if error.errcode != rusqlite::ffi::SQLITE_FULL => {
                task.check_cancelled()?;
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let faults = original.check(task)?;
        let mut sound = Vec::new();
        for table in &original.tables {
            if !faults.spare(table) {
                continue;
            }
            task.check_cancelled()?;
            if !original.reads(table, task)? {
                continue;
            }
            if let Some(claimed) = claim(&original, table, task)? {
                sound.push((table.clone(), claimed));
            }
        }
        drop(original);
        if sound.is_empty() {
            return Ok(Self::default());
        }
        let (own, others): (Vec<_>, Vec<_>) =
            sound.into_iter().partition(|(table, _)| is_internal(table));
        let tables: Vec<NeutralTable> = others.iter().map(|(table, _)| table.clone()).collect();
        let carried = target.carry(&image, format, &tables, task)?;
        let carried = others.into_iter().zip(carried).filter(|(_, rows)| rows.is_some());
        let own = own.into_iter().map(|table| (table, None));
        let place = |name: &str| target.shapes().iter().position(|shape| shape.table == name);
        let tables = carried
            .chain(own)
            .map(|((table, (tree, indexes)), rows)| {
                let place = place(&table.name);
                Sound { place, rows, name: table.name, tree, indexes }
            })
            .collect();
        Ok(Self { tables })
    }

    /// Gives the tables their pages, for good.
    pub(super) fn claim(&self, owners: &mut Owners, tables: usize) {
        for (number, table) in (0..).zip(&self.tables) {
            // A table that could not be made has no place; its number is one that no walk has.
            let owner = table.place.map_or(u32::MAX / 4 - number, forest::number);
            table.tree.claim(owners, Owner::Tree(owner));
            for (at, (_, index)) in table.indexes.iter().enumerate() {
                let beyond = forest::number(tables).saturating_add(u32::MAX / 8);
                let owner = beyond.saturating_add(u32::try_from(at).unwrap_or(0));
                index.claim(owners, Owner::Tree(owner));
            }
        }
    }

    /// The b-tree of the table at `place`, if it is sound.
    pub(super) fn table(&self, place: usize) -> Option<Tree> {
        let table = self.tables.iter().find(|table| table.place == Some(place))?;
        Some(table.tree.tree())
    }

    /// The index's b-tree at `root`, if it is a sound table's.
    pub(super) fn index(&self, root: u32) -> Option<Tree> {
        let mut indexes = self.tables.iter().flat_map(|table| &table.indexes);
        indexes.find(|(of, _)| *of == root).map(|(_, index)| index.tree())
    }

    /// The rows of the table at `place`, if it is carried over.
    pub(super) fn rows(&self, place: usize) -> Option<u64> {
        self.tables.iter().find(|table| table.place == Some(place))?.rows
    }

    /// The names and rows of tables that could not be made by their statements.
    pub(super) fn unmade(&self) -> impl Iterator<Item = (&str, u64)> {
        let unmade = self.tables.iter().filter(|table| table.place.is_none());
        unmade.filter_map(|table| Some((table.name.as_str(), table.rows?)))
    }
}

impl Claimed {
    fn claim(&self, owners: &mut Owners, owner: Owner) {
        for &page in self.records.iter().chain(&self.others) {
            owners.settle(page, owner);
        }
    }

    fn tree(&self) -> Tree {
        Tree {
            root: self.root,
            table: self.table,
            pages: self.records.clone(),
            placed: Vec::new(),
            outlying: Vec::new(),
            lost: Vec::new(),
            settled: true,
        }
    }
}

/// The pages of a table, and of its indexes by root.
type TableClaim = (Claimed, Vec<(u32, Claimed)>);

/// Whether it is one of SQLite's own tables, which are made as SQLite makes them.
fn is_internal(table: &NeutralTable) -> bool {
    table.name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}

/// The pages of a table and of its indexes; none where SQLite cannot follow one of the b-trees.
fn claim(
    original: &Original<'_>,
    table: &NeutralTable,
    task: &dyn Progress,
) -> Result<Option<TableClaim>> {
    let of = |place: usize, root: u32, has_rowid: bool| {
        let pages = match original.pages_of(place, task) {
            Ok(pages) => pages,
            Err(error) if is_of_the_file(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (mut records, mut others) = (pages.leaves, pages.overflow);
        // The interior pages of an index's b-tree have records, too.
        if has_rowid {
            others.extend(pages.interior)
        } else {
            records.extend(pages.interior)
        }
        Ok(Some(Claimed { root, table: has_rowid, records, others }))
    };
    let Some(tree) = of(table.entry, table.root, table.has_rowid())? else { return Ok(None) };
    let mut indexes = Vec::new();
    for index in &table.indexes {
        let Some(claimed) = of(index.entry, index.root, false)? else { return Ok(None) };
        indexes.push((index.root, claimed));
    }
    Ok(Some((tree, indexes)))
}
