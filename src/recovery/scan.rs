//! A table of a damaged file, row by row, as far as SQLite reads it.
//!
//! After an error a scan goes on behind it. In a table with rowids that is the row after the one
//! that cannot be read; or, where its page cannot be read, the next key of the table's interior
//! pages, which is where the next leaf begins. A table without rowids is read from both ends.
//!
//! Memory: 8 bytes for each key of the interior pages, once there was an error.

use std::iter;

use super::neutral::NeutralTable;
use super::original::{ORIGINAL, Original, is_of_the_file};
use super::salvage::Pages;
use super::salvage::target::{Encoding, Row, Statement};
use crate::engine::{Connection, Result};
use crate::format::{Kind, Page, Value};

/// Called with a row: its rowid, if it has one, and its stored fields, which are the row's columns
/// from the number on.
pub(super) type OnRow<'a> = dyn FnMut(Option<i64>, &Row<'_>, usize) -> Result<()> + 'a;

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

/// Reads what SQLite reads of `table`; returns whether that is all of it.
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

/// Reads what SQLite reads of a table with rowids; returns whether that is all of it.
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
    let mut first = prepare(&format!("SELECT rowid, {columns} {from}"))?;
    let mut behind =
        prepare(&format!("SELECT rowid, {columns} {from} WHERE rowid > ? ORDER BY rowid"))?;
    // It reads no record.
    let mut next = prepare(&format!("SELECT rowid {from} WHERE rowid > ? ORDER BY rowid LIMIT 1"))?;
    let mut last: Option<i64> = None;
    let mut keys: Option<iter::Peekable<std::vec::IntoIter<i64>>> = None;
    let mut whole = true;
    loop {
        let statement = if last.is_some() { &mut behind } else { &mut first };
        let mut failed = None;
        let read = statement.each(last.map(Value::Integer).into_iter(), |row| {
            let Value::Integer(rowid) = row.value(0) else { return Ok(true) };
            last = Some(last.map_or(rowid, |last| last.max(rowid)));
            failed = on_row(Some(rowid), row, 1).err();
            Ok(failed.is_none())
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match read {
            Ok(()) => return Ok(whole),
            Err(error) if is_of_the_file(&error) => whole = false,
            Err(error) => return Err(error),
        }
        // The row that cannot be read, or the page.
        let mut unreadable = None;
        let least = last.map_or(Value::Integer(i64::MIN), Value::Integer);
        let found = next.each(iter::once(least), |row| {
            if let Value::Integer(rowid) = row.value(0) {
                unreadable = Some(rowid);
            }
            Ok(false)
        });
        match (found, unreadable) {
            (Ok(()), Some(rowid)) if last.is_none_or(|last| rowid > last) => {
                last = Some(rowid);
                continue;
            }
            (Err(error), _) if !is_of_the_file(&error) => return Err(error),
            _ => {}
        }
        let keys = keys.get_or_insert_with(|| keys_of(pages, root).into_iter().peekable());
        while keys.next_if(|&key| last.is_some_and(|last| key <= last)).is_some() {}
        match keys.next() {
            Some(key) => last = Some(key),
            None => return Ok(false),
        }
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
        let key = table.key.as_ref().map_or(0, Vec::len);
        let order: Vec<String> =
            (0..key).map(|column| format!("c{column}{}", table.opposite_order(column))).collect();
        let forwards = format!("SELECT {columns} FROM {name}");
        let backwards = format!("{forwards} ORDER BY {}", order.join(", "));
        let mut read = |sql: &str| {
            let mut failed = None;
            let read = Statement::prepare(connection, encoding, sql)?.each(iter::empty(), |row| {
                failed = on_row(None, row, 0).err();
                Ok(failed.is_none())
            });
            match (failed, read) {
                (Some(error), _) => Err(error),
                (None, Ok(())) => Ok(true),
                (None, Err(error)) if is_of_the_file(&error) => Ok(false),
                (None, Err(error)) => Err(error),
            }
        };
        if read(&forwards)? {
            return Ok(true);
        }
        read(&backwards)?;
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
        let Some(page) = page.filter(|page| page.kind == Kind::TableInterior) else { continue };
        for (child, key) in page.children() {
            left.push(child);
            keys.extend(key);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}
