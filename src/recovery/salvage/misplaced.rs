//! Leaves that a table's b-tree leads to and that could be the table's, but are another's.
//!
//! Where two tables have rows of one kind, and rowids from 1 on, a page of the one is not noticed
//! in a place of the other's by its rowids being out of range. Two things still tell:
//!
//! * An interior page has the greatest rowid of each child, and SQLite changes it only when pages
//!   are split or joined: as a rule a leaf ends just there, and the next begins right behind it.
//!   A leaf that does not, and would so in another place, belongs there.
//! * The indexes of the table have its rowids with other values.
//!
//! And a page that nothing leads to may be just what is missing in the place.
//!
//! Only leaves that do not end as expected are looked at. Memory: what a b-tree notes of those.

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::scene::{Places, Scene};
use super::survey::{Key, Note};
use super::target::Shape;
use super::tree::{Lost, Owner, Placed, Tree};

/// Pages that the indexes are asked about.
const MOST_QUESTIONS: usize = 20_000;

/// Other leaves of a table that its indexes are asked about, to see whether they are its.
const WITNESSED: usize = 4;

/// A leaf and the place where it is.
#[derive(Clone, Copy)]
struct Leaf {
    table: usize,
    at: Placed,
    note: Note,
}

impl Leaf {
    /// What the indexes of its table say of it.
    fn says(&self, verdicts: &HashMap<Question, Verdict>) -> Option<Verdict> {
        verdicts.get(&(self.table, self.at.page)).copied()
    }

    /// In how many ways it joins what is around its place: 2 if it begins and ends as it must.
    fn joins(&self) -> u32 {
        Joins::of(&self.note, self.at).map_or(0, Joins::count)
    }

    /// Whether it is the last of its table, as far as can be told: it begins as it must, and
    /// nothing says where it has to end.
    fn is_last(&self) -> bool {
        self.at.high == i64::MAX && self.joins() > 0
    }
}

/// What a leaf has of what a place asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Joins {
    begins: bool,
    ends: bool,
}

impl Joins {
    /// None where a leaf cannot be in a place.
    fn of(note: &Note, place: Placed) -> Option<Self> {
        let Placed { low, high, .. } = place;
        let joins = Self {
            begins: note.low == if low == i64::MIN { 1 } else { low },
            ends: note.high == high,
        };
        (note.low >= low && note.high <= high).then_some(joins)
    }

    fn count(self) -> u32 {
        u32::from(self.begins) + u32::from(self.ends)
    }
}

/// The pages, each with the place of the table that has it.
pub(super) fn find(scene: &Scene<'_>) -> HashSet<Question> {
    let Scene { survey, places, evidence, .. } = *scene;
    let mut leaves = Vec::new();
    for (table, tree) in places.tables.iter().enumerate() {
        for &at in &tree.placed {
            leaves.push(Leaf { table, at, note: survey.note(at.page) });
        }
    }
    let verdicts = evidence.ask(&questions(&leaves, scene.shapes));
    let mut misplaced = exchanged(scene, &leaves, &verdicts);
    misplaced.extend(copied(scene, &leaves, &verdicts));
    misplaced.extend(disowned(scene, &leaves, &verdicts));
    misplaced.extend(displacing(scene, &leaves, &verdicts));
    misplaced
}

