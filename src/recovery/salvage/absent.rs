//! Which rows an index that has lost pages has no entry of for certain: those whose entry would be
//! between two that are on one of its leaves.
//!
//! Memory: a key for each row that is asked about, and what a leaf's entries need.

use super::leaf;
use super::pages::Pages;
use super::survey::Survey;
use crate::format::{Cell, Kind, SortKey, record};

/// How often each row may be looked at on the average: the leaves of a sound index do not overlap.
const MOST_LOOKS: usize = 16;

/// A row that no entry was found of.
pub(super) struct Unnamed {
    /// Where its entry would be.
    pub(super) key: SortKey,
    /// The page that it is on.
    pub(super) page: u32,
    /// It was told of.
    pub(super) told: bool,
}

/// Tells `absent` the page of each of `rows` that is not in the index with those pages, whose
/// entries' first fields are sorted as `descending` says.
pub(super) fn find(
    pages: &Pages<'_>,
    survey: &Survey,
    (index, descending): (&[u32], &[bool]),
    mut rows: Vec<Unnamed>,
    absent: &mut dyn FnMut(u32),
) {
    if rows.is_empty() || descending.is_empty() {
        return;
    }
    rows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let mut looks = rows.len() * MOST_LOOKS;
    for &page in index {
        let note = survey.note(page);
        if !(note.sound && note.is_filled(Kind::IndexLeaf)) {
            continue;
        }
        for (first, last) in runs(pages, page, descending) {
            let from = rows.partition_point(|row| !first.is_before(&row.key));
            let behind = rows.iter_mut().skip(from).take(looks).take_while(|row| row.key <= last);
            for row in behind {
                looks -= 1;
                if !row.told && row.key.is_before(&last) {
                    row.told = true;
                    absent(row.page);
                }
            }
        }
    }
}

/// The keys of the first and the last of each run of entries that are all on a leaf: of others
/// nobody read which row they are of.
fn runs(pages: &Pages<'_>, page: u32, descending: &[bool]) -> Vec<(SortKey, SortKey)> {
    let Some(bytes) = pages.read(page) else { return Vec::new() };
    let Some(view) = leaf::open(&bytes, pages.layout.usable, page == 1) else { return Vec::new() };
    let cells: Vec<_> = (0..view.cells).map(|place| view.cell(place)).collect();
    let is_read = |cell: &Option<Cell<'_>>| cell.as_ref().is_some_and(|cell| cell.overflow == 0);
    let key = |cell: &Option<Cell<'_>>| {
        let mut fields = Vec::new();
        record::read(cell.as_ref()?.local, &mut fields)
            .then(|| SortKey::of(fields.iter(), descending))
    };
    let runs = cells.chunk_by(|one, next| is_read(one) && is_read(next));
    runs.filter_map(|run| Some((key(run.first()?)?, key(run.last()?)?))).collect()
}
