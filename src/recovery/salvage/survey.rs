//! Reads every page once, in the file's order, and keeps a summary of 40 bytes of each.
//!
//! Memory: 100 MB for a file of 10 GB with pages of 4 KiB.

use super::leaf;
use super::pages::Pages;
use crate::engine::{Progress, Result, Stage};
use crate::format::freelist::Trunk;
use crate::format::number::u32_at;
use crate::format::record::Class;
use crate::format::{Page, PageKind, lock_page};

/// Number of columns whose types are in a summary.
const COLUMNS: usize = 12;

/// The class of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// Unreadable, beyond the end of the file, or all zeros.
    Nothing,
    /// A page of a b-tree.
    Tree(PageKind),
    /// Anything else: overflow, freelist, pointer map, damage.
    Other,
}

/// See [`Note::key`].
pub(super) type Key = (u16, i64, i64, (u16, u16));

/// The summary of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) is: Is,
    /// The page has no fault. For [`Is::Other`]: it could be a freelist trunk.
    pub(super) sound: bool,
    /// Some of its rows have overflow pages.
    pub(super) overflows: bool,
    /// Number of readable cells.
    pub(super) cells: u16,
    /// Least and greatest number of fields of a record.
    pub(super) fields: (u16, u16),
    /// Least and greatest rowid or key. For [`Is::Other`]: the link of an overflow page, and the
    /// offset of the last byte that is not zero.
    pub(super) low: i64,
    /// See [`Self::low`].
    pub(super) high: i64,
    /// The types seen in each of the first columns.
    pub(super) types: Types,
}

/// Types seen in the first [`COLUMNS`] columns: five bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Types(u64);

impl Types {
    pub(super) fn see(&mut self, column: usize, class: Class) {
        if column < COLUMNS {
            self.0 |= 1 << (5 * column + class as usize);
        }
    }

    /// Whether a value of `class` was seen in `column`. `false` beyond the first [`COLUMNS`].
    pub(super) fn seen(self, column: usize, class: Class) -> bool {
        column < COLUMNS && self.0 & (1 << (5 * column + class as usize)) != 0
    }

    /// The number of columns with a type that `other` lacks.
    fn columns_beyond(self, other: Self) -> u32 {
        let strange = self.0 & !other.0;
        (0..COLUMNS).map(|column| u32::from(strange >> (5 * column) & 0x1f != 0)).sum()
    }
}

const _: () = assert!(size_of::<Note>() <= 40);

impl Note {
    pub(super) const NOTHING: Self = Self {
        is: Is::Nothing,
        sound: false,
        overflows: false,
        cells: 0,
        fields: (u16::MAX, 0),
        low: i64::MAX,
        high: i64::MIN,
        types: Types(0),
    };

    /// The combined summary of several pages.
    pub(super) fn of_all(notes: impl Iterator<Item = Self>) -> Option<Self> {
        notes.filter(|note| note.cells > 0).reduce(|all, note| Self {
            fields: (all.fields.0.min(note.fields.0), all.fields.1.max(note.fields.1)),
            types: Types(all.types.0 | note.types.0),
            low: all.low.min(note.low),
            high: all.high.max(note.high),
            ..all
        })
    }

    /// The number of columns with types that `others`, the combined summary of other pages, lack.
    /// A different number of fields counts as one more, except for fewer fields in rows before all
    /// others: those may be older than a column.
    pub(super) fn strangeness(&self, others: &Self) -> u32 {
        let fewer = self.fields.0 < others.fields.0 && self.high >= others.low;
        let fields = fewer || self.fields.1 > others.fields.1;
        self.types.columns_beyond(others.types) + u32::from(fields)
    }

    /// How similar a page is to `others`, the combined summary of other pages.
    pub(super) fn likeness(&self, others: &Self) -> u32 {
        3 * (COLUMNS as u32 + 1 - self.strangeness(others))
    }

    /// Whether all its rowids are in a range.
    pub(super) fn is_in(&self, (low, high): (i64, i64)) -> bool {
        self.low >= low && self.high <= high
    }

    /// Whether the page has content that is not a damaged b-tree page.
    pub(super) fn is_something(&self) -> bool {
        match self.is {
            Is::Nothing => false,
            Is::Tree(_) => self.sound,
            Is::Other => true,
        }
    }

