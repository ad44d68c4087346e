//! The first 100 bytes of a database file (<https://sqlite.org/fileformat2.html#database_header>).

use super::is_page_size;
use super::number::{byte, u16_at, u32_at};

/// Bytes that the header takes of page 1.
pub const SIZE: usize = 100;

/// What every database file begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What a header has at offset 21.
pub const FRACTIONS: [u8; 3] = [64, 32, 32];

/// The header's fields, as they are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes a page.
    pub page_size: u32,
    /// Bytes at the end of each page that are not SQLite's.
    pub reserved: u8,
    /// Incremented by transactions.
    pub change_counter: u32,
    /// Pages of the database; means something only where [`Self::count_is_valid`].
    pub pages: u32,
    /// First trunk page of the freelist; 0 where it is empty.
    pub freelist: u32,
    /// Pages on the freelist, trunks included.
    pub free_pages: u32,
    /// `PRAGMA schema_version`.
    pub schema_cookie: u32,
    /// Which forms the schema's b-trees may have: 1 to 4.
    pub schema_format: u32,
    /// Not 0 in auto-vacuum files: the highest root page.
    pub largest_root: u32,
    /// 1 UTF-8, 2 UTF-16le, 3 UTF-16be; 0 in a database without a schema.
    pub encoding: u32,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// Not 0 where auto-vacuum is incremental.
    pub incremental: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// [`Self::change_counter`] when [`Self::pages`] was written.
    pub version_valid_for: u32,
}

impl Header {
    /// The header that `bytes` begin with, if everything that SQLite insists on is as it must be.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // The fractions of a page that payload may take: SQLite opens no file with others.
        let fixed = bytes.get(..16)? == MAGIC && bytes.get(21..24)? == FRACTIONS;
        let header = Self::read(bytes).filter(|_| fixed)?;
        let plausible = is_page_size(header.page_size)
            && header.page_size - u32::from(header.reserved) >= 480
            && header.encoding <= 3;
        plausible.then_some(header)
    }

    /// The fields that `bytes` begin with, whatever they are.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let page_size = match u16_at(bytes, 16)? {
            1 => 65_536,
            size => u32::from(size),
        };
        Some(Self {
            page_size,
            reserved: byte(bytes, 20)?,
            change_counter: u32_at(bytes, 24)?,
            pages: u32_at(bytes, 28)?,
            freelist: u32_at(bytes, 32)?,
            free_pages: u32_at(bytes, 36)?,
            schema_cookie: u32_at(bytes, 40)?,
            schema_format: u32_at(bytes, 44)?,
            largest_root: u32_at(bytes, 52)?,
            encoding: u32_at(bytes, 56)?,
            user_version: u32_at(bytes, 60)?,
            incremental: u32_at(bytes, 64)?,
            application_id: u32_at(bytes, 68)?,
            version_valid_for: u32_at(bytes, 92)?,
        })
    }

    /// Whether [`Self::pages`] was written by a SQLite that keeps it.
    pub fn count_is_valid(&self) -> bool {
        self.pages != 0 && self.change_counter == self.version_valid_for
    }

    /// 0 none, 1 full, 2 incremental.
    pub fn auto_vacuum(&self) -> u8 {
        match (self.largest_root, self.incremental) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        }
    }
}
