//! Finds stale leaves, which only an out-of-date interior page references.
//!
//! Stale leaves were freed after that interior page was written. So the freelist has them, and the
//! table's indexes have the rows of orphan pages instead of theirs. Without a verdict of an index
//! the interior page is trusted and not the freelist, which may be out of date, too.

use std::collections::HashSet;

use super::evidence::{Question, Verdict};
use super::fit;
use super::scene::Scene;
use super::survey::Note;

/// Maximum number of leaves, and of orphans, for which a table's indexes are queried.
const MOST_QUESTIONS: usize = 10_000;

/// The stale leaves, each with the number of the table that has it. `named_free` are the b-tree
/// pages that the freelist has.
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
