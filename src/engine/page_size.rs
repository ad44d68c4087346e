//! How large a file's pages are, by the pages themselves: each b-tree page that comes out whole is a
//! vote for its size and for the bytes at its end that are reserved.
//!
//! Any thread; reads up to 2 MiB, and keeps 144 KiB.

use super::PageSource;
use crate::format::{Cell, Page, PageKind};

/// Bytes of the file that are looked at: the first and as many at each of [`SAMPLES`] places.
const SAMPLE: usize = 1 << 17;

/// Places at which a file is sampled.
const SAMPLES: u64 = 16;

/// What a witness weighs, in bytes of whole pages: between two that are as good it decides.
const WITNESS: usize = 513;

/// Bytes of whole pages, by page size and reserved bytes.
#[derive(Debug)]
pub struct Votes {
    of: Vec<[usize; 256]>,
    /// Numbers of reserved bytes that are tried on every page.
    named: Vec<u8>,
}

/// Calls `look` with parts of a file and their offsets, which are multiples of every page size.
pub fn sample(database: &dyn PageSource, mut look: impl FnMut(u64, &[u8])) {
    let Ok(size) = database.size() else { return };
    let step = (size / SAMPLES).max(SAMPLE as u64).next_multiple_of(SAMPLE as u64);
    let mut bytes = vec![0; SAMPLE];
    for offset in (0..SAMPLES).map(|place| place * step).take_while(|&offset| offset < size) {
        let Ok(read) = database.read_at(&mut bytes, offset) else { continue };
        look(offset, bytes.get(..read).unwrap_or_default());
    }
}

impl Votes {
    /// No votes yet. `named`: numbers of reserved bytes that something says.
    pub fn new(named: &[u8]) -> Self {
        let mut named = named.to_vec();
        named.push(0);
        named.dedup();
        Self { of: vec![[0; 256]; 8], named }
    }

    /// Adds the votes of a file's pages, whatever their size.
    pub fn add(&mut self, database: &dyn PageSource) {
        sample(database, |offset, bytes| {
            for page_size in (0..8).map(|power| 512_usize << power) {
                for (place, page) in bytes.chunks_exact(page_size).enumerate() {
                    self.add_page(page, offset == 0 && place == 0);
                }
            }
        });
    }

    /// Adds the vote of one page; `first`: it is page 1.
    pub fn add_page(&mut self, page: &[u8], first: bool) {
        let power = page.len().trailing_zeros().saturating_sub(9) as usize;
        let reserved = reserved(page, first, &self.named);
        let of = reserved.and_then(|reserved| self.of.get_mut(power)?.get_mut(reserved));
        if let Some(bytes) = of {
            *bytes += page.len();
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.iter().flatten().all(|&bytes| bytes == 0)
    }

    /// The format with the most votes, those of `witnesses` (a page size, and the reserved bytes if
    /// they are known) among them; none where there is no vote. A witness weighs as much as a page
    /// of the smallest size.
    pub fn best(&self, witnesses: &[(u32, Option<u8>)]) -> Option<(u32, u8)> {
        let mut best = None;
        let mut most = 0;
        for (power, of) in self.of.iter().enumerate() {
            let page_size = 512_u32 << power;
            for (reserved, &bytes) in (0_u8..=255).zip(of) {
                let says = |&&(size, of): &&(u32, Option<u8>)| {
                    size == page_size && of.map_or(bytes > 0 || reserved == 0, |it| it == reserved)
                };
                let votes = bytes + WITNESS * witnesses.iter().filter(says).count();
                if votes > most {
                    most = votes;
                    best = Some((page_size, reserved));
                }
            }
        }
        best
    }
}

/// The page size, and how many bytes of a page are reserved, of which most b-tree pages of a
/// sample come out whole; none where there are no such pages. The page size may be `known`.
pub fn guess_format(database: &dyn PageSource, known: Option<u32>) -> Option<(u32, u8)> {
    let mut votes = Votes::new(&[]);
    votes.add(database);
    if let Some(known) = known {
        for (power, of) in votes.of.iter_mut().enumerate() {
            if known != 512_u32 << power {
                *of = [0; 256];
            }
        }
    }
    let known: Vec<_> = known.map(|known| (known, None)).into_iter().collect();
    votes.best(&known)
}

/// How many bytes of a page that is whole are reserved: one of the numbers that are `named`, or what
/// is behind the last cell.
fn reserved(bytes: &[u8], first: bool, named: &[u8]) -> Option<usize> {
    let page = Page::parse(bytes, bytes.len(), first)?;
    let cells = || (0..page.cells).filter_map(|index| page.cell(index));
    let end = cells().map(|cell| cell.at + cell.size).max()?;
    let behind = bytes.len().checked_sub(end)?;
    let of_name = named.iter().map(|&reserved| usize::from(reserved));
    let mut all = of_name.chain(std::iter::once(behind));
    all.find(|&reserved| reserved < 256 && is_whole(bytes, reserved, first))
}

/// Whether a page is one of a b-tree, with something on it, and just as SQLite keeps it.
pub fn is_whole(bytes: &[u8], reserved: usize, first: bool) -> bool {
    let usable = bytes.len().saturating_sub(reserved);
    let Some(page) = Page::parse(bytes, usable, first).filter(|_| usable >= 480) else {
        return false;
    };
    let mut taken = 0;
    let mut last = None;
    for index in 0..page.cells {
        let Some(cell) = page.cell(index) else { return false };
        let ascends = !page.kind.is_table() || last.is_none_or(|last| last < cell.rowid);
        if !ascends || !is_sound(&page, &cell) {
            return false;
        }
        last = Some(cell.rowid);
        taken += cell.size;
    }
    let leads_on = !page.kind.is_interior() || page.right_child() != 0;
    page.cells > 0 && leads_on && page.accounts_for(taken)
}

fn is_sound(page: &Page<'_>, cell: &Cell<'_>) -> bool {
    let leads_on = !page.kind.is_interior() || cell.child != 0;
    leads_on && (page.kind == PageKind::TableInterior || cell.is_record())
}
