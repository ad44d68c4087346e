//! What a damaged file's schema may make SQLite do.
//!
//! Its statements may say anything: a generated column or an index on an expression that is
//! gigabytes for every row, a view without an end as the content of a full-text index. So what
//! they compute is bounded by what the file holds, never by time: values by its longest record, the
//! new file by its size, and steps of SQLite's virtual machine by its size, too
//! (<https://sqlite.org/limits.html>). What goes beyond costs the row or the object, not the
//! salvage; only a new file that grows beyond all measure does.

use std::cell::Cell;
use std::ffi::c_int;

use rusqlite::ffi;

use crate::engine::{Connection, Result};

/// Bytes beyond a record's that its table's expressions may need.
const FOR_ROWS: u64 = 64 << 10;

/// Bytes beyond a record's that an index over many may need: the list of all rows with a word.
const FOR_INDEXES: u64 = 16 << 20;

/// Bytes of a LIKE or GLOB pattern: with the text's they count by their product.
const PATTERN: c_int = 1_000;

/// Bytes and steps that any schema may take.
const BYTES: u64 = 64 << 20;
const STEPS: u64 = 100_000_000;

/// Bytes of the new file for each of the damaged one: one table may have all its indexes made anew.
const BYTES_FOR_EACH: u64 = 64;

/// Steps for each byte: a row takes some ten bytes, and some hundred steps for each index.
const STEPS_FOR_EACH: u64 = 1_000;

/// One statement takes at most this part of the steps that are left.
const PART: u64 = 4;

/// The bounds of one salvage.
#[derive(Debug, Clone)]
pub struct Limits {
    bytes: u64,
    longest: u64,
    steps: Cell<u64>,
}

impl Limits {
    /// Those for a file of `bytes`, whose longest record (or statement of the schema) has
    /// `longest`.
    pub fn of(bytes: u64, longest: u64) -> Self {
        let steps = STEPS.saturating_add(bytes.saturating_mul(STEPS_FOR_EACH));
        Self { bytes, longest, steps: Cell::new(steps) }
    }

    /// Bounds a connection that puts in rows.
    pub(super) fn set_for_rows(&self, connection: &Connection, page_size: u32) -> Result<()> {
        self.set(connection, FOR_ROWS, page_size)
    }

    /// Bounds a connection that makes indexes.
    pub(super) fn set_for_indexes(&self, connection: &Connection, page_size: u32) -> Result<()> {
        self.set(connection, FOR_INDEXES, page_size)
    }

    fn set(&self, connection: &Connection, beyond: u64, page_size: u32) -> Result<()> {
        let longest = self.longest.min(self.bytes).saturating_mul(4).saturating_add(beyond);
        let length = c_int::try_from(longest).unwrap_or(c_int::MAX);
        for (limit, value) in [
            // SQLite takes no more than its own maximum.
            (ffi::SQLITE_LIMIT_LENGTH, length),
            (ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN),
            (ffi::SQLITE_LIMIT_ATTACHED, 0),
        ] {
            // SAFETY: the connection is open, and any limit and value may be given.
            unsafe { ffi::sqlite3_limit(connection.raw(), limit, value) };
        }
        let bytes = self.bytes.saturating_mul(BYTES_FOR_EACH).saturating_add(BYTES);
        let pages = (bytes / u64::from(page_size.max(1))).min(u64::from(u32::MAX - 1));
        let sql = format!("PRAGMA max_page_count = {pages}");
        Ok(connection.sql()?.query_row(&sql, [], |_| Ok(()))?)
    }

    /// Steps that the next statement may take.
    pub(super) fn allowance(&self) -> u64 {
        self.steps.get() / PART
    }

    /// Takes note of steps that a statement has taken.
    pub(super) fn took(&self, steps: u64) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }
}
