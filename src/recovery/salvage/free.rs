//! The freelist: pages whose content is no longer part of the database.
//!
//! A page that a b-tree references, and that fits there, is not free even if the freelist has it.

use std::collections::HashSet;

use super::geometry::Geometry;
use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners};
use crate::format::freelist::Trunk;
use crate::format::number;

/// Marks the pages of the freelist as free. The header has its first trunk and its number of pages.
/// If pages of the list are missing, or there is no header, this also marks the leaves of every
/// page that could be a trunk. The file may have been truncated, so a trunk may name any page that
/// the database had. Returns whether the list was complete: if not, other pages may be free, too.
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
        // Behind its counted leaves a trunk still has the numbers of pages that were taken from it.
        // If the trunk's count is damaged, the header's count limits how many of them are free.
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

/// B-tree pages that the freelist has, too, up to its first damaged trunk: the b-tree or the
/// freelist is out of date.
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

/// Marks a trunk whose count is damaged, and at most `missing` of the pages that it names.
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

/// Marks a trunk and the pages that it names. Returns the next trunk.
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
