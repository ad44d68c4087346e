//! Resolves two tables claiming one root page.
//!
//! No parent gives the range of a root's rowids. So a page that was written over a root looks like
//! the table's rows if the column types agree. A table gives up its only page if
//!
//! - another b-tree has the same bytes in a better-proven place,
//! - another table has lost exactly such a page, or
//! - the bytes are also the only page of another table, and this table's indexes have none of the
//!   rows.
//!
//! A table gives up all of its pages if its records fit another table better which has lost all of
//! its own. A WITHOUT ROWID table also gives up its only page if the page looks like the entries of
//! an index that has lost all of its own.

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Verdict};
use super::fit;
use super::forest::IndexTree;
use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Key, Note, Survey};
use super::target::{IndexShape, Shape};
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::PageKind;

/// Takes pages from the tables that they do not belong to.
pub(super) fn settle(
    pages: &Pages<'_>,
    survey: &Survey,
    owners: &mut Owners,
    shapes: &[Shape],
    trees: &mut [Tree],
    indexes: &[IndexTree<'_>],
    evidence: &Evidence<'_>,
) {
    let mut single: HashMap<Key, Vec<usize>> = HashMap::new();
    for (place, tree) in trees.iter().enumerate() {
        if tree.settled {
            continue;
        }
        let note = survey.note(tree.root);
        if tree.pages.as_slice() == [tree.root] && note.cells > 0 {
            single.entry(note.key()).or_default().push(place);
        }
    }
    let mut copies = Vec::new();
    for (page, note) in survey.iter() {
        if note.cells == 0 {
            continue;
        }
        for &place in single.get(&note.key()).into_iter().flatten() {
            let (Some(tree), Some(shape)) = (trees.get(place), shapes.get(place)) else { continue };
            if tree.root == page || !pages.are_same(tree.root, page) {
                continue;
            }
            let Owner::Tree(owner) = owners.get(page) else { continue };
            // An index on all columns that a WITHOUT ROWID table's rows have stores the same
            // records as the table.
            let mirrors = |(index, of): &IndexTree<'_>| {
                let all = |of: &IndexShape| of.parts.len() == usize::from(note.fields.1);
                index.root == page && of.is_some_and(|of| of.table == place && all(of))
            };
            if shape.without_rowid && indexes.iter().any(mirrors) {
                continue;
            }
            let other = (owner as usize).checked_sub(1);
            let root = other.and_then(|other| trees.get(other)).is_some_and(|it| it.root == page);
            let points = |shape: &Shape| fit::fit(note, shape);
            let theirs = other.and_then(|other| shapes.get(other)).and_then(points);
            // A page of a multi-page tree belongs there if its first or last rowid is just what its
            // parent requires. That it merely fits there is no reason to give up an intact root.
            let joins = other.and_then(|other| trees.get(other)).is_none_or(|other| {
                let mut placed = other.placed.iter().filter(|it| it.page == page);
                !other.table || placed.all(|it| it.low != i64::MIN && it.low == note.low)
            });
            let disowned = || {
                let verdicts = evidence.ask(&[(place, page)]);
                verdicts.get(&(place, page)).copied().is_some_and(Verdict::is_others)
            };
            let given_up = match root {
                false => joins || disowned(),
                true => theirs > points(shape) || (theirs == points(shape) && disowned()),
            };
            if given_up {
                copies.push((place, Owner::Free));
            }
        }
    }
    let unsettled = |(_, (tree, _)): &(usize, (&Tree, &Shape))| !tree.settled;
    for (place, (tree, shape)) in trees.iter().zip(shapes).enumerate().filter(unsettled) {
        let notes = tree.pages.iter().map(|&page| survey.note(page));
        let Some(note) = Note::of_all(notes) else { continue };
        let single = tree.pages.as_slice() == [tree.root];
        let mine = fit::fit(&note, shape);
        let missed = trees.iter().zip(shapes).any(|(other, theirs)| {
            if other.root == tree.root || other.table != tree.table {
                return false;
            }
            // The two pages were swapped: the place of the lost page has this table's rows.
            let exact = |lost: &Lost| {
                let replaced = leads_to(pages, survey, lost.page, shape);
                replaced && lost.leaf && note.low >= lost.low && note.high == lost.high
            };
            let points = fit::fit(&note, theirs);
            (points > mine && other.pages.is_empty() && leads_to(pages, survey, other.root, shape))
                || (single && other.table && points >= mine && other.lost.iter().any(exact))
        });
        // Records with fewer fields than the table's rows are more likely an index's entries.
        let short = shape.without_rowid && usize::from(note.fields.1) < shape.fields.len();
        let entries = indexes.iter().any(|(index, of)| {
            index.pages.is_empty() && of.is_some_and(|of| fit::index_fits(&note, of, shapes))
        });
        if missed || (single && short && entries) {
            copies.push((place, Owner::None));
        }
    }
    for (place, owner) in copies {
        let Some(tree) = trees.get_mut(place).filter(|tree| !tree.pages.is_empty()) else {
            continue;
        };
        owners.set(tree.root, owner);
        for page in tree.pages.drain(..) {
            owners.set(page, owner);
        }
        tree.placed.clear();
        tree.outlying.clear();
        tree.lost.clear();
        tree.lost.push(Lost::all(tree.root));
    }
}

/// Whether a page, or one of its children, has rows that could be the table's.
fn leads_to(pages: &Pages<'_>, survey: &Survey, page: u32, shape: &Shape) -> bool {
    let has = |note: Note| {
        note.is_filled(if shape.without_rowid { PageKind::IndexLeaf } else { PageKind::TableLeaf })
            && fit::fit(&note, shape).is_some()
    };
    if survey.note(page).is != Is::Tree(PageKind::TableInterior) {
        return has(survey.note(page));
    }
    let Some(bytes) = pages.read(page) else { return false };
    let Some(page) = leaf::open(&bytes, pages.layout.usable, page == 1) else { return false };
    page.children().any(|(child, _)| has(survey.note(child)))
}

/// Marks an orphan as free if it is a copy of a page that is in a b-tree, or of a free page and
/// another page was `expected` in the orphan's place (otherwise the page may have been moved from
/// there to the orphan's place). Returns the copies in whose place another page was expected: their
/// rows go to `lost_and_found`.
pub(super) fn set_copies_aside(
    pages: &Pages<'_>,
    survey: &Survey,
    owners: &mut Owners,
    expected: &HashSet<u32>,
) -> Vec<u32> {
    let mut aside = Vec::new();
    let mut orphans: HashMap<Key, Vec<u32>> = HashMap::new();
    for (page, note) in survey.iter() {
        if note.cells > 0 && owners.get(page) == Owner::None {
            orphans.entry(note.key()).or_default().push(page);
        }
    }
    for (page, note) in survey.iter() {
        let free = match owners.get(page) {
            Owner::Tree(_) => false,
            Owner::Free => true,
            Owner::None | Owner::Chain => continue,
        };
        if note.cells == 0 {
            continue;
        }
        if let Some(orphans) = orphans.get_mut(&note.key()) {
            orphans.retain(|&orphan| {
                let could_be = !free || expected.contains(&orphan);
                let copy = could_be && pages.are_same(orphan, page);
                if copy {
                    owners.set(orphan, Owner::Free);
                    aside.extend(expected.contains(&orphan).then_some(orphan));
                }
                !copy
            });
        }
    }
    aside
}