/// Leaves whose rows the indexes of their table do not have.
///
/// Where a page is the one that an index expects another of, it may be the index that is in
/// another's place. So two indexes have to say so, or one that has the rows of other leaves of the
/// table; or another table's indexes have to have the rows, that are known to be right likewise. Of
/// a table whose indexes say nothing it is enough that another's have the rows and has lost just
/// those, if the leaf neither begins nor ends as it must.
fn disowned(
    scene: &Scene<'_>,
    leaves: &[Leaf],
    verdicts: &HashMap<Question, Verdict>,
) -> HashSet<Question> {
    let Scene { survey, places: Places { tables, .. }, evidence, .. } = *scene;
    let says = |table: usize, page: u32| verdicts.get(&(table, page)).copied();
    let mut right = HashMap::new();
    let mut disowned = HashSet::new();
    for leaf in leaves {
        let claims = |table: usize| says(table, leaf.at.page).is_some_and(Verdict::is_own);
        let mut is_right = |table: usize| {
            *right.entry(table).or_insert_with(|| agrees(table, leaf.at.page, tables, evidence))
        };
        let another = match says(leaf.table, leaf.at.page) {
            Some(Verdict::Own { .. }) => false,
            Some(Verdict::Others { by }) => {
                by > 1
                    || is_right(leaf.table)
                    || (0..tables.len()).any(|it| claims(it) && is_right(it))
            }
            // The same rows may be in two tables, one of which has lost them.
            Some(Verdict::Missing) | None => tables.iter().enumerate().any(|(table, tree)| {
                let missed = |lost: &Lost| {
                    survey.note(lost.page).is_something() && leaf.note.is_in((lost.low, lost.high))
                };
                let joins = Joins::of(&leaf.note, leaf.at).map_or(0, Joins::count);
                table != leaf.table && joins == 0 && claims(table) && tree.lost.iter().any(missed)
            }),
        };
        if another {
            disowned.insert((leaf.table, leaf.at.page));
        }
    }
    disowned
}

/// Whether the indexes of a table have the rows of some of its leaves, but for one.
fn agrees(table: usize, but: u32, tables: &[Tree], evidence: &Evidence<'_>) -> bool {
    let pages = tables.get(table).map_or(&[][..], |tree| &tree.pages);
    let others = pages.iter().filter(|page| **page != but);
    let step = pages.len().div_ceil(WITNESSED).max(1);
    let questions: Vec<Question> = others.step_by(step).map(|&page| (table, page)).collect();
    evidence.ask(&questions).values().any(|verdict| verdict.is_own())
}

/// The leaves that could be another table's, for all whose they could be.
fn questions(leaves: &[Leaf], shapes: &[Shape]) -> Vec<Question> {
    let mut questions = Vec::new();
    for leaf in leaves {
        let fits = |&(table, shape): &(usize, &Shape)| {
            table != leaf.table && !shape.without_rowid && fit::fit(&leaf.note, shape).is_some()
        };
        let before = questions.len();
        let others = shapes.iter().enumerate().filter(fits);
        questions.extend(others.map(|(table, _)| (table, leaf.at.page)));
        if questions.len() > before {
            questions.push((leaf.table, leaf.at.page));
        }
        if questions.len() > MOST_QUESTIONS {
            break;
        }
    }
    questions
}

/// Leaves that would end as they must in another place, whose leaf does not.
fn exchanged(
    scene: &Scene<'_>,
    leaves: &[Leaf],
    verdicts: &HashMap<Question, Verdict>,
) -> HashSet<Question> {
    let Scene { survey, shapes, places, .. } = *scene;
    // Places by where they end: those that have lost what was there, and those that have another
    // leaf than that.
    let mut by_end: HashMap<i64, Vec<(usize, Placed, bool)>> = HashMap::new();
    let rootless = places.rootless.iter().map(|tree| (usize::MAX, tree));
    let trees = places.tables.iter().enumerate().chain(rootless);
    for (table, tree) in trees.filter(|(_, tree)| tree.table) {
        let lost =
            tree.lost.iter().filter(|lost| lost.leaf).map(|lost| {
                (table, Placed { page: lost.page, low: lost.low, high: lost.high }, true)
            });
        for place in lost.chain(tree.placed.iter().map(|&at| (table, at, false))) {
            if place.1.high != i64::MAX {
                by_end.entry(place.1.high).or_default().push(place);
            }
        }
    }
    let mut exchanged = HashSet::new();
    for leaf in leaves {
        let own = (leaf.table, leaf.at.page);
        let Some(here) = Joins::of(&leaf.note, leaf.at) else { continue };
        if leaf.says(verdicts).is_some_and(Verdict::is_own) {
            continue;
        }
        let fits = |&&(table, place, _): &&(usize, Placed, bool)| {
            place.page != leaf.at.page
                && Joins::of(&leaf.note, place).is_some()
                && shapes.get(table).is_none_or(|it| fit::fit(&leaf.note, it).is_some())
        };
        let mut others = by_end.get(&leaf.note.high).into_iter().flatten().filter(fits);
        let (Some(&(table, place, lost)), None) = (others.next(), others.next()) else { continue };
        let Some(there) = Joins::of(&leaf.note, place) else { continue };
        let clearly = there.begins && !here.begins && place.low != leaf.at.low;
        // What is in that place, in this one.
        let back = Joins::of(&survey.note(place.page), leaf.at);
        let in_return = back.is_some_and(|back| {
            back.ends || (leaf.at.high == i64::MAX && back.begins && !here.begins)
        });
        if lost && (clearly || in_return) {
            exchanged.insert(own);
        } else if !lost && clearly {
            exchanged.extend([own, (table, place.page)]);
        }
    }
    exchanged
}

