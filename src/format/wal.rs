//! The write-ahead log's header, frames and checksums
//! (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).

use super::is_page_size;
use super::number::u32_at;

/// Bytes of the log's header.
pub const HEADER: usize = 32;

/// Bytes of a frame before its page.
pub const FRAME_HEADER: usize = 24;

const MAGIC: u32 = 0x377f_0682;

/// The log's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    /// Bytes a page.
    pub page_size: u32,
    /// What the frames that belong to this log repeat.
    pub salts: (u32, u32),
    /// Whether checksums take the log's words as big-endian ones.
    pub big_endian: bool,
    /// The header's own checksum, which the first frame's continues.
    pub checksum: Checksum,
}

/// The two running sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(pub u32, pub u32);

impl Checksum {
    /// The sums after `bytes`, of which every whole eight are used.
    #[must_use]
    pub fn after(self, bytes: &[u8], big_endian: bool) -> Self {
        let word = |chunk: &[u8]| {
            let word: [u8; 4] = chunk.try_into().unwrap_or_default();
            if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        let Self(mut one, mut two) = self;
        for pair in bytes.chunks_exact(8) {
            let (left, right) = pair.split_at(4);
            one = one.wrapping_add(word(left)).wrapping_add(two);
            two = two.wrapping_add(word(right)).wrapping_add(one);
        }
        Self(one, two)
    }
}

impl WalHeader {
    /// The header that `bytes` begin with, if its checksum is right.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let magic = u32_at(bytes, 0)?;
        let page_size = u32_at(bytes, 8)?;
        if magic & !1 != MAGIC || u32_at(bytes, 4)? != 3_007_000 || !is_page_size(page_size) {
            return None;
        }
        let big_endian = magic & 1 == 1;
        let checksum = Checksum::default().after(bytes.get(..24)?, big_endian);
        let stored = Checksum(u32_at(bytes, 24)?, u32_at(bytes, 28)?);
        let salts = (u32_at(bytes, 16)?, u32_at(bytes, 20)?);
        (stored == checksum).then_some(Self { page_size, salts, big_endian, checksum })
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The page that the frame holds.
    pub page: u32,
    /// Pages of the database after the transaction that this frame commits; 0 for others.
    pub commit: u32,
    /// Must be the header's.
    pub salts: (u32, u32),
    /// Must be the sums of everything up to here.
    pub checksum: Checksum,
}

impl Frame {
    /// The header of the frame that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            page: u32_at(bytes, 0)?,
            commit: u32_at(bytes, 4)?,
            salts: (u32_at(bytes, 8)?, u32_at(bytes, 12)?),
            checksum: Checksum(u32_at(bytes, 16)?, u32_at(bytes, 20)?),
        })
    }

    /// The sums after this frame, whose bytes are `frame`, header first, if those before it were
    /// `before`.
    pub fn sum(frame: &[u8], before: Checksum, big_endian: bool) -> Option<Checksum> {
        let page = frame.get(FRAME_HEADER..)?;
        Some(before.after(frame.get(..8)?, big_endian).after(page, big_endian))
    }
}
