//! A page of a b-tree and its cells (<https://sqlite.org/fileformat2.html#b_tree_pages>).

use super::number::{byte, signed, u16_at, u32_at, varint};
use super::record;

/// Bytes in fragments that a well-formed page has at most.
const MOST_FRAGMENTS: u8 = 60;

/// The four kinds of b-tree page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Keys and children of an index or a WITHOUT ROWID table.
    IndexInterior,
    /// Rowids and children of a table.
    TableInterior,
    /// Keys of an index, rows of a WITHOUT ROWID table.
    IndexLeaf,
    /// Rows of a table.
    TableLeaf,
}

impl PageKind {
    /// The kind that a page's first byte names.
    pub fn of(flag: u8) -> Option<Self> {
        match flag {
            2 => Some(Self::IndexInterior),
            5 => Some(Self::TableInterior),
            10 => Some(Self::IndexLeaf),
            13 => Some(Self::TableLeaf),
            _ => None,
        }
    }

    /// The first byte of its pages.
    pub fn flag(self) -> u8 {
        match self {
            Self::IndexInterior => 2,
            Self::TableInterior => 5,
            Self::IndexLeaf => 10,
            Self::TableLeaf => 13,
        }
    }

    /// Whether its cells have children.
    pub fn is_interior(self) -> bool {
        matches!(self, Self::IndexInterior | Self::TableInterior)
    }

    /// Whether it belongs to a table with rowids.
    pub fn is_table(self) -> bool {
        matches!(self, Self::TableInterior | Self::TableLeaf)
    }
}

/// A view of a b-tree page. Its cells may be anything. Of a page that the end of the file cuts only
/// the bytes that are there count: a cell that needs others is not on it.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The page's bytes that are SQLite's, as far as they are there.
    bytes: &'a [u8],
    /// How many they are on a page that is whole.
    usable: usize,
    /// Where the page's header begins: 100 on page 1.
    start: usize,
    /// Which kind it says it is.
    pub kind: PageKind,
    /// How many cells it says it has.
    pub cells: usize,
}

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The left child, on interior pages; else 0.
    pub child: u32,
    /// The rowid (the greatest of the left child's, on interior pages); 0 on index pages.
    pub rowid: i64,
    /// The payload's length, with what is on overflow pages.
    pub length: u64,
    /// What of the payload is on this page.
    pub local: &'a [u8],
    /// First overflow page; 0 where all is local.
    pub overflow: u32,
    /// Where on the page the cell begins.
    pub at: usize,
    /// Bytes that it takes there.
    pub size: usize,
}

impl Cell<'_> {
    /// Whether its record is one as far as it is on the page.
    pub fn is_record(&self) -> bool {
        if record::classes(self.local, self.length, |_, _| {}).is_some() {
            return true;
        }
        // The header of a record with many fields may go on on an overflow page.
        self.overflow != 0
            && record::header_length(self.local).is_some_and(|(header, _)| {
                header > self.local.len() && header as u64 <= self.length
            })
    }
}

/// How many of `length` bytes of payload a cell keeps on its page, of which `usable` bytes are
/// SQLite's.
pub fn local_length(kind: PageKind, usable: usize, length: u64) -> usize {
    let greatest = match kind {
        PageKind::TableLeaf => usable.saturating_sub(35),
        _ => (usable.saturating_sub(12) * 64 / 255).saturating_sub(23),
    };
    if length <= greatest as u64 {
        return usize::try_from(length).unwrap_or(greatest);
    }
    let least = (usable.saturating_sub(12) * 32 / 255).saturating_sub(23);
    let a_page = usable.saturating_sub(4).max(1) as u64;
    let rest = (length - least as u64) % a_page;
    match least + usize::try_from(rest).unwrap_or(usize::MAX / 2) {
        local if local <= greatest => local,
        _ => least,
    }
}

impl<'a> Page<'a> {
    /// The b-tree page that `bytes` hold, if their first byte names a kind and there is room for
    /// as many cells as it says. `usable` bytes of the page are SQLite's; `first`: it is page 1.
    pub fn parse(bytes: &'a [u8], usable: usize, first: bool) -> Option<Self> {
        let bytes = bytes.get(..usable).unwrap_or(bytes);
        let start = if first { super::header::SIZE } else { 0 };
        let kind = PageKind::of(byte(bytes, start)?)?;
        let cells = usize::from(u16_at(bytes, start + 3)?);
        let page = Self { bytes, usable, start, kind, cells };
        (page.array_end() <= usable).then_some(page)
    }

