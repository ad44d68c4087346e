//! Roots of tables that have changed places with another page.
//!
//! Nothing leads to a root but the schema, so one that has changed places is an interior page that
//! nothing leads to, in a place where something else was expected: another page of a b-tree, or of
//! an overflow chain. It is the table's that lost its root, or has just that something for its only
//! page, if no other table could as well be it.

use std::collections::{HashMap, HashSet};

use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::misplaced::Places;
use super::survey::{Is, Note, Survey};
use super::target::Shape;
use super::tree::{Lost, Tree};
use crate::format::Kind;

/// Leaves that the indexes are asked about.
const ASKED: usize = 4;

/// A table's indexes have the rows.
const CERTAIN: u32 = 2;

/// What is in the root's place is what was expected where the root is.
const EXCHANGED: u32 = 1;

/// Where the roots of tables are, by the tables' places.
pub(super) fn find(
    survey: &Survey,
    shapes: &[Shape],
    places: &Places<'_>,
    evidence: &Evidence<'_>,
) -> HashMap<usize, u32> {
    let linked = linked(survey, places.rootless);
    let bereft: Vec<usize> = (0..shapes.len()).filter(|&it| is_bereft(places, it)).collect();
    let mut best_of_table: HashMap<usize, Best> = HashMap::new();
    let mut best_of_top: HashMap<u32, Best> = HashMap::new();
    for top in places.rootless.iter().filter(|top| !top.pages.is_empty()) {
        let expected: Vec<&Lost> = places.lost().filter(|lost| lost.page == top.root).collect();
        let is_root = bereft.iter().any(|&it| shapes.get(it).is_some_and(|it| it.root == top.root));
        let by_chain = linked.contains(&top.root);
        if expected.is_empty() && !is_root && !by_chain {
            continue;
        }
        let notes = top.pages.iter().map(|&page| survey.note(page));
        let Some(note) = Note::of_all(notes) else { continue };
        for &table in &bereft {
            let Some(shape) = shapes.get(table) else { continue };
            if shape.root == top.root || fit::fit(&note, shape).is_none() {
                continue;
            }
            let there = survey.note(shape.root);
            let exchanged = (there.is_filled(Kind::TableLeaf)
                && expected.iter().any(|lost| lost.is_just(&there)))
                || (by_chain && there.is == Is::Other);
            if by_chain && expected.is_empty() && !exchanged {
                continue;
            }
            let has_page = places.tables.get(table).is_some_and(|tree| !tree.pages.is_empty());
            let points = match says(evidence, table, top) {
                Some(Verdict::Others { .. }) => continue,
                Some(Verdict::Own) => CERTAIN,
                None => 0,
            } + if exchanged { EXCHANGED } else { 0 };
            // A table's only page may well be its own.
            if points == 0 && (has_page || there.is_filled(Kind::TableLeaf)) {
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

/// Those tops of b-trees that an overflow page links to.
fn linked(survey: &Survey, tops: &[Tree]) -> HashSet<u32> {
    let tops: HashSet<u32> = tops.iter().map(|top| top.root).collect();
    let links = survey.iter().filter(|(_, note)| note.is == Is::Other);
    let links = links.filter_map(|(_, note)| u32::try_from(note.low).ok());
    links.filter(|page| tops.contains(page)).collect()
}

/// Whether nothing but the root's page is a table's, if that.
fn is_bereft(places: &Places<'_>, table: usize) -> bool {
    places.tables.get(table).is_some_and(|tree| {
        tree.table && (tree.pages.is_empty() || tree.pages.as_slice() == [tree.root])
    })
}

/// What a table's indexes say of some leaves of a b-tree: that they are its if one is.
fn says(evidence: &Evidence<'_>, table: usize, tree: &Tree) -> Option<Verdict> {
    let step = tree.pages.len().div_ceil(ASKED).max(1);
    let questions: Vec<Question> =
        tree.pages.iter().step_by(step).map(|&page| (table, page)).collect();
    let verdicts: HashSet<Verdict> = evidence.ask(&questions).into_values().collect();
    let own = verdicts.contains(&Verdict::Own).then_some(Verdict::Own);
    own.or_else(|| verdicts.into_iter().next())
}

/// The likeliest of what was heard of, as long as it is one.
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
