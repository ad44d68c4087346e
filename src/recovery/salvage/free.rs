//! The freelist: pages whose content is no longer the database's.
//!
//! A page that a b-tree needs, and that is what it must be, is not free whatever the list says.

use std::collections::HashSet;

use super::geometry::Geometry;
use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners};
use crate::format::freelist::Trunk;
use crate::format::number;

/// Marks the pages on the freelist that begins at `first`, of `count` pages by the header. Where
/// not all of them are found, or there is no header, also those that any page which could be a
/// trunk names. A trunk may name all pages that the database had: the file may have been cut.
/// Whether all were found on the list: if not, of other pages nobody knows whether they are free.
pub(super) fn mark(
    pages: &Pages<'_>,
    survey: &Survey,
    owners: &mut Owners,
    geometry: &Geometry,
) -> bool {
    let (header, of) = (geometry.freelist(), u32::try_from(geometry.pages).unwrap_or(u32::MAX));
    let mut marked = 0_u64;
    if let Some((first, count)) = header {
        let mut seen = HashSet::new();
        let mut damaged = Vec::new();
        let mut next = first;
        while next != 0 && seen.insert(next) {
            match trunk(pages, of, next, owners, &mut marked) {
                Some(after) => next = after,
                None => {
                    damaged.push(next);
                    let link = pages.read(next).and_then(|bytes| number::u32_at(&bytes, 0));
                    next = link.unwrap_or(0);
                }
            }
        }
        // A trunk keeps the numbers of pages that it gave away behind those that it counts: of
        // one whose count is damaged only as many are free as the header misses.
        for page in damaged {
            let missing = u64::from(count).saturating_sub(marked + 1);
            remains(pages, of, page, missing, owners, &mut marked);
        }
    }
    if header.is_some_and(|(_, count)| u64::from(count) <= marked) {
        return true;
    }
    for (page, note) in survey.iter() {
        if note.is == Is::Other && note.sound && owners.get(page) == Owner::None {
            trunk(pages, of, page, owners, &mut marked);
        }
    }
    false
}

/// Pages of b-trees that the freelist names, too, as far as it is whole: one of the two is of
/// another time.
pub(super) fn named(pages: &Pages<'_>, owners: &Owners, geometry: &Geometry) -> HashSet<u32> {
    let of = u32::try_from(geometry.pages).unwrap_or(u32::MAX);
    let mut next = geometry.freelist().map_or(0, |(first, _)| first);
    let (mut seen, mut named) = (HashSet::new(), HashSet::new());
    while next != 0 && seen.insert(next) {
        let Some(bytes) = pages.read(next) else { break };
        let Some(trunk) = Trunk::parse(&bytes, pages.layout.usable, of) else { break };
        named.extend(trunk.leaves().filter(|&page| matches!(owners.get(page), Owner::Tree(_))));
        next = trunk.next;
    }
    named
}

/// Marks a trunk whose count is damaged and, of the pages that it names, at most as many as are
/// missing.
fn remains(
    pages: &Pages<'_>,
    of: u32,
    page: u32,
    missing: u64,
    owners: &mut Owners,
    marked: &mut u64,
) {
    let layout = pages.layout;
    let most = usize::try_from(missing).unwrap_or(usize::MAX);
    let Some(bytes) = pages.read(page) else { return };
    let Some(trunk) = Trunk::remains(&bytes, layout.usable, of, most) else { return };
    mark_all(&trunk, page, owners, marked);
}

/// Marks a trunk and the pages that it names, and answers the next trunk.
fn trunk(
    pages: &Pages<'_>,
    of: u32,
    page: u32,
    owners: &mut Owners,
    marked: &mut u64,
) -> Option<u32> {
    let layout = pages.layout;
    let bytes = pages.read(page)?;
    let trunk = Trunk::parse(&bytes, layout.usable, of)?;
    mark_all(&trunk, page, owners, marked);
    Some(trunk.next)
}

fn mark_all(trunk: &Trunk<'_>, page: u32, owners: &mut Owners, marked: &mut u64) {
    for free in trunk.leaves().chain(std::iter::once(page)) {
        if owners.get(free) == Owner::None {
            owners.set(free, Owner::Free);
        }
        *marked += 1;
    }
}
