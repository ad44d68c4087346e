//! The rollback journal's headers, records and checksums
//! (<https://sqlite.org/fileformat2.html#the_rollback_journal>).

use super::is_page_size;
use super::number::u32_at;

/// Bytes of a header that mean something. It takes up a whole sector.
pub const HEADER: usize = 28;

/// Bytes of a record besides its page: the page's number before it, the checksum behind it.
pub const RECORD_OVERHEAD: usize = 8;

/// What a header begins with, and what the name of a super-journal ends with.
pub const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// The number of records of a journal that was written without syncs: all that there are.
const ALL: u32 = u32::MAX;

/// The largest sector that SQLite knows.
const LARGEST_SECTOR: u32 = 0x1_0000;

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHeader {
    /// Records behind this header; none: as many as fit into the file.
    pub records: Option<u32>,
    /// What the checksums of the records begin with.
    pub nonce: u32,
    /// Pages of the database before the transaction.
    pub pages: u32,
    /// Bytes of a sector; only the first header counts.
    pub sector: u32,
    /// Bytes of a page, 0 in journals of SQLite before 3.5.8; only the first header counts.
    pub page_size: u32,
}

impl JournalHeader {
    /// The header that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let records = u32_at(bytes, 8)?;
        Some(Self {
            records: (records != ALL).then_some(records),
            nonce: u32_at(bytes, 12)?,
            pages: u32_at(bytes, 16)?,
            sector: u32_at(bytes, 20)?,
            page_size: u32_at(bytes, 24)?,
        })
    }

    /// Whether sizes of sector and page are ones that SQLite goes by. A first header of which
    /// they are not was never synced, so that the database was not written to.
    pub fn is_synced(&self) -> bool {
        (32..=LARGEST_SECTOR).contains(&self.sector)
            && self.sector.is_power_of_two()
            && is_page_size(self.page_size)
    }
}

/// The checksum of a page: every 200th byte, from the end.
pub fn checksum(page: &[u8], nonce: u32) -> u32 {
    let mut sum = nonce;
    let mut at = page.len().saturating_sub(200);
    while at > 0 {
        sum = sum.wrapping_add(page.get(at).copied().unwrap_or(0).into());
        at = at.saturating_sub(200);
    }
    sum
}

/// The name of a super-journal, of a transaction over several databases, from the end of a
/// journal; none where there is no such name, or it is not whole. `tail` reads bytes of the
/// journal by their distance from its end, and how many.
pub fn super_journal(tail: impl Fn(usize, usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    /// Bytes behind the name: its length, its checksum, the magic.
    const BEHIND: usize = 16;
    /// More than any path has.
    const LONGEST: usize = 4096;
    let behind = tail(BEHIND, BEHIND)?;
    let length = usize::try_from(u32_at(&behind, 0)?).ok()?;
    if behind.get(8..) != Some(&MAGIC[..]) || length == 0 || length > LONGEST {
        return None;
    }
    let name = tail(BEHIND + length, length)?;
    // The bytes are added up as C's `char`, which is signed where SQLite was compiled so.
    let signed = |byte: &u8| i32::from(i8::from_ne_bytes([*byte])).cast_unsigned();
    let signed = name.iter().fold(0, |sum: u32, byte| sum.wrapping_add(signed(byte)));
    let unsigned = name.iter().fold(0, |sum: u32, byte| sum.wrapping_add(u32::from(*byte)));
    let sum = u32_at(&behind, 4)?;
    let is_name = name.len() >= 12
        && name.get(name.len() - 12..name.len() - 9) == Some(b"-mj")
        && name
            .get(name.len() - 9..)
            .is_some_and(|end| end.get(6) == Some(&b'9') && end.iter().all(u8::is_ascii_hexdigit));
    ((sum == signed || sum == unsigned) && is_name).then_some(name)
}
