//! Finds leaves in the wrong b-tree: the leaf fits the table, but belongs to another one.
//!
//! If two tables have similar rows and rowids from 1 on, the rowids of a swapped leaf are in range.
//! Such a leaf is detected in other ways:
//!
//! * An interior page has a divider key for each child, and SQLite changes the key only when pages
//!   are split or merged. Usually a leaf ends exactly at its key, and the next one begins right
//!   after it. A leaf that does not, and would in another place, belongs to that place.
//! * The indexes of the table have the leaf's rowids with other values.
//! * An orphan page fits the place exactly, and the leaf does not.
//!
//! Only leaves that do not end at their divider key are examined. Memory: [`Tree::placed`].

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::scene::{Places, Scene};
use super::survey::{Key, Note};
use super::target::Shape;
use super::tree::{Lost, Owner, Placed, Tree};

/// Maximum number of pages for which the indexes are queried.
const MOST_QUESTIONS: usize = 20_000;

/// Number of other leaves of a table for which its indexes are queried, to test the indexes.
const WITNESSED: usize = 4;

/// A leaf and its place in the b-tree.
#[derive(Clone, Copy)]
struct Leaf {
    table: usize,
    at: Placed,
    note: Note,
}

impl Leaf {
    /// The verdict of its table's indexes on it.
    fn says(&self, verdicts: &HashMap<Question, Verdict>) -> Option<Verdict> {
        verdicts.get(&(self.table, self.at.page)).copied()
    }

    /// The number of ends at which it meets the bounds of its place: 0, 1 or 2.
    fn joins(&self) -> u32 {
        Joins::of(&self.note, self.at).map_or(0, Joins::count)
    }

    /// Whether it seems to be the last leaf of its table: it begins at its bound, and no divider
    /// key gives its end.
    fn is_last(&self) -> bool {
        self.at.high == i64::MAX && self.joins() > 0
    }
}

/// At which ends a leaf meets the bounds of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Joins {
    begins: bool,
    ends: bool,
}

impl Joins {
    /// `None` if the leaf's rowids are outside of the place's range.
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

/// The misplaced leaves, each with the number of the table that has it.
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

/// Leaves that the indexes of their table contradict.
///
/// The index itself may be in the wrong place. So a contradiction counts only if two indexes agree
/// on it, or if the one index has the rows of other leaves of the table, or if another table's
/// indexes have the rows and are proven in the same way. If the table's indexes give no verdict, it
/// is enough that another table's indexes have the rows, that this table has lost just those, and
/// that the leaf meets neither bound of its place.
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
            // Two tables may have the same rows, and one of them may have lost its copy.
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

/// Whether the indexes of a table have the rows of one of its leaves other than `but`.
fn agrees(table: usize, but: u32, tables: &[Tree], evidence: &Evidence<'_>) -> bool {
    let pages = tables.get(table).map_or(&[][..], |tree| &tree.pages);
    let others = pages.iter().filter(|page| **page != but);
    let step = pages.len().div_ceil(WITNESSED).max(1);
    let questions: Vec<Question> = others.step_by(step).map(|&page| (table, page)).collect();
    evidence.ask(&questions).values().any(|verdict| verdict.is_own())
}

/// The leaves that could also belong to another table, with each of their possible tables.
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

/// Leaves that would end exactly at the bound of another place, whose own leaf does not.
fn exchanged(
    scene: &Scene<'_>,
    leaves: &[Leaf],
    verdicts: &HashMap<Question, Verdict>,
) -> HashSet<Question> {
    let Scene { survey, shapes, places, .. } = *scene;
    // Places by their last rowid: `true` for a lost leaf's, `false` for one whose leaf ends
    // elsewhere.
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
        // How the page in that place would fit into this one.
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

/// Leaves that meet neither bound of their place, while an orphan page meets both.
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

/// Leaves that are a copy of another leaf which fits its own place better. A leaf whose rows the
/// indexes contradict may also be a copy of any other page that is not itself in a wrong place.
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
        // `leaves` lacks leaves that end at their bound: such a page has no entry here.
        let there = likely.iter().find(|leaf| leaf.at.page == page);
        let others = likely.iter().filter(|leaf| leaf.at.page != page && !is_own(leaf));
        // The last leaves of two tables may have the same rows.
        let others = others.filter(|leaf| !leaf.is_last() || is_others(leaf));
        for leaf in others {
            let better = in_tree
                && there.is_none_or(|there| is_own(there) || there.joins() > leaf.joins())
                || (!expected.contains(&page) && is_others(leaf));
            // A free page may be left over from moving the leaf, unless the table misses a page.
            let better = better && (!is_free || is_missed(scene, leaf.table));
            if better && pages.are_same(leaf.at.page, page) {
                copied.insert((leaf.table, leaf.at.page));
            }
        }
    }
    copied
}

/// Whether an orphan page could belong to a table.
fn is_missed(scene: &Scene<'_>, table: usize) -> bool {
    let Some(shape) = scene.shapes.get(table) else { return false };
    scene.orphans().any(|(_, note)| fit::fit(note, shape).is_some())
}
