//! The input of the passes that look for pages in wrong places.

use super::evidence::Evidence;
use super::forest::IndexTree;
use super::pages::Pages;
use super::survey::{Note, Survey};
use super::target::Shape;
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::PageKind;

/// The b-trees.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) tables: &'a [Tree],
    /// B-trees below interior pages without a parent.
    pub(super) rootless: &'a [Tree],
    pub(super) indexes: &'a [IndexTree<'a>],
}

impl Places<'_> {
    /// The lost pages of the tables and indexes.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Lost> {
        let indexes = self.indexes.iter().map(|(tree, _)| tree);
        self.tables.iter().chain(indexes).flat_map(|tree| &tree.lost)
    }
}

/// Read-only view of the walked b-trees.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    /// The owners, with the free pages marked.
    pub(super) owners: &'a Owners,
    /// The freelist was complete: no other page is free.
    pub(super) all_free: bool,
    pub(super) shapes: &'a [Shape],
    pub(super) places: Places<'a>,
    pub(super) evidence: &'a Evidence<'a>,
}

impl<'a> Scene<'a> {
    /// Orphan table leaves.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (u32, &'a Note)> {
        let owners = self.owners;
        self.survey.iter().filter(move |(page, note)| {
            note.is_filled(PageKind::TableLeaf) && owners.get(*page) == Owner::None
        })
    }
}
