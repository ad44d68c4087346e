//! Finds the roots of tables that were swapped with another page.
//!
//! Only the schema references a root. So a swapped root is an interior page without a parent, in a
//! place where another page was expected: of a b-tree, or of an overflow chain. It belongs to the
//! table that lost its root, or whose only page is the one that was expected there, if no other
//! table fits as well.

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::leaf;
use super::pages::Pages;
use super::scene::{Places, Scene};
use super::survey::{Is, Note, Survey};
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::PageKind;

/// Number of leaves for which the indexes are queried.
const ASKED: usize = 4;

/// Maximum number of queries: each reads all indexes of the table.
const MOST_QUESTIONS: usize = 64;

/// Points if the table's indexes have the rows.
const CERTAIN: u32 = 2;

/// Points if the page in the root's place is exactly the one expected in the page's place.
const EXACT: u32 = 1;

/// The page of each swapped root, by the table's place.
pub(super) fn find(scene: &Scene<'_>) -> HashMap<usize, u32> {
    let Scene { survey, owners, shapes, places, evidence, .. } = *scene;
    let without_root: Vec<usize> = (0..shapes.len()).filter(|&it| lacks_root(places, it)).collect();
    let tops: Vec<&Tree> = places.rootless.iter().filter(|top| !top.pages.is_empty()).collect();
    if without_root.is_empty() || tops.is_empty() {
        return HashMap::new();
    }
    let expected = Expected::find(scene, &tops);
    let roots: HashSet<u32> =
        without_root.iter().filter_map(|&table| Some(shapes.get(table)?.root)).collect();
    let has_page =
        |table: usize| places.tables.get(table).is_some_and(|tree| !tree.pages.is_empty());
    let mut asked = 0;
    let mut best_of_table: HashMap<usize, Best> = HashMap::new();
    let mut best_of_top: HashMap<u32, Best> = HashMap::new();
    for top in tops {
        let notes = top.pages.iter().map(|&page| survey.note(page));
        let Some(note) = Note::of_all(notes) else { continue };
        let here = expected.in_place_of(top.root, &roots, owners);
        if asked >= MOST_QUESTIONS || here.is_nothing() {
            continue;
        }
        for &table in &without_root {
            let Some(shape) = shapes.get(table) else { continue };
            if shape.root == top.root || fit::fit(&note, shape).is_none() {
                continue;
            }
            // If the freelist is incomplete, a free interior page may have only free children, and
            // the table's only page may be right.
            if here.free && !scene.all_free && has_page(table) {
                continue;
            }
            let Some(points) = here.points(&survey.note(shape.root)) else { continue };
            asked += 1;
            let points = match says(evidence, table, top) {
                Some(Verdict::Others { .. }) => continue,
                Some(Verdict::Own { .. }) => CERTAIN + points,
                Some(Verdict::Missing) | None => points,
            };
            // A table's only page may be right, unless it is missing in the place of this page.
            let missing = || here.misses(&survey.note(shape.root)) && !has_copy(scene, top.root);
            if points == 0 && has_page(table) && !missing() {
                continue;
            }
            best_of_table.entry(table).or_default().hear(points, top.root);
            best_of_top.entry(top.root).or_default().hear(points, shape.root);
        }
    }
    let agreed = |(table, best): (usize, Best)| {
        let top = best.only()?;
        let of_top = best_of_top.get(&top)?.only()?;
        (shapes.get(table)?.root == of_top).then_some((table, top))
    };
    best_of_table.into_iter().filter_map(agreed).collect()
}

/// The content that is expected in the places of b-tree tops (interior pages without a parent).
struct Expected<'a> {
    /// Lost pages of rowid tables, by page number.
    lost: HashMap<u32, Vec<&'a Lost>>,
    /// Places of lost pages of other b-trees.
    of_index: HashSet<u32>,
    /// Places to which overflow chains lead.
    in_chains: HashSet<u32>,
}

impl<'a> Expected<'a> {
    fn find(scene: &Scene<'a>, tops: &[&Tree]) -> Self {
        let Scene { pages, survey, places, .. } = *scene;
        let tops: HashSet<u32> = tops.iter().map(|top| top.root).collect();
        let mut expected = Self {
            lost: HashMap::new(),
            of_index: HashSet::new(),
            in_chains: in_chains(pages, survey, &tops),
        };
        let indexes = places.indexes.iter().map(|(tree, _)| tree);
        for tree in places.tables.iter().chain(places.rootless).chain(indexes) {
            for lost in tree.lost.iter().filter(|lost| tops.contains(&lost.page)) {
                if tree.table {
                    expected.lost.entry(lost.page).or_default().push(lost);
                } else {
                    expected.of_index.insert(lost.page);
                }
            }
        }
        expected
    }

