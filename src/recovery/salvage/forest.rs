//! Walks every b-tree of the schema from its root.
//!
//! The owner number of a table is its place plus 1. The numbers of the indexes follow.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::evidence::Question;
use super::fit;
use super::floor::Floor;
use super::pages::Pages;
use super::parents::Above;
use super::survey::{Is, Note, Survey};
use super::target::{IndexShape, Shape};
use super::tree::{Owner, Owners, Tree, Walk};
use crate::engine::{Progress, Result};
use crate::format::PageKind;

/// The input of the walks.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    pub(super) shapes: &'a [Shape],
    pub(super) index_shapes: &'a [IndexShape],
    pub(super) floor: &'a Floor,
    pub(super) task: &'a dyn Progress,
}

/// An index's b-tree, and the layout of its entries if known.
pub(super) type IndexTree<'a> = (Tree, Option<&'a IndexShape>);

/// Pages that are known to be in a wrong place.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Leaves in the b-tree of a table they do not belong to.
    pub(super) not_theirs: HashSet<Question>,
    /// The page of each moved root, by the table's place.
    pub(super) roots: HashMap<usize, u32>,
}

/// The owner number of a table.
pub(super) fn number(table: usize) -> u32 {
    u32::try_from(table).unwrap_or(u32::MAX / 2).saturating_add(1)
}

impl<'a> Ground<'a> {
    /// Walks the tables, in the order of their shapes.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn tables(self, owners: &mut Owners) -> Result<Vec<Tree>> {
        let places = 0..self.shapes.len();
        let known = Moved::default();
        let trees = places.map(|place| self.table(owners, place, &known));
        trees.filter_map(Result::transpose).collect()
    }

    /// Walks the indexes at `roots`.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn indexes(
        self,
        owners: &mut Owners,
        roots: impl Iterator<Item = u32>,
    ) -> Result<Vec<IndexTree<'a>>> {
        let walk = |(place, root)| {
            let shape = self.index_shapes.iter().find(|shape| shape.root == root);
            match self.floor.index(root) {
                Some(tree) => Ok((tree, shape)),
                None => Ok((self.index(owners, number(place), root, shape)?, shape)),
            }
        };
        (self.shapes.len()..).zip(roots).map(walk).collect()
    }

    /// Walks the b-trees below interior table pages that have no owner. Their tables are unknown.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn rootless(self, owners: &Owners) -> Result<Vec<Tree>> {
        let Self { pages, survey, task, .. } = self;
        // A root that has changed places with a free page is on the freelist.
        let interior = |(page, note): &(u32, &Note)| {
            note.is == Is::Tree(PageKind::TableInterior)
                && matches!(owners.get(*page), Owner::None | Owner::Free)
        };
        let pages_above: Vec<u32> = survey.iter().filter(interior).map(|(page, _)| page).collect();
        if pages_above.is_empty() {
            return Ok(Vec::new());
        }
        let above = Above::find(pages, survey, owners);
        let mut owners = owners.clone();
        let mut trees = Vec::new();
        // Pages with a parent come last: the parent's pointer may be wrong.
        let (led_to, tops): (Vec<u32>, Vec<u32>) =
            pages_above.into_iter().partition(|&page| above.knows(page));
        for top in tops.into_iter().chain(led_to) {
            let owners = &mut owners;
            match owners.get(top) {
                Owner::None => {}
                Owner::Free => owners.set(top, Owner::None),
                _ => continue,
            }
            let (number, fits) = (u32::MAX / 2, &|_: u32, _: &Note| true);
            let walk = Walk { pages, survey, owners, task, number, fits, descending: &[] };
            trees.push(walk.tree(top, true)?);
        }
        Ok(trees)
    }

    /// Walks the tables with moved pages again.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn tables_again(
        self,
        known: &Moved,
        owners: &mut Owners,
        trees: &mut [Tree],
    ) -> Result<()> {
        let not_theirs = known.not_theirs.iter().map(|(table, _)| *table);
        let mut tables: BTreeSet<usize> = not_theirs.chain(known.roots.keys().copied()).collect();
        tables.retain(|&table| self.floor.table(table).is_none());
        for &table in &tables {
            owners.release(Owner::Tree(number(table)));
        }
        for &table in &tables {
            let walked = self.table(owners, table, known)?;
            if let (Some(tree), Some(walked)) = (trees.get_mut(table), walked) {
                *tree = walked;
            }
        }
        Ok(())
    }

    fn table(self, owners: &mut Owners, place: usize, known: &Moved) -> Result<Option<Tree>> {
        let Self { pages, survey, shapes, task, .. } = self;
        let Some(shape) = shapes.get(place) else { return Ok(None) };
        if let Some(tree) = self.floor.table(place) {
            return Ok(Some(tree));
        }
        let fits = |page: u32, note: &Note| {
            !known.not_theirs.contains(&(place, page))
                && (fit::fit(note, shape).is_some() || fit::most_fit(pages, page, shape))
        };
        let number = number(place);
        let descending = &shape.descending;
        let walk = Walk { pages, survey, owners, task, number, fits: &fits, descending };
        let root = known.roots.get(&place).copied().unwrap_or(shape.root);
        walk.tree(root, !shape.without_rowid).map(Some)
    }

    fn index(
        self,
        owners: &mut Owners,
        number: u32,
        root: u32,
        shape: Option<&IndexShape>,
    ) -> Result<Tree> {
        let Self { pages, survey, shapes, task, .. } = self;
        let fits = |_: u32, note: &Note| {
            // A damaged page may still have entries of the index.
            !note.sound || shape.is_none_or(|shape| fit::index_fits(note, shape, shapes))
        };
        Walk { pages, survey, owners, task, number, fits: &fits, descending: &[] }.tree(root, false)
    }
}
