//! Which pages a b-tree's root leads to, as far as they are what they must be.
//!
//! Each child of a table's page must hold rowids between its neighbours' keys, and records that
//! could be rows of that table. One that does not is not this table's page, whatever led to it
//! (it was swapped, copied over, used again); what should have been there is noted as [`Lost`].
//!
//! Memory: 4 bytes a page for owners, 4 for the lists of leaves, and what is lost.

use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Note, Survey};
use crate::engine::{Result, Task};
use crate::format::Kind;

/// Levels that a b-tree of SQLite's can have.
const DEEPEST: usize = 20;

/// Who has which page.
#[derive(Debug)]
pub(super) struct Owners {
    of: Vec<u32>,
}

/// A page's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody is known.
    None,
    /// It is free.
    Free,
    /// An overflow chain.
    Chain,
    /// The b-tree of that number.
    Tree(u32),
}

impl Owners {
    pub(super) fn new(count: u32) -> Self {
        Self { of: vec![0; count as usize] }
    }

    pub(super) fn get(&self, page: u32) -> Owner {
        let place = (page as usize).checked_sub(1);
        match place.and_then(|place| self.of.get(place)).copied().unwrap_or(0) {
            0 => Owner::None,
            1 => Owner::Free,
            2 => Owner::Chain,
            tree => Owner::Tree(tree - 3),
        }
    }

    pub(super) fn set(&mut self, page: u32, owner: Owner) {
        let place = (page as usize).checked_sub(1);
        if let Some(of) = place.and_then(|place| self.of.get_mut(place)) {
            *of = match owner {
                Owner::None => 0,
                Owner::Free => 1,
                Owner::Chain => 2,
                Owner::Tree(tree) => tree.saturating_add(3),
            };
        }
    }
}

/// Pages that a b-tree should have and that are not what they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Least rowid that was there.
    pub(super) low: i64,
    /// Greatest.
    pub(super) high: i64,
    /// It was one leaf; else whatever a page above the leaves led to.
    pub(super) leaf: bool,
    /// The page's number.
    pub(super) page: u32,
    /// It was found elsewhere.
    pub(super) found: bool,
}

/// A b-tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: u32,
    /// A table with rowids.
    pub(super) table: bool,
    /// Pages with records, leaves in the b-tree's order.
    pub(super) pages: Vec<u32>,
    pub(super) lost: Vec<Lost>,
}

/// Walks a b-tree's pages.
pub(super) struct Walk<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    pub(super) owners: &'a mut Owners,
    pub(super) task: &'a dyn Task,
    /// The b-tree's number.
    pub(super) number: u32,
    /// Whether a page's records could be this b-tree's.
    pub(super) fits: &'a dyn Fn(u32, &Note) -> bool,
}

/// What a page turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Leaf,
    Interior,
    Nothing,
}

impl Walk<'_> {
    /// Walks the b-tree at `tree.root`, whose rowids are from `low` to `high`.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn tree(&mut self, tree: &mut Tree, low: i64, high: i64) -> Result<()> {
        self.task.go_on()?;
        let found = self.page(tree, tree.root, low, high, 0)?;
        if found == Found::Nothing {
            tree.lost.push(Lost { low, high, leaf: false, page: tree.root, found: false });
        }
        Ok(())
    }

    fn page(
        &mut self,
        tree: &mut Tree,
        number: u32,
        low: i64,
        high: i64,
        depth: usize,
    ) -> Result<Found> {
        let note = self.survey.note(number);
        let Is::Tree(kind) = note.is else { return Ok(Found::Nothing) };
        let root = number == tree.root;
        let in_place = kind.is_table() == tree.table
            && depth < DEEPEST
            && self.owners.get(number) == Owner::None
            && (!tree.table || note.cells == 0 || (note.low >= low && note.high <= high));
        if !in_place {
            return Ok(Found::Nothing);
        }
        if !kind.is_interior() {
            // A leaf with no rows is the root of an empty table.
            if (note.cells == 0 && !(root && note.sound)) || !(self.fits)(number, &note) {
                return Ok(Found::Nothing);
            }
            self.owners.set(number, Owner::Tree(self.number));
            tree.pages.push(number);
            return Ok(Found::Leaf);
        }
        if kind == Kind::IndexInterior && note.cells > 0 && !(self.fits)(number, &note) {
            return Ok(Found::Nothing);
        }
        self.owners.set(number, Owner::Tree(self.number));
        let found = self.children(tree, number, low, high, depth)?;
        if !found {
            // It leads nowhere: another b-tree's page, which may still claim it.
            self.owners.set(number, Owner::None);
            return Ok(Found::Nothing);
        }
        if kind == Kind::IndexInterior {
            tree.pages.push(number);
        }
        Ok(Found::Interior)
    }

    /// Walks an interior page's children; whether one of them is this b-tree's.
    fn children(
        &mut self,
        tree: &mut Tree,
        number: u32,
        low: i64,
        high: i64,
        depth: usize,
    ) -> Result<bool> {
        let Some(bytes) = self.pages.read(number) else { return Ok(false) };
        let Some(page) = leaf::open(&bytes, self.pages.layout.usable, number == 1) else {
            return Ok(false);
        };
        let lost_before = tree.lost.len();
        let mut any = false;
        let mut level = Found::Nothing;
        let mut from = low;
        let mut below = true;
        for (child, key) in page.children() {
            let to = match key {
                // A damaged key: its child is followed as far as the next one.
                Some(key) if tree.table && (key < from || key > high) => continue,
                Some(key) if tree.table => key,
                _ => high,
            };
            let found =
                if below { self.page(tree, child, from, to, depth + 1)? } else { Found::Nothing };
            if found == Found::Nothing {
                let lost = Lost { low: from, high: to, leaf: false, page: child, found: false };
                tree.lost.push(lost);
            } else {
                any = true;
                level = found;
            }
            if tree.table && key.is_some() {
                match to.checked_add(1) {
                    Some(next) => from = next,
                    None => below = false,
                }
            }
        }
        if !any {
            tree.lost.truncate(lost_before);
        } else if level == Found::Leaf {
            // All children of a page are of one level.
            for lost in tree.lost.iter_mut().skip(lost_before) {
                lost.leaf = true;
            }
        }
        Ok(any)
    }
}
