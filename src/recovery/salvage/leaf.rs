//! Finds the cells of a page that hold a record: all cells of a sound page. On a damaged page, the
//! cells that parse and do not contradict the others.

use std::collections::{HashMap, HashSet};

use super::ascending;
use super::pointers;
use crate::format::record::{self, Class};
use crate::format::{Cell, Page, PageKind, header, number};

/// The smallest unit that a disk writes atomically, in bytes.
const SECTOR: usize = 512;

/// The least number of readable cells that prove a corrected cell count.
const FEWEST_CELLS: usize = 3;

/// The least number of wrong cell pointers from which a page may be torn.
const FEWEST_BAD: usize = 3;

/// Parses `bytes` as a page. If the page is not sound, this tries the kinds and cell counts that
/// differ by one bit, and takes the one that makes the page sound. If the page does not parse with
/// its own cell count, it takes the count with the most readable cells.
pub(super) fn open(bytes: &[u8], usable: usize, first: bool) -> Option<Page<'_>> {
    let page = Page::parse(bytes, usable, first);
    if page.is_some_and(|page| is_sound(&page)) {
        return page;
    }
    let at = if first { header::SIZE } else { 0 };
    let flag = *bytes.get(at)?;
    let count = usize::from(number::u16_at(bytes, at + 3)?);
    for kind in
        [PageKind::TableLeaf, PageKind::IndexLeaf, PageKind::TableInterior, PageKind::IndexInterior]
    {
        // One bit only: other content must not become a b-tree page by chance.
        if (kind.flag() ^ flag).count_ones() > 1 {
            continue;
        }
        if kind.flag() != flag {
            let other = Page::taken_for(bytes, usable, first, kind, count).filter(is_sound);
            if other.is_some_and(|other| other.cells > 0) {
                return other;
            }
            continue;
        }
        let others = (0..16)
            .filter_map(|bit| Page::taken_for(bytes, usable, first, kind, count ^ (1 << bit)));
        let sound = others.clone().find(|other| is_sound(other) && other.cells > 0);
        if sound.is_some() {
            return sound;
        }
        if page.is_none() {
            let readable = |page: &Page<'_>| {
                let readable = (0..page.cells).filter_map(|index| page.cell(index));
                readable.filter(|cell| kind == PageKind::TableInterior || cell.is_record()).count()
            };
            let (most, other) =
                others.map(|it| (readable(&it), it)).max_by_key(|(most, _)| *most)?;
            return (most >= FEWEST_CELLS && most * 4 >= other.cells * 3).then_some(other);
        }
    }
    page
}

/// Whether all cells of a page parse, ascend, and account for its bytes.
fn is_sound(page: &Page<'_>) -> bool {
    let mut taken = 0;
    let mut last = None;
    for index in 0..page.cells {
        let Some(cell) = page.cell(index) else { return false };
        let ascends = !page.kind.is_table() || last.is_none_or(|last| last < cell.rowid);
        if !ascends || (page.kind != PageKind::TableInterior && !cell.is_record()) {
            return false;
        }
        last = Some(cell.rowid);
        taken += cell.size;
    }
    page.accounts_for(taken)
}

/// The readable cells of a page.
#[derive(Debug)]
pub(super) struct Cells<'a> {
    /// In the page's order.
    pub(super) cells: Vec<Cell<'a>>,
    /// Cells with a record that is not accepted: they overlap other cells, or their rowid is out of
    /// order.
    pub(super) aside: Vec<Aside<'a>>,
    /// Cells in their place, without overflow pages, whose record is not valid.
    pub(super) misfits: Vec<Cell<'a>>,
    /// The offsets of cells that were found without a pointer.
    pub(super) mended: Vec<usize>,
    /// The offset of a cell that a torn write has cut.
    pub(super) torn: Option<usize>,
    /// The page has no fault.
    pub(super) sound: bool,
}

/// A cell that contradicts the other cells of its page.
#[derive(Debug)]
pub(super) struct Aside<'a> {
    pub(super) cell: Cell<'a>,
    /// The rowid that it must have had, if its neighbours leave only one.
    pub(super) rowid: Option<i64>,
}

/// Finds the cells of a page with records.
pub(super) fn cells<'a>(page: &Page<'a>) -> Cells<'a> {
    let mut cells = Vec::with_capacity(page.cells);
    let mut taken = 0;
    let mut ascending = true;
    let mut last = i64::MIN;
    let mut damaged = false;
    let mut misfits = Vec::new();
    let mut bad = Vec::new();
    for index in 0..page.cells {
        let Some(cell) = page.cell(index).filter(Cell::is_record).or_else(|| {
            // A valid record up to the beginning of the next cell: only the length is damaged.
            damaged = true;
            page.cell_by_record(index)
        }) else {
            bad.extend(page.pointer(index));
            let cell = page.cell(index).filter(|cell| cell.overflow == 0);
            misfits.extend(cell.filter(|cell| page.joins(cell.at, cell.at + cell.size)));
            continue;
        };
        ascending &= cells.is_empty() || last < cell.rowid || !page.kind.is_table();
        last = cell.rowid;
        taken += cell.size;
        cells.push(cell);
    }
    let sound = !damaged && cells.len() == page.cells && ascending && page.accounts_for(taken);
    let mut aside = Vec::new();
    if !sound {
        let all = cells.clone();
        disentangle(&mut cells, page);
        if page.kind.is_table() {
            aside = keep_ascending(&mut cells, page);
        }
        let mut known: HashSet<usize> = cells.iter().map(|cell| cell.at).collect();
        known.extend(aside.iter().map(|it| it.cell.at));
        let others = all.into_iter().filter(|cell| known.insert(cell.at));
        aside.extend(others.map(|cell| Aside { cell, rowid: None }));
    }
    if !sound && let Some(all) = pointers::mend(page, &cells) {
        let known: HashSet<usize> = cells.iter().map(|cell| cell.at).collect();
        let mended = all.iter().map(|cell| cell.at).filter(|at| !known.contains(at)).collect();
        let places: HashSet<usize> = all.iter().map(|cell| cell.at).collect();
        aside.retain(|it| !places.contains(&it.cell.at));
        let misfits = Vec::new();
        return Cells { cells: all, aside, misfits, mended, torn: None, sound: false };
    }
    let torn = torn(&cells, &bad);
    Cells { cells, aside, misfits, mended: Vec::new(), torn, sound }
}

