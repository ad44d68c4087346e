//! Finds the parents of a page that is reachable from no root.
//!
//! The pointer map of an auto-vacuum file has the parent of every page, up to the root, even if the
//! parent is lost. In other files the orphan interior pages have the parents. Memory: an entry for
//! each orphan.

use std::collections::HashMap;

use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners};
use crate::format::PageKind;
use crate::format::ptrmap::{self, Entry};

/// Maximum number of levels to climb.
const HIGHEST: usize = 20;

/// The owner of a page by the pointer map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// No entry, or an impossible one.
    Unknown,
    /// The page is free.
    Free,
    /// The page belongs to the b-tree with that root.
    To(u32),
}

/// The owner of a b-tree page by the pointer map.
pub(super) fn of(pages: &Pages<'_>, page: u32) -> Belongs {
    let mut at = page;
    for _ in 0..HIGHEST {
        match entry(pages, at) {
            Some(Entry::Root) => return Belongs::To(at),
            Some(Entry::Free) if at == page => return Belongs::Free,
            Some(Entry::Child(parent)) => at = parent,
            _ => return Belongs::Unknown,
        }
    }
    Belongs::Unknown
}

fn entry(pages: &Pages<'_>, page: u32) -> Option<Entry> {
    let layout = pages.layout;
    if page < 3 {
        return None;
    }
    let map = ptrmap::page_for(page, layout.page_size, layout.usable);
    let bytes = pages.read(map)?;
    ptrmap::entry(bytes.get(..layout.usable).unwrap_or(&bytes), map, page)
}

/// The parents of orphans that are orphans themselves.
pub(super) struct Above(HashMap<u32, u32>);

impl Above {
    /// Collects the children of all orphan interior pages.
    pub(super) fn find(pages: &Pages<'_>, survey: &Survey, owners: &Owners) -> Self {
        let mut above = HashMap::new();
        for (page, note) in survey.iter() {
            let interior = matches!(note.is, Is::Tree(kind) if kind.is_interior());
            if !interior || matches!(owners.get(page), Owner::Tree(_)) {
                continue;
            }
            let Some(bytes) = pages.read(page) else { continue };
            let Some(view) = leaf::open(&bytes, pages.layout.usable, page == 1) else { continue };
            for (child, _) in view.children() {
                let of_kind =
                    matches!(survey.note(child).is, Is::Tree(kind) if matches(view.kind, kind));
                if of_kind && owners.get(child) == Owner::None {
                    above.insert(child, page);
                }
            }
        }
        Self(above)
    }

    /// Whether a parent of `page` is known.
    pub(super) fn knows(&self, page: u32) -> bool {
        self.0.contains_key(&page)
    }

    /// The topmost known ancestor of `page`, or `page` itself.
    pub(super) fn top(&self, page: u32) -> u32 {
        let mut at = page;
        for _ in 0..HIGHEST {
            match self.0.get(&at) {
                Some(&above) => at = above,
                None => break,
            }
        }
        at
    }
}

/// Whether pages of both kinds can be in one b-tree.
fn matches(one: PageKind, other: PageKind) -> bool {
    one.is_table() == other.is_table()
}
