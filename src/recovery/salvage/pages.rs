//! The damaged file's pages, by number: the newest frame of the WAL if there is one, else the page
//! of the file.
//!
//! A read error loses only the page that it concerns. Memory: [`BLOCKS`] blocks of [`BLOCK`] bytes,
//! and one entry for each page in the WAL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

use super::Source;
use crate::engine::{Error, PageImage, PageSource, Result, WalPageIndex};

/// Bytes read at once: a multiple of every page size.
const BLOCK: usize = 1 << 16;

/// Number of blocks in the cache.
const BLOCKS: usize = 64;

/// Size and number of a damaged file's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recovery) struct Layout {
    /// Bytes a page.
    pub(super) page_size: u32,
    /// Usable bytes a page, without the reserved ones.
    pub(in crate::recovery) usable: usize,
    /// The number of pages in the file and the WAL.
    pub(in crate::recovery) count: u32,
}

impl Layout {
    /// Bytes of all pages.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.page_size)
    }
}

/// The pages of a source.
pub(in crate::recovery) struct Pages<'a> {
    source: Source<'a>,
    pub(in crate::recovery) layout: Layout,
    overlay: WalPageIndex,
    cache: RefCell<Cache>,
    sums: RefCell<HashMap<u32, u64>>,
}

/// A page's bytes.
#[derive(Debug, Clone)]
pub(in crate::recovery) struct PageBytes {
    block: Rc<[u8]>,
    start: usize,
    end: usize,
}

impl Deref for PageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.get(self.start..self.end).unwrap_or_default()
    }
}

#[derive(Default)]
struct Cache {
    blocks: HashMap<Place, (Rc<[u8]>, u64)>,
    uses: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    File(u64),
    Wal(u64),
}

impl<'a> Pages<'a> {
    pub(in crate::recovery) fn new(
        source: Source<'a>,
        layout: Layout,
        overlay: WalPageIndex,
    ) -> Self {
        Self { source, layout, overlay, cache: RefCell::default(), sums: RefCell::default() }
    }

    /// How many are.
    pub(super) fn count_from_wal(&self) -> u64 {
        self.overlay.len() as u64
    }

    /// Whether the page is read from the WAL.
    pub(super) fn is_from_wal(&self, page: u32) -> bool {
        self.overlay.frame(page).is_some()
    }

    /// The page's bytes, as far as they are there: a file may end within a page. None if there are
    /// none.
    pub(in crate::recovery) fn read(&self, page: u32) -> Option<PageBytes> {
        if page == 0 || page > self.layout.count {
            return None;
        }
        let size = self.layout.page_size as usize;
        if let Some(offset) = self.overlay.frame(page) {
            let wal = self.source.wal?;
            let block = self.block(Place::Wal(offset), || {
                let mut bytes = vec![0; size];
                let read = wal.read_at(&mut bytes, offset).ok()?;
                (read == size).then(|| bytes.into())
            })?;
            return Some(PageBytes { block, start: 0, end: size });
        }
        let offset = u64::from(page - 1) * size as u64;
        let first = offset - offset % BLOCK as u64;
        let start = usize::try_from(offset - first).ok()?;
        let read = |count: usize, offset: u64| {
            let mut bytes = vec![0; count];
            let read = self.source.database.read_at(&mut bytes, offset).ok()?;
            bytes.truncate(read);
            (read > 0).then(|| Rc::<[u8]>::from(bytes))
        };
        // Where a block cannot be read, the page alone may still be.
        let (block, start) = match self.block(Place::File(first), || read(BLOCK, first)) {
            Some(block) => (block, start),
            None => (read(size, offset)?, 0),
        };
        let end = block.len().min(start + size);
        (start < end).then_some(PageBytes { block, start, end })
    }

    /// Whether two pages have the same bytes. Many pages may be compared with each other: those
    /// that are not alike are read once, for their sum.
    pub(super) fn are_same(&self, one: u32, other: u32) -> bool {
        if self.sum(one) != self.sum(other) {
            return false;
        }
        match (self.read(one), self.read(other)) {
            (Some(one), Some(other)) => *one == *other,
            _ => false,
        }
    }

    /// A sum of a page's bytes. Memory: 16 bytes for each page that is asked about.
    fn sum(&self, page: u32) -> u64 {
        if let Some(&sum) = self.sums.borrow().get(&page) {
            return sum;
        }
        let mut hasher = DefaultHasher::new();
        self.read(page).as_deref().hash(&mut hasher);
        let sum = hasher.finish();
        self.sums.borrow_mut().insert(page, sum);
        sum
    }

    fn block(&self, place: Place, read: impl FnOnce() -> Option<Rc<[u8]>>) -> Option<Rc<[u8]>> {
        let mut cache = self.cache.borrow_mut();
        cache.uses += 1;
        let now = cache.uses;
        if let Some((block, used)) = cache.blocks.get_mut(&place) {
            *used = now;
            return Some(Rc::clone(block));
        }
        let block = read()?;
        if cache.blocks.len() >= BLOCKS {
            let oldest = cache.blocks.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(&place, _)| place) {
                cache.blocks.remove(&oldest);
            }
        }
        cache.blocks.insert(place, (Rc::clone(&block), now));
        Some(block)
    }
}

/// A source's pages as SQLite gets them.
pub(in crate::recovery) struct AsImage<'a> {
    pages: &'a Pages<'a>,
    padded: bool,
}

impl<'a> AsImage<'a> {
    /// Without the page that the end of the file cuts: bytes that are not there are not zeros.
    pub(in crate::recovery) fn whole(pages: &'a Pages<'a>) -> Self {
        Self { pages, padded: false }
    }

    /// With zeros for what the end of the file cuts, as SQLite reads it.
    pub(in crate::recovery) fn padded(pages: &'a Pages<'a>) -> Self {
        Self { pages, padded: true }
    }
}

impl PageImage for AsImage<'_> {
    fn page_size(&self) -> u32 {
        self.pages.layout.page_size
    }

    fn pages(&self) -> u32 {
        self.pages.layout.count
    }

    fn read_page(&self, page: u32, to: &mut [u8]) -> Result<()> {
        let missing = || Error::sqlite(rusqlite::ffi::SQLITE_IOERR_READ, "the page is not there");
        let bytes = self.pages.read(page).ok_or_else(missing)?;
        if bytes.len() < to.len() && !self.padded {
            return Err(missing());
        }
        let (there, rest) = to.split_at_mut(bytes.len().min(to.len()));
        there.copy_from_slice(bytes.get(..there.len()).unwrap_or_default());
        rest.fill(0);
        Ok(())
    }
}

/// The first bytes of a storage; fewer if it has fewer.
pub(super) fn start_of(storage: &dyn PageSource, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = storage.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    bytes
}
