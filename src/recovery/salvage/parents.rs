//! What the pointer map of an auto-vacuum file says of a page whose parent is lost: it names the
//! page above, and above that, up to the root.

use super::pages::Pages;
use crate::format::ptrmap::{self, Entry};

/// Levels that are climbed.
const HIGHEST: usize = 20;

/// What the map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// Nothing, or nothing that can be true.
    Unknown,
    /// It is free.
    Free,
    /// It is of the b-tree with that root.
    To(u32),
}

/// What the pointer map says of a page of a b-tree.
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
    ptrmap::entry(bytes.get(..layout.usable)?, map, page)
}
