//! A database's text encoding, by the texts themselves: each text that only one encoding can have
//! is a vote for it.
//!
//! Any thread; reads up to 2 MiB. Memory: one page's fields.

use super::Source;
use crate::engine::{WalPageIndex, is_whole, sample};
use crate::format::{Page, PageKind, Value, record};

/// Maximum number of texts that vote.
const MOST: u32 = 50_000;

/// How many texts are in UTF-8, UTF-16le and UTF-16be.
#[derive(Debug, Default)]
pub(super) struct Texts {
    of: [u32; 3],
    all: u32,
}

impl Texts {
    /// Counts the texts on a sample of a file's undamaged leaves.
    pub(super) fn of(
        source: Source<'_>,
        overlay: &WalPageIndex,
        page_size: u32,
        reserved: u8,
    ) -> Self {
        let mut texts = Self::default();
        sample(source.database, |offset, bytes| {
            for (place, page) in bytes.chunks_exact(page_size as usize).enumerate() {
                texts.add_page(page, reserved, offset == 0 && place == 0);
            }
        });
        overlay.sample(source.wal, page_size, |number, page| {
            texts.add_page(page, reserved, number == 1);
        });
        texts
    }

    fn add_page(&mut self, bytes: &[u8], reserved: u8, first: bool) {
        let reserved = usize::from(reserved);
        if self.all >= MOST || !is_whole(bytes, reserved, first) {
            return;
        }
        let usable = bytes.len().saturating_sub(reserved);
        let Some(page) = Page::parse(bytes, usable, first) else { return };
        if page.kind == PageKind::TableInterior {
            return;
        }
        let mut fields = Vec::new();
        for cell in (0..page.cells).filter_map(|index| page.cell(index)) {
            if cell.overflow != 0 || !record::read(cell.local, &mut fields) {
                continue;
            }
            for field in &fields {
                let Value::Text(text) = field else { continue };
                self.all += 1;
                let of = encoding(text).and_then(|it| self.of.get_mut(usize::from(it) - 1));
                if let Some(of) = of {
                    *of += 1;
                }
            }
        }
    }

    /// The encoding (1, 2 or 3) with the most votes, including those of `witnesses`. 0 without a
    /// vote.
    pub(super) fn best(&self, witnesses: &[u8]) -> u8 {
        let mut best = 0;
        let mut most = 0;
        for (encoding, &texts) in (1_u8..).zip(&self.of) {
            let says = witnesses.iter().filter(|&&witness| witness == encoding).count();
            let votes = texts as usize + says;
            if votes > most {
                (best, most) = (encoding, votes);
            }
        }
        best
    }
}

/// The encoding of a text, if only one is plausible. Applications rarely store NUL in text, so a
/// NUL byte excludes UTF-8, and a NUL character excludes that byte order. Of two possible byte
/// orders, the right one has more characters of one script (the same high byte).
fn encoding(text: &[u8]) -> Option<u8> {
    if text.is_empty() {
        return None;
    }
    if !text.contains(&0) && std::str::from_utf8(text).is_ok() {
        return Some(1);
    }
    let alike = |of: fn([u8; 2]) -> u16| {
        let units = text.chunks_exact(2).map(|pair| of(pair.try_into().unwrap_or_default()));
        let units: Vec<u16> = units.collect();
        let is_text =
            char::decode_utf16(units.iter().copied()).all(|it| it.is_ok_and(|it| it != '\0'));
        let mut script = 0;
        let of_one = units.iter().filter(|&&unit| {
            let before = std::mem::replace(&mut script, unit >> 8);
            unit >> 8 == 0 || unit >> 8 == before
        });
        let count = of_one.count();
        if is_text { count } else { 0 }
    };
    let (little, big) = (alike(u16::from_le_bytes), alike(u16::from_be_bytes));
    match little.cmp(&big) {
        _ if !text.len().is_multiple_of(2) => None,
        std::cmp::Ordering::Greater => Some(2),
        std::cmp::Ordering::Less => Some(3),
        std::cmp::Ordering::Equal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_in_the_encoding_that_they_are_written_in() {
        for text in ["table", "a", "Größe", "Привет, мир", "CREATE TABLE 表(名)"] {
            let units =
                |of: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(of).collect::<Vec<u8>>();
            assert_eq!(encoding(text.as_bytes()), Some(1), "{text}");
            assert!(matches!(encoding(&units(u16::to_le_bytes)), Some(2)), "{text}");
            assert!(matches!(encoding(&units(u16::to_be_bytes)), Some(3)), "{text}");
        }
        // Characters with different high bytes are plausible in both byte orders.
        let units = |of: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "数据库的文本编码".encode_utf16().flat_map(of).collect()
        };
        assert_ne!(encoding(&units(u16::to_le_bytes)), Some(3));
        assert_ne!(encoding(&units(u16::to_be_bytes)), Some(2));
        assert_eq!(encoding(b""), None);
        assert_eq!(encoding(&[0xff, 0xfe, 0xfd]), None);
    }
}
