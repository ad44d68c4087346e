//! What the rows of a table look like that lost its root, told from the orphans themselves.
//!
//! Nothing that such a table still has tells what its rows look like, and the declared types are
//! patient: a column without one takes everything. But two pages whose rowids overlap cannot both
//! be of one b-tree. So the orphans that fit best are believed first, what overlaps them and fits
//! less is another table's, or was deleted; and what most of the rest have in common is what the
//! table's rows look like. Orphans that fit equally well and overlap are one table's and others';
//! where many do, those that happen to overlap none may be either's, too.
//!
//! Memory: 4 bytes for each orphan that is another's or contested.

use std::collections::{BTreeMap, HashSet};

use super::survey::Note;

/// One in so many orphans that overlap others makes all of them doubtful.
const MANY: usize = 4;

/// An orphan that could be a table's, and how well it fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) page: u32,
    pub(super) note: Note,
    pub(super) points: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What is noted of the pages that are most likely the table's, and of how many rows.
    pub(super) of: Option<(Note, u64)>,
    /// Pages that are not the table's.
    pub(super) others: HashSet<u32>,
    /// Pages of which some are the table's and some are not.
    pub(super) contested: HashSet<u32>,
}

/// Ranges of rowids that do not overlap: the greatest of each by its least.
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

/// Looks at a table's candidates.
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
        // The one of those so far that reaches furthest, in the order of their least rowids.
        let mut furthest: Option<&Candidate> = None;
        // A damaged rowid makes a page reach far.
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
    // The best half.
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
