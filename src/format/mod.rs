//! SQLite's file format (<https://sqlite.org/fileformat2.html>): pure functions on bytes.
//!
//! Nothing in here does I/O, calls SQLite or panics, whatever the bytes are: a damaged file is
//! the usual input. Any thread.
//!
//! | module | owns |
//! |---|---|
//! | [`number`] | big-endian numbers and varints at offsets that may not exist |
//! | [`header`] | the first 100 bytes of a database file |
//! | [`page`] | a page of a b-tree and its cells |
//! | [`record`] | a record: its header's serial types, its fields |
//! | [`sort_key`] | bytes that sort as records do |
//! | [`value`] | a column's value |
//! | [`freelist`] | a trunk page of the freelist |
//! | [`ptrmap`] | which page points to a page, in auto-vacuum files |
//! | [`journal`] | the rollback journal's headers, records and checksums |
//! | [`wal`] | the write-ahead log's header, frames and checksums |
//! | [`sql`] | what kind of statement a schema's text is |
//!
//! Numbers in the file are big-endian. Pages are numbered from 1.

pub mod freelist;
pub mod header;
pub mod journal;
pub mod number;
pub mod page;
pub mod ptrmap;
pub mod record;
pub mod sort_key;
pub mod sql;
pub mod value;
pub mod wal;

pub use header::Header;
pub use page::{Cell, Page, PageKind};
pub use sort_key::SortKey;
pub use value::{Owned, Value};

/// The offset of the byte that SQLite's locks are laid on. The page that holds it is never used.
pub const PENDING_BYTE: u64 = 1 << 30;

/// The number of the page that holds [`PENDING_BYTE`].
pub fn lock_page(page_size: u32) -> u32 {
    u32::try_from(PENDING_BYTE / u64::from(page_size.max(1)) + 1).unwrap_or(u32::MAX)
}

/// Whether SQLite knows pages of so many bytes: a power of two from 512 to 65,536.
pub fn is_page_size(bytes: u32) -> bool {
    (512..=65_536).contains(&bytes) && bytes.is_power_of_two()
}
