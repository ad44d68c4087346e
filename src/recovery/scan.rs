//! Reads a table of a damaged file row by row, as far as SQLite can.
//!
//! After an error the scan continues behind it. A rowid table is read leaf by leaf from there on:
//! the keys of its interior pages give the range of each leaf. In a leaf, the unreadable row is
//! skipped. Then the table is read backwards, which reaches rows that are out of order.
//!
//! Memory: 8 bytes for each key of the interior pages, once there was an error.

use std::iter;

use super::neutral::NeutralTable;
use super::original::{ORIGINAL, Original, is_of_the_file};
use super::salvage::Pages;
use super::salvage::target::{Encoding, Row, Statement};
use crate::engine::{Connection, Result};
use crate::format::{Page, PageKind, Value};

/// The direction of the scan that reads a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Forwards.
    First,
    /// Backwards, which reads most rows a second time.
    Again,
}

/// Called with a row: its rowid, if it has one, and its stored fields, which are the columns from
/// that number on.
pub(super) type OnRow<'a> = dyn FnMut(Option<i64>, &Row<'_>, usize, Look) -> Result<()> + 'a;

/// A table with rowids that SQLite has open.
pub(super) struct RowidSource<'a> {
    pub(super) connection: &'a Connection,
    pub(super) encoding: Encoding,
    /// As SQL.
    pub(super) table: &'a str,
    /// As SQL.
    pub(super) columns: &'a str,
    /// Its root page.
    pub(super) root: u32,
}

/// Reads the rows of `table` that SQLite can read. Returns whether those are all rows.
///
/// # Errors
/// `on_row`'s; of reading, those that are not about the file.
pub(super) fn rows(
    original: &Original<'_>,
    pages: &Pages<'_>,
    encoding: Encoding,
    table: &NeutralTable,
    on_row: &mut OnRow<'_>,
) -> Result<bool> {
    let columns = table.names().collect::<Vec<_>>().join(", ");
    let name = format!("{ORIGINAL}.t{}", table.entry);
    let connection = &original.connection;
    if table.has_rowid() {
        let (table, columns, root) = (name.as_str(), columns.as_str(), table.root);
        by_rowid(&RowidSource { connection, encoding, table, columns, root }, pages, on_row)
    } else {
        ByKey { connection, encoding, table, name: &name, columns: &columns }.rows(on_row)
    }
}

