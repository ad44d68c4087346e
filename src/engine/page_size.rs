//! How large the pages of a file are that does not say so any more.
//!
//! Any thread; reads up to 2 MiB, and keeps 128 KiB of it.

use super::Storage;
use crate::format::{Kind, Page};

/// Bytes of the file that are looked at: the first and as many at each of [`SAMPLES`] places.
const SAMPLE: usize = 1 << 17;

/// Places at which a file is sampled.
const SAMPLES: u64 = 16;

/// The page size, and how many bytes of a page are reserved, of which most b-tree pages of a
/// sample come out whole; none where there are no such pages. The page size may be `known`.
pub fn guess_format(database: &dyn Storage, known: Option<u32>) -> Option<(u32, u8)> {
    let size = database.size().ok()?;
    let mut best = None;
    let mut most = 0;
    let mut bytes = vec![0; SAMPLE];
    let step = (size / SAMPLES).max(SAMPLE as u64).next_multiple_of(SAMPLE as u64);
    let mut scores = [[0_usize; 256]; 8];
    for place in 0..SAMPLES {
        let Ok(read) = database.read_at(&mut bytes, place * step) else { continue };
        for (power, scores) in scores.iter_mut().enumerate() {
            let page_size = 512_usize << power;
            if known.is_some_and(|known| known as usize != page_size) {
                continue;
            }
            for page in bytes.get(..read).unwrap_or_default().chunks_exact(page_size) {
                if let Some(score) = reserved(page).and_then(|reserved| scores.get_mut(reserved)) {
                    *score += page_size;
                }
            }
        }
    }
    for (power, scores) in scores.iter().enumerate() {
        for (reserved, &score) in scores.iter().enumerate() {
            if score > most {
                most = score;
                best = Some((512_u32 << power, u8::try_from(reserved).unwrap_or(0)));
            }
        }
    }
    best.or(known.map(|page_size| (page_size, 0)))
}

/// How many bytes of a page that is a whole leaf are reserved: its first cell was put before them.
fn reserved(bytes: &[u8]) -> Option<usize> {
    let page = Page::parse(bytes, bytes.len(), false)?;
    if page.kind != Kind::TableLeaf || page.cells == 0 {
        return None;
    }
    let end = (0..page.cells)
        .filter_map(|index| page.cell(index))
        .map(|cell| cell.at + cell.size)
        .max()?;
    let reserved = bytes.len().checked_sub(end)?;
    if reserved > 255 || bytes.len() - reserved < 480 {
        return None;
    }
    let usable = Page::parse(bytes, end, false)?;
    let taken = (0..usable.cells).map(|index| Some(usable.cell(index)?.size)).sum::<Option<_>>()?;
    usable.accounts_for(taken).then_some(reserved)
}
