//! Puts the records of pages into the new database.

use super::chain::{Chains, Clues, Payload};
use super::fit;
use super::leaf;
use super::pages::Pages;
use super::report::TableSalvage;
use super::survey::Survey;
use super::target::{Inserted, Shape, Target};
use super::tree::Owners;
use crate::engine::Result;
use crate::format::{Value, record};

/// Reads records off pages.
pub(super) struct Rows<'a> {
    pages: &'a Pages<'a>,
    chains: Chains<'a>,
    payload: Vec<u8>,
    /// As the header has it.
    encoding: u8,
}

/// Called with each record's rowid and fields.
type OnRow<'a> = dyn FnMut(Option<i64>, &[Value<'_>]) -> Result<()> + 'a;

/// A table that rows are put into.
pub(super) struct Into<'a> {
    /// Its place among the target's tables.
    pub(super) place: usize,
    pub(super) shape: &'a Shape,
    pub(super) account: &'a mut TableSalvage,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        pages: &'a Pages<'a>,
        survey: &'a Survey,
        clues: Clues,
        encoding: u8,
    ) -> Self {
        let chains = Chains::new(pages, survey, clues);
        Self { pages, chains, payload: Vec::new(), encoding }
    }

    /// Tells `row` each record of a page; answers how many of its cells are beyond reading, and
    /// whether the page is sound.
    pub(super) fn each(
        &mut self,
        number: u32,
        owners: &Owners,
        row: &mut OnRow<'_>,
    ) -> Result<(u64, bool)> {
        let Some(bytes) = self.pages.read(number) else { return Ok((0, false)) };
        let usable = self.pages.layout.usable;
        let Some(page) = leaf::open(&bytes, usable, number == 1) else { return Ok((0, false)) };
        let found = leaf::cells(&page);
        let mut lost = (page.cells - found.cells.len()) as u64;
        let mut fields = Vec::new();
        for cell in &found.cells {
            let rowid = page.kind.is_table().then_some(cell.rowid);
            if cell.overflow == 0 {
                if record::read(cell.local, &mut fields) {
                    row(rowid, &fields)?;
                } else {
                    lost += 1;
                }
                continue;
            }
            let mut fields = Vec::new();
            let chain = self.chains.payload(cell, owners, &mut self.payload);
            if chain == Payload::Broken
                || !record::read(&self.payload, &mut fields)
                || (chain == Payload::Odd && !fields.iter().all(|field| self.is_plain(field)))
            {
                lost += 1;
            } else {
                row(rowid, &fields)?;
            }
        }
        Ok((lost, found.sound))
    }

    /// Whether a value is not text that nobody would write. Only of UTF-8 it can be told.
    fn is_plain(&self, field: &Value<'_>) -> bool {
        match field {
            Value::Text(text) if self.encoding <= 1 => {
                !text.contains(&0) && std::str::from_utf8(text).is_ok()
            }
            _ => true,
        }
    }

    /// Puts a page's records into a table.
    pub(super) fn put(
        &mut self,
        number: u32,
        root: u32,
        owners: &Owners,
        into: &mut Into<'_>,
        target: &mut Target,
    ) -> Result<u64> {
        let (place, shape) = (into.place, into.shape);
        let account = &mut *into.account;
        let mut rows = 0;
        let (lost, sound) = self.each(number, owners, &mut |rowid, fields| {
            if !fit::record_fits(fields, shape) {
                account.records_lost += 1;
                return target.lost(root, number, rowid, fields);
            }
            match target.insert(place, rowid, fields)? {
                Inserted::Yes => rows += 1,
                Inserted::Duplicate { same: true } => {}
                Inserted::Duplicate { same: false } => {
                    account.duplicates += 1;
                    target.lost(root, number, rowid, fields)?;
                }
                Inserted::Refused(_) => {
                    account.records_lost += 1;
                    target.lost(root, number, rowid, fields)?;
                }
            }
            Ok(())
        })?;
        account.records_lost += lost;
        account.pages_lost += u64::from(!sound);
        account.rows += rows;
        Ok(rows)
    }
}
