//! Cells that a page's damaged pointers no longer lead to.
//!
//! A pointer of which one bit was flipped leads somewhere else on the page, or off it. Where it led
//! before there is a record that overlaps no other cell, with a rowid between its neighbours'; and
//! the page accounts for all of its bytes again only if every cell is found. So that is the proof.

use std::collections::{BTreeMap, HashMap};

use crate::format::{Cell, Page};

/// Of so many cells one may have lost its pointer.
const MOST: usize = 4;

/// All cells of `page` in its order, where `found` are those that its pointers lead to, and the
/// others can be found. None otherwise.
pub(super) fn mend<'a>(page: &Page<'a>, found: &[Cell<'a>]) -> Option<Vec<Cell<'a>>> {
    let missing = page.cells.checked_sub(found.len())?;
    if missing == 0 || (missing > 1 && missing * MOST > page.cells) {
        return None;
    }
    let mut places: HashMap<usize, Cell<'a>> = found.iter().map(|cell| (cell.at, *cell)).collect();
    let mut cells: Vec<Option<Cell<'a>>> =
        (0..page.cells).map(|index| places.remove(&page.pointer(index)?)).collect();
    let mut taken: BTreeMap<usize, usize> =
        found.iter().map(|cell| (cell.at, cell.at + cell.size)).collect();
    // What the pointer says as it is, last: another's may have been in its way.
    let flips = |pointer: usize| (0..16).map(move |bit| pointer ^ (1 << bit));
    for flipped in [true, false] {
        for index in 0..page.cells {
            if cells.get(index).is_none_or(Option::is_some) {
                continue;
            }
            let pointer = page.pointer(index)?;
            let before = cells.get(..index)?.iter().rev().flatten().next().map(|cell| cell.rowid);
            let after = cells.get(index + 1..)?.iter().flatten().next().map(|cell| cell.rowid);
            let ascends = |rowid: i64| {
                !page.kind.is_table()
                    || (before.is_none_or(|it| it < rowid) && after.is_none_or(|it| rowid < it))
            };
            let is_free = |cell: &Cell<'_>| {
                let before = taken.range(..cell.at + cell.size).next_back();
                before.is_none_or(|(_, &end)| end <= cell.at)
            };
            let at = |at: usize| {
                let cell = page.cell_that_begins_at(at).filter(Cell::is_record)?;
                (ascends(cell.rowid) && is_free(&cell)).then_some(cell)
            };
            let mut candidates: Vec<Cell<'a>> = match flipped {
                true => flips(pointer).filter_map(at).collect(),
                false => at(pointer).into_iter().collect(),
            };
            // Of several that which ends where another begins.
            if candidates.len() > 1 {
                candidates.retain(|cell| {
                    let end = cell.at + cell.size;
                    taken.contains_key(&end) || end == page.usable()
                });
            }
            if let &[cell] = candidates.as_slice() {
                taken.insert(cell.at, cell.at + cell.size);
                *cells.get_mut(index)? = Some(cell);
            }
        }
    }
    let cells: Vec<Cell<'a>> = cells.into_iter().collect::<Option<_>>()?;
    let all = cells.iter().map(|cell| cell.size).sum();
    page.accounts_for(all).then_some(cells)
}
