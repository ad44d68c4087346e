//! Bounds the work that a damaged file's schema may cause.
//!
//! Its statements may say anything: a generated column of gigabytes in every row, an index on such
//! an expression, an endless view as the content of a full-text index. So their results are bounded
//! by the damaged file, never by time: values by its longest record; the new file, and the steps of
//! SQLite's virtual machine, by its size (<https://sqlite.org/limits.html>). If a statement exceeds
//! a bound, its row or object is lost. Only if the new file grows beyond its bound, the salvage
//! fails.

use std::cell::Cell;
use std::ffi::c_int;

use rusqlite::ffi;

use crate::engine::{Connection, Result};

/// Bytes by which a value of a table's expressions may exceed the longest record.
const FOR_ROWS: u64 = 64 << 10;

/// Bytes by which a value of an index over many rows may exceed the longest record: full-text
/// indexes have a list of all rows with a word.
const FOR_INDEXES: u64 = 16 << 20;

/// Bytes of a LIKE or GLOB pattern. Its cost is the product of the lengths of pattern and text.
const PATTERN: c_int = 1_000;

/// Bytes and steps that any schema may take, whatever the file's size.
const BYTES: u64 = 64 << 20;
const STEPS: u64 = 100_000_000;

/// Bytes of the new file for each byte of the damaged one: a table whose indexes are all lost has
/// them created again.
const BYTES_FOR_EACH: u64 = 64;

/// Steps for each byte of the damaged file: a row takes some ten bytes, and some hundred steps for
/// each index.
const STEPS_FOR_EACH: u64 = 1_000;

/// One statement takes at most one part in this many of the remaining steps.
const PART: u64 = 4;

/// The bounds of one salvage.
#[derive(Debug, Clone)]
pub struct Limits {
    bytes: u64,
    longest: u64,
    steps: Cell<u64>,
}

impl Limits {
    /// The bounds for a file of `bytes` bytes, whose longest record (or statement of the schema)
    /// has `longest` bytes.
    pub fn of(bytes: u64, longest: u64) -> Self {
        let steps = STEPS.saturating_add(bytes.saturating_mul(STEPS_FOR_EACH));
        Self { bytes, longest, steps: Cell::new(steps) }
    }

    /// Bounds a connection that inserts rows.
    pub(super) fn set_for_rows(&self, connection: &Connection, page_size: u32) -> Result<()> {
        self.set(connection, FOR_ROWS, page_size)
    }

    /// Bounds a connection that creates indexes.
    pub(super) fn set_for_indexes(&self, connection: &Connection, page_size: u32) -> Result<()> {
        self.set(connection, FOR_INDEXES, page_size)
    }

    fn set(&self, connection: &Connection, beyond: u64, page_size: u32) -> Result<()> {
        let longest = self.longest.min(self.bytes).saturating_mul(4).saturating_add(beyond);
        let length = c_int::try_from(longest).unwrap_or(c_int::MAX);
        for (limit, value) in [
            // SQLite reduces a limit to its own maximum.
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

    /// Subtracts the steps that a statement has taken.
    pub(super) fn took(&self, steps: u64) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }
}