/// [`rows`] for a rowid table.
///
/// # Errors
/// As [`rows`].
pub(super) fn by_rowid(
    source: &RowidSource<'_>,
    pages: &Pages<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<bool> {
    let &RowidSource { connection, encoding, table, columns, root } = source;
    let prepare = |sql: &str| Statement::prepare(connection, encoding, sql);
    let from = format!("FROM {table} NOT INDEXED");
    // The last two rows: what comes right before an error may have another's rowid.
    let (mut before, mut last) = (None, None);
    let mut failed = None;
    let mut all = prepare(&format!("SELECT rowid, {columns} {from}"))?;
    let read = all.each(iter::empty(), |row| {
        let Value::Integer(rowid) = row.value(0) else { return Ok(true) };
        (before, last) = (last, Some(rowid));
        failed = on_row(Some(rowid), row, 1, Look::First).err();
        Ok(failed.is_none())
    });
    match (failed, read) {
        (Some(error), _) => return Err(error),
        (None, Ok(())) => return Ok(true),
        (None, Err(error)) if is_of_the_file(&error) => {}
        (None, Err(error)) => return Err(error),
    }
    // Behind the error, leaf by leaf.
    let between = "WHERE rowid BETWEEN ? AND ? ORDER BY rowid";
    let mut rows = prepare(&format!("SELECT rowid, {columns} {from} {between}"))?;
    // It reads no record.
    let mut next = prepare(&format!("SELECT rowid {from} {between} LIMIT 1"))?;
    let mut low = before.map_or(Some(i64::MIN), |before: i64| before.checked_add(1));
    for high in keys_of(pages, root).into_iter().chain([i64::MAX]) {
        let Some(mut start) = low else { break };
        if high < start {
            continue;
        }
        low = high.checked_add(1);
        loop {
            let mut failed = None;
            let range = [Value::Integer(start), Value::Integer(high)];
            let mut behind = Some(start);
            let read = rows.each(range.into_iter(), |row| {
                let Value::Integer(rowid) = row.value(0) else { return Ok(true) };
                behind = rowid.checked_add(1);
                // The last row was read before the error.
                if last != Some(rowid) {
                    failed = on_row(Some(rowid), row, 1, Look::First).err();
                }
                Ok(failed.is_none())
            });
            match (failed, read) {
                (Some(error), _) => return Err(error),
                (None, Ok(())) => break,
                (None, Err(error)) if is_of_the_file(&error) => {}
                (None, Err(error)) => return Err(error),
            }
            // The row that cannot be read; or else its page cannot be.
            let Some(behind) = behind.filter(|&behind| behind <= high) else { break };
            let mut unreadable = None;
            let range = [Value::Integer(behind), Value::Integer(high)];
            let found = next.each(range.into_iter(), |row| {
                if let Value::Integer(rowid) = row.value(0) {
                    unreadable = Some(rowid);
                }
                Ok(false)
            });
            match found {
                Ok(()) => {}
                Err(error) if is_of_the_file(&error) => break,
                Err(error) => return Err(error),
            }
            match unreadable.and_then(|rowid| rowid.checked_add(1)) {
                Some(behind) if behind > start => start = behind,
                _ => break,
            }
        }
    }
    let backwards = format!("SELECT rowid, {columns} {from} ORDER BY rowid DESC");
    let mut failed = None;
    let read = prepare(&backwards)?.each(iter::empty(), |row| {
        let Value::Integer(rowid) = row.value(0) else { return Ok(true) };
        failed = on_row(Some(rowid), row, 1, Look::Again).err();
        Ok(failed.is_none())
    });
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) if !is_of_the_file(&error) => Err(error),
        (None, _) => Ok(false),
    }
}

/// A table without rowids that SQLite has open.
struct ByKey<'a> {
    connection: &'a Connection,
    encoding: Encoding,
    table: &'a NeutralTable,
    name: &'a str,
    columns: &'a str,
}

impl ByKey<'_> {
    fn rows(&self, on_row: &mut OnRow<'_>) -> Result<bool> {
        let Self { connection, encoding, table, name, columns } = *self;
        let mut read = |look: Look| {
            // By its own b-tree: else SQLite may read an index instead.
            let by = format!("INDEXED BY sqlite_autoindex_t{}_1", table.entry);
            let order = table.order(look == Look::Again);
            let sql = format!("SELECT {columns} FROM {name} {by} ORDER BY {order}");
            let mut failed = None;
            let read = Statement::prepare(connection, encoding, &sql)?.each(iter::empty(), |row| {
                failed = on_row(None, row, 0, look).err();
                Ok(failed.is_none())
            });
            match (failed, read) {
                (Some(error), _) => Err(error),
                (None, Ok(())) => Ok(true),
                (None, Err(error)) if is_of_the_file(&error) => Ok(false),
                (None, Err(error)) => Err(error),
            }
        };
        if read(Look::First)? {
            return Ok(true);
        }
        read(Look::Again)?;
        Ok(false)
    }
}

/// The keys of the interior pages of the table at `root`, ascending.
fn keys_of(pages: &Pages<'_>, root: u32) -> Vec<i64> {
    let mut keys = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![root];
    while let Some(number) = left.pop() {
        if !seen.insert(number) {
            continue;
        }
        let Some(bytes) = pages.read(number) else { continue };
        let page = Page::parse(&bytes, pages.layout.usable, number == 1);
        let Some(page) = page.filter(|page| page.kind == PageKind::TableInterior) else { continue };
        for (child, key) in page.children() {
            left.push(child);
            keys.extend(key);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}