/// Leaves that neither begin nor end as they must, while a page does both that nothing leads to.
fn displacing(
    scene: &Scene<'_>,
    leaves: &[Leaf],
    verdicts: &HashMap<Question, Verdict>,
) -> HashSet<Question> {
    let Scene { shapes, .. } = *scene;
    let own = |leaf: &&Leaf| leaf.says(verdicts).is_some_and(Verdict::is_own);
    let mut by_end: HashMap<i64, Vec<&Leaf>> = HashMap::new();
    for leaf in leaves.iter().filter(|leaf| leaf.joins() == 0 && !own(leaf)) {
        by_end.entry(leaf.at.high).or_default().push(leaf);
    }
    let mut displacing = HashSet::new();
    for (_, note) in scene.orphans() {
        let fits = |leaf: &&&Leaf| {
            Leaf { note: *note, ..***leaf }.joins() == 2
                && shapes.get(leaf.table).is_some_and(|it| fit::fit(note, it).is_some())
        };
        let there = by_end.get(&note.high).into_iter().flatten().filter(fits);
        displacing.extend(there.map(|leaf| (leaf.table, leaf.at.page)));
    }
    displacing
}

/// Leaves whose bytes another leaf has that is in its place, or any other page that is not in
/// another's place where the indexes do not have their rows.
fn copied(
    scene: &Scene<'_>,
    leaves: &[Leaf],
    verdicts: &HashMap<Question, Verdict>,
) -> HashSet<Question> {
    let Scene { pages, survey, owners, .. } = *scene;
    let expected: HashSet<u32> = scene.places.lost().map(|lost| lost.page).collect();
    let mut alike: HashMap<Key, Vec<&Leaf>> = HashMap::new();
    for leaf in leaves {
        alike.entry(leaf.note.key()).or_default().push(leaf);
    }
    let is_own = |leaf: &Leaf| leaf.says(verdicts).is_some_and(Verdict::is_own);
    let is_others = |leaf: &Leaf| leaf.says(verdicts).is_some_and(Verdict::is_others);
    let mut copied = HashSet::new();
    for (page, note) in survey.iter() {
        let Some(likely) = alike.get(&note.key()) else { continue };
        if note.cells == 0 {
            continue;
        }
        let is_free = owners.get(page) == Owner::Free;
        let in_tree = matches!(owners.get(page), Owner::Tree(_));
        // One that ends as it must is not among the leaves that do not.
        let there = likely.iter().find(|leaf| leaf.at.page == page);
        let others = likely.iter().filter(|leaf| leaf.at.page != page && !is_own(leaf));
        // Two tables may have the same rows, and as many of them in front.
        let others = others.filter(|leaf| !leaf.is_last() || is_others(leaf));
        for leaf in others {
            let better = in_tree
                && there.is_none_or(|there| is_own(there) || there.joins() > leaf.joins())
                || (!expected.contains(&page) && is_others(leaf));
            // A free page may be a copy from when a page was moved; unless the table misses some.
            let better = better && (!is_free || is_missed(scene, leaf.table));
            if better && pages.are_same(leaf.at.page, page) {
                copied.insert((leaf.table, leaf.at.page));
            }
        }
    }
    copied
}

/// Whether a page that nothing leads to could be a table's.
fn is_missed(scene: &Scene<'_>, table: usize) -> bool {
    let Some(shape) = scene.shapes.get(table) else { return false };
    scene.orphans().any(|(_, note)| fit::fit(note, shape).is_some())
}
