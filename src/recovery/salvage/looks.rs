//! Infers the usual column types of a table that lost its root, from the orphan pages.
//!
//! Such a table has no rows left, and its declared types barely constrain the values (no type means
//! BLOB affinity, which accepts anything). But two pages with overlapping rowids cannot both belong
//! to one b-tree. So the orphans that fit best are accepted first. An orphan that overlaps them and
//! fits less belongs to another table, or was deleted. The types that most of the rest have in
//! common are the table's. If orphans fit equally well and overlap, only some of them belong to the
//! table. If many do so, the orphans that overlap no other are doubtful, too.
//!
//! Memory: 4 bytes for each orphan that is rejected or contested.

use std::collections::{BTreeMap, HashSet};

use super::survey::Note;

/// If one orphan in this many overlaps another, all of them are contested.
const MANY: usize = 4;

/// An orphan that could be a table's, and how well it fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) page: u32,
    pub(super) note: Note,
    pub(super) points: u32,
}

/// The inferred types.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The summary of the pages that are most likely the table's, and their number of rows.
    pub(super) of: Option<(Note, u64)>,
    /// Pages that do not belong to the table.
    pub(super) others: HashSet<u32>,
    /// Pages that may belong to the table, but cannot all do so.
    pub(super) contested: HashSet<u32>,
}

/// Disjoint ranges of rowids: the last rowid of each by its first.
#[derive(Default)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    fn overlaps(&self, note: &Note) -> bool {
        let before = self.0.range(..=note.high).next_back();
        before.is_some_and(|(_, &high)| high >= note.low)
    }

    fn add(&mut self, note: &Note) {
        let (mut low, mut high) = (note.low, note.high);
        while let Some((&start, &end)) = self.0.range(..=high).next_back() {
            if end < low {
                break;
            }
            (low, high) = (low.min(start), high.max(end));
            self.0.remove(&start);
        }
        self.0.insert(low, high);
    }
}

/// Infers the types from a table's candidates.
pub(super) fn find(mut candidates: Vec<Candidate>) -> Looks {
    let mut looks = Looks::default();
    candidates.sort_by_key(|it| (std::cmp::Reverse(it.points), it.note.low));
    let mut taken = Ranges::default();
    let mut kept: Vec<Candidate> = Vec::new();
    for level in candidates.chunk_by(|one, other| one.points == other.points) {
        let first = kept.len();
        for candidate in level {
            if taken.overlaps(&candidate.note) {
                looks.others.insert(candidate.page);
            } else {
                kept.push(*candidate);
            }
        }
        let level = kept.get(first..).unwrap_or_default();
        // The candidate so far with the greatest last rowid, in the order of first rowids.
        let mut furthest: Option<&Candidate> = None;
        // A damaged rowid can make the range of a page too large.
        for candidate in level.iter().filter(|it| it.note.sound) {
            if let Some(other) = furthest.filter(|it| it.note.high >= candidate.note.low) {
                looks.contested.extend([other.page, candidate.page]);
            }
            if furthest.is_none_or(|it| it.note.high < candidate.note.high) {
                furthest = Some(candidate);
            }
            taken.add(&candidate.note);
        }
    }
    if looks.contested.len() * MANY >= kept.len() && !looks.contested.is_empty() {
        looks.contested.extend(kept.iter().map(|it| it.page));
    }
    // The best-fitting half of the rows.
    let rows = |some: &[Candidate]| some.iter().map(|it| u64::from(it.note.cells)).sum::<u64>();
    let all = rows(&kept);
    let mut best = 0;
    for level in kept.chunk_by(|one, other| one.points == other.points) {
        best += level.len();
        if kept.get(..best).map_or(0, rows) * 2 >= all {
            break;
        }
    }
    let best = kept.get(..best).unwrap_or_default();
    looks.of = Note::of_all(best.iter().map(|it| it.note)).map(|note| (note, rows(best)));
    looks
}
