//! What is known of a file's b-trees when pages are looked for that are in wrong places.

use super::evidence::Evidence;
use super::forest::IndexTree;
use super::pages::Pages;
use super::survey::{Note, Survey};
use super::target::Shape;
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::Kind;

/// The b-trees.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) tables: &'a [Tree],
    /// What interior pages lead to that nothing leads to.
    pub(super) rootless: &'a [Tree],
    pub(super) indexes: &'a [IndexTree<'a>],
}

impl Places<'_> {
    /// What the tables and indexes have lost.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Lost> {
        let indexes = self.indexes.iter().map(|(tree, _)| tree);
        self.tables.iter().chain(indexes).flat_map(|tree| &tree.lost)
    }
}

/// Everything.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    /// With the free pages marked.
    pub(super) owners: &'a Owners,
    /// No other page is free.
    pub(super) all_free: bool,
    pub(super) shapes: &'a [Shape],
    pub(super) places: Places<'a>,
    pub(super) evidence: &'a Evidence<'a>,
}

impl<'a> Scene<'a> {
    /// Leaves of tables that nothing leads to.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (u32, &'a Note)> {
        let owners = self.owners;
        self.survey.iter().filter(move |(page, note)| {
            note.is_filled(Kind::TableLeaf) && owners.get(*page) == Owner::None
        })
    }
}
