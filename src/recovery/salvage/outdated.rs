//! Leaves that a table had once.
//!
//! An interior page that is of another time than the rest leads to leaves as they were then. Since
//! then they were freed, so the freelist names them, and the table's indexes do not have their rows
//! but those of pages that nothing leads to any more. Where no index says so, the page above counts
//! and not the freelist, which may be of another time as well.

use std::collections::HashSet;

use super::evidence::{Question, Verdict};
use super::fit;
use super::scene::Scene;
use super::survey::Note;

/// Pages of each kind that a table's indexes are asked about.
const MOST_QUESTIONS: usize = 10_000;

/// The pages, each with the place of the table that has it; `named_free` are those of b-trees that
/// the freelist names.
pub(super) fn find(scene: &Scene<'_>, named_free: &HashSet<u32>) -> HashSet<Question> {
    let Scene { shapes, places, evidence, .. } = *scene;
    let mut outdated = HashSet::new();
    if named_free.is_empty() {
        return outdated;
    }
    let orphans: Vec<(u32, &Note)> = scene.orphans().collect();
    for ((table, tree), shape) in places.tables.iter().enumerate().zip(shapes) {
        let named = |page: &&u32| named_free.contains(page);
        let leaves: Vec<Question> =
            tree.pages.iter().filter(named).map(|&page| (table, page)).collect();
        if leaves.is_empty() || !tree.table || tree.settled {
            continue;
        }
        let likely = orphans.iter().filter(|(_, note)| fit::fit(note, shape).is_some());
        let likely: Vec<Question> = likely.map(|&(page, _)| (table, page)).collect();
        if likely.is_empty() {
            continue;
        }
        let some = |pages: Vec<Question>| pages.into_iter().take(MOST_QUESTIONS);
        let questions: Vec<Question> = some(leaves.clone()).chain(some(likely)).collect();
        let verdicts = evidence.ask(&questions);
        outdated.extend(leaves.into_iter().filter(|leaf| {
            matches!(verdicts.get(leaf), Some(Verdict::Others { .. } | Verdict::Missing))
        }));
    }
    outdated
}