    fn in_place_of(&self, page: u32, roots: &HashSet<u32>, owners: &Owners) -> Here<'_> {
        Here {
            lost: self.lost.get(&page).map_or(&[], Vec::as_slice),
            of_index: self.of_index.contains(&page),
            root: roots.contains(&page),
            overflow: self.in_chains.contains(&page),
            free: owners.get(page) == Owner::Free,
        }
    }
}

/// The content that is expected in one place.
struct Here<'a> {
    /// Lost pages of rowid tables.
    lost: &'a [&'a Lost],
    /// A page of another b-tree.
    of_index: bool,
    /// The root of a table that has lost it.
    root: bool,
    overflow: bool,
    free: bool,
}

impl Here<'_> {
    fn is_nothing(&self) -> bool {
        self.lost.is_empty() && !(self.of_index || self.root || self.overflow || self.free)
    }

    /// How well a page from another place fits here. `None` if it does not.
    fn points(&self, note: &Note) -> Option<u32> {
        let leaf = note.is_filled(PageKind::TableLeaf);
        // A free page may have any old content, but not be all zeros.
        let free = self.free && note.is != Is::Nothing;
        if free || self.lost.iter().any(|lost| lost.is_just(note)) {
            return Some(EXACT);
        }
        let could_be = match note.is {
            Is::Tree(PageKind::TableLeaf) => (self.root && leaf) || self.misses(note),
            Is::Tree(PageKind::TableInterior) => {
                self.root || self.lost.iter().any(|lost| !lost.leaf)
            }
            Is::Tree(_) => self.of_index,
            Is::Other => self.overflow,
            Is::Nothing => false,
        };
        could_be.then_some(0)
    }

    /// Whether a leaf from another place fits a leaf that was lost here. A lost interior page does
    /// not count: its range would fit many leaves.
    fn misses(&self, note: &Note) -> bool {
        note.is_filled(PageKind::TableLeaf)
            && self.lost.iter().any(|lost| lost.leaf && note.is_in((lost.low, lost.high)))
    }
}

/// Whether another page has the same bytes.
fn has_copy(scene: &Scene<'_>, page: u32) -> bool {
    let Scene { pages, survey, .. } = *scene;
    let note = survey.note(page);
    let alike = |(other, of): (u32, &Note)| {
        other != page && of.key() == note.key() && pages.are_same(other, page)
    };
    survey.iter().any(alike)
}

/// The b-tree tops to which overflow chains lead.
fn in_chains(pages: &Pages<'_>, survey: &Survey, tops: &HashSet<u32>) -> HashSet<u32> {
    let mut found = HashSet::new();
    for (page, note) in survey.iter() {
        if note.is == Is::Other {
            found.extend(u32::try_from(note.low).ok().filter(|next| tops.contains(next)));
        } else if note.overflows {
            let Some(bytes) = pages.read(page) else { continue };
            let Some(view) = leaf::open(&bytes, pages.layout.usable, page == 1) else { continue };
            let cells = leaf::cells(&view).cells;
            found.extend(cells.iter().map(|it| it.overflow).filter(|next| tops.contains(next)));
        }
    }
    found
}

/// Whether a rowid table has no page, or only its root page.
fn lacks_root(places: Places<'_>, table: usize) -> bool {
    places.tables.get(table).is_some_and(|tree| {
        tree.table
            && !tree.settled
            && (tree.pages.is_empty() || tree.pages.as_slice() == [tree.root])
    })
}

/// The verdict of a table's indexes on some leaves of a b-tree. One confirmed leaf is enough.
fn says(evidence: &Evidence<'_>, table: usize, tree: &Tree) -> Option<Verdict> {
    let step = tree.pages.len().div_ceil(ASKED).max(1);
    let questions: Vec<Question> =
        tree.pages.iter().step_by(step).map(|&page| (table, page)).collect();
    let verdicts: HashSet<Verdict> = evidence.ask(&questions).into_values().collect();
    let own = verdicts.iter().copied().find(|verdict| verdict.is_own());
    own.or_else(|| verdicts.into_iter().next())
}

/// The candidate with the most points, and whether another one has as many.
#[derive(Clone, Copy, Default)]
struct Best {
    points: u32,
    page: u32,
    tied: bool,
}

impl Best {
    fn hear(&mut self, points: u32, page: u32) {
        if self.page == 0 || points > self.points {
            *self = Self { points, page, tied: false };
        } else if points == self.points {
            self.tied = true;
        }
    }

    fn only(&self) -> Option<u32> {
        (!self.tied).then_some(self.page)
    }
}