/// The classes of a cell's fields. `None` if the record's header continues on an overflow page.
pub(super) fn classes(cell: &Cell<'_>, field: impl FnMut(usize, Class)) -> Option<usize> {
    record::classes(cell.local, cell.length, field)
}

/// Resolves overlapping cells: the cell that joins others without a gap on more sides stays. A
/// damaged pointer leads into the middle of a cell, where nothing joins.
fn disentangle(cells: &mut Vec<Cell<'_>>, page: &Page<'_>) {
    let mut places: Vec<(usize, usize)> = cells.iter().map(|it| (it.at, it.at + it.size)).collect();
    places.sort_unstable();
    // Two pointers to one cell count as one cell.
    places.dedup();
    let mut ends: Vec<usize> = places.iter().map(|&(_, end)| end).collect();
    ends.sort_unstable();
    let joints = |(start, end): (usize, usize)| {
        let before = ends.binary_search(&start).is_ok() || start == page.content();
        let after =
            places.binary_search_by_key(&end, |&(start, _)| start).is_ok() || end == page.usable();
        u8::from(before) + u8::from(after)
    };
    let mut out = Vec::new();
    let mut reach: Option<(usize, usize)> = None;
    for &place in &places {
        match reach {
            Some(other) if place.0 < other.1 => match joints(place).cmp(&joints(other)) {
                std::cmp::Ordering::Less => out.push(place.0),
                std::cmp::Ordering::Greater => {
                    out.push(other.0);
                    reach = Some(place);
                }
                std::cmp::Ordering::Equal => {
                    out.extend([place.0, other.0]);
                    if place.1 > other.1 {
                        reach = Some(place);
                    }
                }
            },
            _ => reach = Some(place),
        }
    }
    if !out.is_empty() {
        out.sort_unstable();
        cells.retain(|cell| out.binary_search(&cell.at).is_err());
    }
}

/// The offset of the cell that a torn write has cut. On a torn page some sectors are newer than
/// others. All pointers are of one version, so those to one side of a sector boundary are wrong.
fn torn(cells: &[Cell<'_>], bad: &[usize]) -> Option<usize> {
    let (&first, &last) = (bad.iter().min()?, bad.iter().max()?);
    if bad.len() < FEWEST_BAD {
        return None;
    }
    let crossing = |edge: usize, good: usize| {
        let cell = cells.iter().find(|cell| cell.at < edge && edge < cell.at + cell.size);
        cell.filter(|_| bad.len() > good).map(|cell| cell.at)
    };
    let (before, after) = (first / SECTOR * SECTOR, (last / SECTOR + 1) * SECTOR);
    let behind = cells.iter().filter(|cell| cell.at >= before).count();
    let in_front = cells.iter().filter(|cell| cell.at + cell.size <= after).count();
    crossing(before, behind).or_else(|| crossing(after, in_front))
}

/// Keeps the longest run of ascending rowids. Returns the other cells, whose rowids are damaged.
fn keep_ascending<'a>(cells: &mut Vec<Cell<'a>>, page: &Page<'a>) -> Vec<Aside<'a>> {
    let rowids: Vec<i64> = cells.iter().map(|cell| cell.rowid).collect();
    let kept = ascending::longest(&rowids);
    // Unreadable cells have a place in the order, too.
    let index = |place| Some((page.pointer(place)?, place));
    let index: HashMap<usize, usize> = (0..page.cells).filter_map(index).collect();
    let all = std::mem::take(cells);
    let mut aside = Vec::new();
    for ((place, &cell), stays) in all.iter().enumerate().zip(&kept) {
        if *stays {
            cells.push(cell);
            continue;
        }
        let neighbour = |place: usize| all.get(place).filter(|_| kept.get(place) == Some(&true));
        let between = neighbour(place.wrapping_sub(1)).zip(neighbour(place + 1));
        let rowid = between.and_then(|(before, after)| {
            let rowid = before.rowid.checked_add(1)?;
            let apart = index.get(&after.at)?.checked_sub(*index.get(&before.at)?)?;
            (apart == 2 && rowid.checked_add(1)? == after.rowid).then_some(rowid)
        });
        aside.push(Aside { cell, rowid });
    }
    aside
}