    /// A key that is equal for pages with the same bytes.
    pub(super) fn key(&self) -> Key {
        (self.cells, self.low, self.high, self.fields)
    }

    /// Whether the page is a b-tree page of that kind with at least one cell.
    pub(super) fn is_filled(&self, kind: PageKind) -> bool {
        self.is == Is::Tree(kind) && self.cells > 0
    }
}

/// The notes of a file's pages.
pub(super) struct Survey {
    notes: Vec<Note>,
    /// Bytes of the longest record that was seen, as far as it could be in the file.
    pub(super) longest: u64,
}

impl Survey {
    /// The note of `page`.
    pub(super) fn note(&self, page: u32) -> Note {
        let place = (page as usize).checked_sub(1);
        place.and_then(|place| self.notes.get(place)).copied().unwrap_or(Note::NOTHING)
    }

    /// All pages with their notes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Note)> {
        (1..).zip(&self.notes)
    }

    /// Looks at every page.
    ///
    /// # Errors
    /// `task`'s.
    pub(super) fn take(pages: &Pages<'_>, task: &dyn Progress) -> Result<Self> {
        let layout = pages.layout;
        let mut notes = Vec::with_capacity(layout.count as usize);
        let unused = lock_page(layout.page_size);
        let mut longest = 0;
        for page in 1..=layout.count {
            if page % 1024 == 1 {
                task.check_cancelled()?;
                let (done, total) = (u64::from(page), u64::from(layout.count));
                task.stage(Stage { name: "survey", done, total });
            }
            notes.push(match pages.read(page) {
                Some(bytes) if page != unused => look(&bytes, page, pages, &mut longest),
                _ => Note::NOTHING,
            });
        }
        Ok(Self { notes, longest })
    }
}

fn look(bytes: &[u8], number: u32, pages: &Pages<'_>, longest: &mut u64) -> Note {
    let layout = pages.layout;
    let Some(page) = leaf::open(bytes, layout.usable, number == 1) else {
        return other(bytes, layout.usable, layout.count);
    };
    let mut note = Note { is: Is::Tree(page.kind), ..Note::NOTHING };
    if page.kind == PageKind::TableInterior {
        interior(&page, layout.count, &mut note);
        return note;
    }
    let found = leaf::cells(&page);
    let leads_on = page.kind.is_interior() && (1..=layout.count).contains(&page.right_child());
    if found.cells.is_empty() && !found.sound && !leads_on {
        // An overflow page whose link is damaged may begin as a b-tree's page does.
        return other(bytes, layout.usable, layout.count);
    }
    note.sound = found.sound;
    note.cells = u16::try_from(found.cells.len()).unwrap_or(u16::MAX);
    for cell in &found.cells {
        if cell.length <= layout.bytes() {
            *longest = cell.length.max(*longest);
        }
        note.low = note.low.min(cell.rowid);
        note.high = note.high.max(cell.rowid);
        note.overflows |= cell.overflow != 0;
        let types = &mut note.types;
        if let Some(count) = leaf::classes(cell, |column, class| types.see(column, class)) {
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            note.fields = (note.fields.0.min(count), note.fields.1.max(count));
        }
    }
    note
}

/// An interior page of a table: its keys ascend and its children are in the file.
fn interior(page: &Page<'_>, count: u32, note: &mut Note) {
    let mut taken = 0;
    let mut sound = (1..=count).contains(&page.right_child());
    for index in 0..page.cells {
        let Some(cell) = page.cell(index) else {
            sound = false;
            continue;
        };
        let fits = note.cells == 0 || cell.rowid > note.high;
        if !fits || !(1..=count).contains(&cell.child) {
            sound = false;
            continue;
        }
        note.low = note.low.min(cell.rowid);
        note.high = cell.rowid;
        note.cells += 1;
        taken += cell.size;
    }
    note.sound = sound && page.accounts_for(taken);
}

fn other(bytes: &[u8], usable: usize, count: u32) -> Note {
    let bytes = bytes.get(..usable).unwrap_or(bytes);
    let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { return Note::NOTHING };
    let trunk = Trunk::parse(bytes, usable, count).is_some_and(|trunk| !trunk.is_empty());
    Note {
        is: Is::Other,
        sound: trunk,
        low: u32_at(bytes, 0).map_or(0, i64::from),
        high: i64::try_from(last).unwrap_or(i64::MAX),
        ..Note::NOTHING
    }
}
