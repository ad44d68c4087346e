//! Tables whose root, or only page, is rather another table's.
//!
//! A root has nothing above it that says which rowids it may hold: whatever was written over it
//! looks like the table's rows if only the types agree. A table's only page is given up where the
//! same bytes are in another b-tree with a better right to them, where another table lost just
//! such a page, or where they are another table's only page as well and this table's indexes
//! know none of the rows; a whole table where its records are rather like those of another that
//! lost all of them. A WITHOUT ROWID table's only page is also given up where it rather has the
//! entries of an index that lost all of them.

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Verdict};
use super::fit;
use super::forest::IndexTree;
use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Key, Note, Survey};
use super::target::{IndexShape, Shape};
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::Kind;

/// Takes pages from the tables that have no right to them.
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
            // An index on all columns (that the rows had when they were written) has the same
            // entries as a WITHOUT ROWID table has rows.
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
            // Where it is one of several pages it belongs there if it begins or ends just as its
            // place asks; that it could be there is no reason to give up a root that is whole.
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
            // Then what is there is this table's.
            let exact = |lost: &Lost| {
                let replaced = leads_to(pages, survey, lost.page, shape);
                replaced && lost.leaf && note.low >= lost.low && note.high == lost.high
            };
            let points = fit::fit(&note, theirs);
            (points > mine && other.pages.is_empty() && leads_to(pages, survey, other.root, shape))
                || (single && other.table && points >= mine && other.lost.iter().any(exact))
        });
        // Rows that are all shorter than the table's are rather an index's entries.
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

/// Whether a page has rows that could be a table's, or a child that has.
fn leads_to(pages: &Pages<'_>, survey: &Survey, page: u32, shape: &Shape) -> bool {
    let has = |note: Note| {
        note.is_filled(if shape.without_rowid { Kind::IndexLeaf } else { Kind::TableLeaf })
            && fit::fit(&note, shape).is_some()
    };
    if survey.note(page).is != Is::Tree(Kind::TableInterior) {
        return has(survey.note(page));
    }
    let Some(bytes) = pages.read(page) else { return false };
    let Some(page) = leaf::open(&bytes, pages.layout.usable, page == 1) else { return false };
    page.children().any(|(child, _)| has(survey.note(child)))
}

/// Marks orphans that are copies of other pages as free: of one in its place; or of one that is
/// free itself, where another was `expected` (else it may be free because the page was moved from
/// there). Answers those that were in the places of others: a b-tree leads to their rows, which no
/// table gets.
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