    /// The same bytes taken for a page of `kind` with `cells` cells, whatever its header says; none
    /// if there is no room for them.
    pub fn taken_for(
        bytes: &'a [u8],
        usable: usize,
        first: bool,
        kind: PageKind,
        cells: usize,
    ) -> Option<Self> {
        let bytes = bytes.get(..usable).unwrap_or(bytes);
        let start = if first { super::header::SIZE } else { 0 };
        let page = Self { bytes, usable, start, kind, cells };
        (page.array_end() <= usable).then_some(page)
    }

    /// Where the array of cell pointers begins.
    fn array(&self) -> usize {
        self.start + if self.kind.is_interior() { 12 } else { 8 }
    }

    /// Where it ends: no cell begins before.
    fn array_end(&self) -> usize {
        self.array() + 2 * self.cells
    }

    /// The rightmost child, on interior pages; else 0.
    pub fn right_child(&self) -> u32 {
        if self.kind.is_interior() { u32_at(self.bytes, self.start + 8).unwrap_or(0) } else { 0 }
    }

    /// Cell number `index`, if it is on the page with all that it has there.
    #[inline]
    pub fn cell(&self, index: usize) -> Option<Cell<'a>> {
        if index >= self.cells {
            return None;
        }
        self.cell_at(self.pointer(index)?)
    }

    /// Cell number `index` of a leaf, all of which is on the page, with the length that its record
    /// says instead of its own, if another cell or the page's end follows it right away, and no
    /// other begins in it.
    pub fn cell_by_record(&self, index: usize) -> Option<Cell<'a>> {
        let at = self.pointer(index).filter(|&at| index < self.cells && at >= self.array_end())?;
        if self.kind.is_interior() {
            return None;
        }
        let mut start = at + varint(self.bytes, at)?.1;
        let mut rowid = 0;
        if self.kind.is_table() {
            let (value, taken) = varint(self.bytes, start)?;
            rowid = signed(value);
            start += taken;
        }
        let length = record::extent(self.bytes.get(start..)?)?;
        let here = usize::try_from(length).ok()?;
        let end = start.checked_add(here)?;
        let whole = local_length(self.kind, self.usable, length) == here;
        let joins = self.joins(at, end);
        let local = self.bytes.get(start..end)?;
        let cell = Cell { child: 0, rowid, length, local, overflow: 0, at, size: end - at };
        (whole && joins && cell.size >= 4).then_some(cell)
    }

    /// Where cell number `index` begins, by the page's array.
    pub fn pointer(&self, index: usize) -> Option<usize> {
        u16_at(self.bytes, self.array() + 2 * index).map(usize::from)
    }

    /// Whether what begins at `at` and ends at `end` ends just where the next cell begins, or the
    /// page ends.
    pub fn joins(&self, at: usize, end: usize) -> bool {
        let pointers = (0..self.cells).filter_map(|index| self.pointer(index));
        end == pointers.filter(|&other| other > at).min().unwrap_or(self.usable)
    }

    /// The cell that begins at offset `at` of a leaf, whatever the page's array says, if it is on
    /// the page with all that it has there.
    pub fn cell_that_begins_at(&self, at: usize) -> Option<Cell<'a>> {
        if self.kind.is_interior() { None } else { self.cell_at(at) }
    }

    /// The cell that begins at offset `at`.
    #[inline]
    fn cell_at(&self, at: usize) -> Option<Cell<'a>> {
        if at < self.array_end() {
            return None;
        }
        let mut next = at;
        let mut child = 0;
        if self.kind.is_interior() {
            child = u32_at(self.bytes, next)?;
            next += 4;
        }
        let mut length = 0;
        if self.kind != PageKind::TableInterior {
            let (value, taken) = varint(self.bytes, next)?;
            length = value;
            next += taken;
        }
        let mut rowid = 0;
        if self.kind.is_table() {
            let (value, taken) = varint(self.bytes, next)?;
            rowid = signed(value);
            next += taken;
        }
        if self.kind == PageKind::TableInterior {
            let local = &[];
            return Some(Cell { child, rowid, length, local, overflow: 0, at, size: next - at });
        }
        let here = local_length(self.kind, self.usable, length);
        let local = self.bytes.get(next..next.checked_add(here)?)?;
        next += here;
        let mut overflow = 0;
        if (here as u64) < length {
            overflow = u32_at(self.bytes, next)?;
            next += 4;
        }
        // A cell takes four bytes at least: as many as a free block needs once it is deleted.
        let size = (next - at).max(4);
        (at + size <= self.bytes.len()).then_some(Cell {
            child,
            rowid,
            length,
            local,
            overflow,
            at,
            size,
        })
    }

    /// Bytes of it that are SQLite's.
    pub fn usable(&self) -> usize {
        self.usable
    }

    /// Where the content begins, as the page's header says: no cell is before.
    pub fn content(&self) -> usize {
        match u16_at(self.bytes, self.start + 5) {
            Some(0) => 65_536,
            content => content.map_or(0, usize::from),
        }
    }

    /// Whether cells that take `taken` bytes together account for all of the page, with its free
    /// blocks and fragments: so exactly does SQLite keep its pages that hardly any damage passes.
    pub fn accounts_for(&self, taken: usize) -> bool {
        let usable = self.usable;
        let content = self.content();
        let (Some(first), Some(fragments)) =
            (u16_at(self.bytes, self.start + 1), byte(self.bytes, self.start + 7))
        else {
            return false;
        };
        if content < self.array_end() || content > usable || fragments > MOST_FRAGMENTS {
            return false;
        }
        let mut sum = taken + usize::from(fragments);
        let mut block = usize::from(first);
        let mut least = content;
        while block != 0 {
            let (Some(next), Some(size)) =
                (u16_at(self.bytes, block), u16_at(self.bytes, block + 2))
            else {
                return false;
            };
            if block < least || size < 4 {
                return false;
            }
            // Free blocks are in the order of their places, so this ends.
            least = block + usize::from(size);
            sum += usize::from(size);
            block = usize::from(next);
        }
        least <= usable && sum == usable - content
    }

    /// The child pointers of an interior page, the right one last, with the greatest rowid of
    /// each but the last. Cells that are not on the page are left out.
    pub fn children(&self) -> impl Iterator<Item = (u32, Option<i64>)> + '_ {
        let inner = (0..self.cells).filter_map(|index| self.cell(index));
        inner
            .map(|cell| (cell.child, Some(cell.rowid)))
            .chain(std::iter::once((self.right_child(), None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_lengths_are_as_the_documents_formula_says() {
        // 4,096 usable bytes: X is 4,061 for table leaves and 1,002 for index pages, M is 489.
        assert_eq!(local_length(PageKind::TableLeaf, 4096, 4061), 4061);
        assert_eq!(local_length(PageKind::TableLeaf, 4096, 4062), 489);
        assert_eq!(local_length(PageKind::IndexLeaf, 4096, 1002), 1002);
        assert_eq!(local_length(PageKind::IndexLeaf, 4096, 1003), 1003 - 514);
        assert_eq!(local_length(PageKind::IndexLeaf, 4096, 489 + 4092), 489);
        assert_eq!(
            local_length(PageKind::TableLeaf, 480, u64::MAX).min(480),
            local_length(PageKind::TableLeaf, 480, u64::MAX)
        );
    }

    #[test]
    fn a_leaf_with_one_row() {
        let mut bytes = vec![0; 512];
        bytes[0] = 13;
        bytes[4] = 1;
        bytes[5..7].copy_from_slice(&507_u16.to_be_bytes());
        bytes[8..10].copy_from_slice(&507_u16.to_be_bytes());
        bytes[507..].copy_from_slice(&[3, 7, 2, 1, 42]);
        let page = Page::parse(&bytes, 512, false).unwrap();
        let cell = page.cell(0).unwrap();
        assert_eq!((cell.rowid, cell.local, cell.size), (7, &[2, 1, 42][..], 5));
        assert!(page.accounts_for(5));
        assert!(!page.accounts_for(4));
        assert!(page.cell(1).is_none());
        for cut in 0..512 {
            let page = Page::parse(&bytes[..cut], 512, false);
            assert!(page.is_none_or(|page| page.cell(0).is_none()), "{cut}");
        }
    }

    #[test]
    fn nonsense_is_no_page_or_has_no_cells() {
        assert!(Page::parse(&[0; 512], 512, false).is_none());
        assert!(Page::parse(&[13; 512], 512, false).is_none());
        assert!(Page::parse(&[13; 100], 512, false).is_none());
        assert!(Page::parse(&[13; 4], 512, false).is_none());
        let mut bytes = vec![0xff; 512];
        bytes[..8].copy_from_slice(&[13, 0, 0, 0, 1, 0, 0, 0]);
        assert!(Page::parse(&bytes, 512, false).unwrap().cell(0).is_none());
    }
}
