//! Which cells of a page hold a record: all of them on a sound page; of a damaged one those that
//! are whole by themselves and fit between the others.

use crate::format::record::{self, Class};
use crate::format::{Cell, Page};

/// The cells of a page that can be taken.
#[derive(Debug)]
pub(super) struct Cells<'a> {
    /// In the page's order.
    pub(super) cells: Vec<Cell<'a>>,
    /// Everything on the page is as SQLite keeps it.
    pub(super) sound: bool,
}

/// Looks at the cells of a page that has records.
pub(super) fn cells<'a>(page: &Page<'a>) -> Cells<'a> {
    let mut cells = Vec::with_capacity(page.cells);
    let mut taken = 0;
    let mut ascending = true;
    let mut last = i64::MIN;
    for cell in (0..page.cells).filter_map(|index| page.cell(index)) {
        if !is_record(&cell) {
            continue;
        }
        ascending &= cells.is_empty() || last < cell.rowid || !page.kind.is_table();
        last = cell.rowid;
        taken += cell.size;
        cells.push(cell);
    }
    let sound = cells.len() == page.cells && ascending && page.accounts_for(taken);
    if !sound {
        disentangle(&mut cells);
        if page.kind.is_table() {
            keep_ascending(&mut cells);
        }
    }
    Cells { cells, sound }
}

/// Whether a cell's record is one as far as it is on the page.
fn is_record(cell: &Cell<'_>) -> bool {
    if record::classes(cell.local, cell.length, |_, _| {}).is_some() {
        return true;
    }
    // The header of a record with many fields may go on on an overflow page.
    cell.overflow != 0
        && record::header_length(cell.local)
            .is_some_and(|(header, _)| header > cell.local.len() && header as u64 <= cell.length)
}

/// The classes of a cell's fields; nothing where the record's header is not all on the page.
pub(super) fn classes(cell: &Cell<'_>, field: impl FnMut(usize, Class)) -> Option<usize> {
    record::classes(cell.local, cell.length, field)
}

/// Leaves out cells that overlap: one of two is wrong, and nothing tells which.
fn disentangle(cells: &mut Vec<Cell<'_>>) {
    let mut places: Vec<(usize, usize)> = cells.iter().map(|it| (it.at, it.at + it.size)).collect();
    places.sort_unstable();
    let mut entangled = Vec::new();
    let mut reach: Option<(usize, usize)> = None;
    for &(start, end) in &places {
        match reach {
            Some((widest, until)) if start < until => {
                entangled.extend([widest, start]);
                if end > until {
                    reach = Some((start, end));
                }
            }
            _ => reach = Some((start, end)),
        }
    }
    if !entangled.is_empty() {
        entangled.sort_unstable();
        cells.retain(|cell| entangled.binary_search(&cell.at).is_err());
    }
}

/// Keeps the longest run of ascending rowids: what stands out of it is damaged.
fn keep_ascending(cells: &mut Vec<Cell<'_>>) {
    // Patience sorting: the last cell of the best run of each length, and each one's forerunner.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(cells.len());
    let rowid = |cells: &[Cell<'_>], place: usize| cells.get(place).map(|cell| cell.rowid);
    for (place, cell) in cells.iter().enumerate() {
        let length = ends.partition_point(|&end| rowid(cells, end) < Some(cell.rowid));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = place,
            None => ends.push(place),
        }
    }
    let mut kept = vec![false; cells.len()];
    let mut next = ends.last().copied();
    while let Some(place) = next {
        if let Some(kept) = kept.get_mut(place) {
            *kept = true;
        }
        next = before.get(place).copied().flatten();
    }
    let mut kept = kept.into_iter();
    cells.retain(|_| kept.next().unwrap_or(false));
}
