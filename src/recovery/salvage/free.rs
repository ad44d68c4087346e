//! The freelist: pages whose content is no longer the database's.
//!
//! A page that a b-tree needs, and that is what it must be, is not free whatever the list says.

use std::collections::HashSet;

use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners};
use crate::format::freelist::Trunk;

/// Marks the pages on the freelist that begins at `first`, of `count` pages by the header. Where
/// not all of them are found, or there is no header, also those that any page which could be a
/// trunk names.
pub(super) fn mark(
    pages: &Pages<'_>,
    survey: &Survey,
    owners: &mut Owners,
    header: Option<(u32, u32)>,
) {
    let mut marked = 0_u64;
    if let Some((first, _)) = header {
        let mut seen = HashSet::new();
        let mut next = first;
        while next != 0 && seen.insert(next) {
            match trunk(pages, next, owners, &mut marked) {
                Some(after) => next = after,
                None => break,
            }
        }
    }
    if header.is_some_and(|(_, count)| u64::from(count) <= marked) {
        return;
    }
    for (page, note) in survey.iter() {
        if note.is == Is::Other && note.sound && owners.get(page) == Owner::None {
            trunk(pages, page, owners, &mut marked);
        }
    }
}

/// Marks a trunk and the pages that it names, and answers the next trunk.
fn trunk(pages: &Pages<'_>, page: u32, owners: &mut Owners, marked: &mut u64) -> Option<u32> {
    let layout = pages.layout;
    let bytes = pages.read(page)?;
    let trunk = Trunk::parse(&bytes, layout.usable, layout.count)?;
    for free in trunk.leaves().chain(std::iter::once(page)) {
        if owners.get(free) == Owner::None {
            owners.set(free, Owner::Free);
        }
        *marked += 1;
    }
    Some(trunk.next)
}
