//! Proves that an index which has lost pages never had an entry for a row: two neighbouring entries
//! of one leaf exclude every key between them.
//!
//! Memory: one key a row in question, and the entries of one leaf.

use super::leaf;
use super::pages::Pages;
use super::survey::Survey;
use crate::format::{Cell, PageKind, SortKey, record};

/// Bounds the comparisons: the average number a row. The leaves of a sound index do not overlap.
const MOST_LOOKS: usize = 16;

/// A row without an entry in the index.
pub(super) struct Unnamed {
    /// The key that its entry would have.
    pub(super) key: SortKey,
    /// The page of the row.
    pub(super) page: u32,
    /// The row was reported to `absent`.
    pub(super) reported: bool,
}

/// Calls `absent` with the page of each of `rows` that provably has no entry in `index`, which has
/// these pages. `descending` has the sort order of the entries' first fields.
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
        if !(note.sound && note.is_filled(PageKind::IndexLeaf)) {
            continue;
        }
        for (first, last) in runs(pages, page, descending) {
            let from = rows.partition_point(|row| !first.is_before(&row.key));
            let behind = rows.iter_mut().skip(from).take(looks).take_while(|row| row.key <= last);
            for row in behind {
                looks -= 1;
                if !row.reported && row.key.is_before(&last) {
                    row.reported = true;
                    absent(row.page);
                }
            }
        }
    }
}

/// The first and the last key of each run of readable entries on a leaf. An entry with overflow
/// pages ends a run: its row was not read, and could be the row in question.
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
