//! Extracts the records of pages, and inserts them into the new database.

use std::collections::{HashMap, HashSet};

use super::chain::{Chains, Clues, Payload};
use super::evidence::{Asked, Evidence, Question};
use super::fit;
use super::leaf::{self, Cells};
use super::pages::Pages;
use super::report::TableSalvage;
use super::survey::Survey;
use super::target::{Inserted, Shape, Target};
use super::tree::Owners;
use crate::engine::{Progress, Result};
use crate::format::{Cell, Value, record};

/// The least number of records with valid text on a page that make a record with invalid text
/// suspicious.
const FEWEST_PLAIN: usize = 4;

/// Maximum number of pages whose records without a pointer are checked against the indexes.
const MOST_MENDED: usize = 1_000;

/// Why a record is in `lost_and_found`.
const DOUBTFUL: &str = "the record is damaged, or another table's";

/// Reads records off pages.
pub(super) struct Rows<'a> {
    pages: &'a Pages<'a>,
    chains: Chains<'a>,
    payload: Vec<u8>,
    /// The text encoding by the header.
    encoding: u8,
    /// Page and offset of each record that an index contradicts.
    convicted: HashSet<(u32, usize)>,
}

/// A record of a page.
pub(super) struct Record<'f, 'v> {
    pub(super) rowid: Option<i64>,
    pub(super) fields: &'f [Value<'v>],
    /// The record is on a damaged page, and has a sign of damage itself.
    pub(super) doubtful: bool,
    /// A damaged pointer leads to it, and all rows of the page are known without it.
    extra: bool,
    /// The one rowid that it can have had, if its own is damaged.
    possible: Option<i64>,
    /// The bytes of a record with a reserved serial type, and the number of fields of the page's
    /// records.
    reserved: Option<(&'f [u8], Option<usize>)>,
}

/// Called with each record.
type OnRecord<'a> = dyn FnMut(&Record<'_, '_>) -> Result<()> + 'a;

/// The content of a page other than its readable records.
pub(super) struct Rest {
    /// The number of unreadable cells.
    lost: u64,
    /// The page has no fault.
    sound: bool,
    /// Records that are not valid, with their rowids.
    misfits: Vec<(Option<i64>, Vec<u8>)>,
    /// The number of fields of the page's other records, if it is the same for all. `None` on a
    /// badly damaged page.
    fields: Option<usize>,
}

/// The table that the rows are inserted into.
pub(super) struct Into<'a> {
    /// The table's place among those of the target.
    pub(super) place: usize,
    pub(super) shape: &'a Shape,
    /// Pages with rowids outside of their range, and that range.
    pub(super) outlying: HashMap<u32, (i64, i64)>,
    pub(super) account: &'a mut TableSalvage,
    /// Asked before every row, because the schema's expressions may run long.
    pub(super) task: &'a dyn Progress,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        pages: &'a Pages<'a>,
        survey: &'a Survey,
        clues: Clues,
        encoding: u8,
    ) -> Self {
        let chains = Chains::new(pages, survey, clues);
        Self { pages, chains, payload: Vec::new(), encoding, convicted: HashSet::new() }
    }

    /// Marks records of `damaged` pages as doubtful that were found without a pointer and that the
    /// indexes contradict.
    pub(super) fn doubt(&mut self, evidence: &Evidence<'_>, damaged: &[Question]) {
        let mut asked = Asked::default();
        let mut mended = Vec::new();
        let mut of_pages = 0;
        for &(table, number) in damaged {
            let Some(bytes) = self.pages.read(number) else { continue };
            let usable = self.pages.layout.usable;
            let Some(page) = leaf::open(&bytes, usable, number == 1) else { continue };
            let found = leaf::cells(&page);
            if found.mended.is_empty() {
                continue;
            }
            for cell in found.cells.iter().filter(|cell| found.mended.contains(&cell.at)) {
                let question = (table, u32::try_from(mended.len()).unwrap_or(u32::MAX));
                evidence.ask_about(&mut asked, question, cell);
                mended.push((question, (number, cell.at)));
            }
            of_pages += 1;
            if of_pages == MOST_MENDED {
                break;
            }
        }
        let verdicts = evidence.judge(asked);
        let convicted = mended.into_iter().filter(|(question, _)| {
            verdicts.get(question).is_some_and(|verdict| verdict.is_others())
        });
        self.convicted = convicted.map(|(_, place)| place).collect();
    }

    /// Calls `on_record` with each record of a page, and returns the rest of the page. `shape` is
    /// the layout of the page's table, if known.
    pub(super) fn each(
        &mut self,
        number: u32,
        owners: &Owners,
        shape: Option<&Shape>,
        on_record: &mut OnRecord<'_>,
    ) -> Result<Rest> {
        let mut rest = Rest { lost: 0, sound: false, misfits: Vec::new(), fields: None };
        let Some(bytes) = self.pages.read(number) else { return Ok(rest) };
        let usable = self.pages.layout.usable;
        let Some(page) = leaf::open(&bytes, usable, number == 1) else { return Ok(rest) };
        let found = leaf::cells(&page);
        let read = found.cells.len() + found.aside.len();
        let mut lost = page.cells.saturating_sub(read) as u64;
        rest.fields = fields_of_all(&found);
        let count = rest.fields;
        let alias = shape.and_then(|it| it.fields.iter().position(|field| field.rowid_alias));
        let mut fields = Vec::new();
        let odd = if found.sound { None } else { self.odd(&found, shape) };
        let cells = found.cells.iter().map(|cell| (cell, None));
        for (cell, aside) in cells.chain(found.aside.iter().map(|it| (&it.cell, Some(it.rowid)))) {
            let rowid = page.kind.is_table().then_some(cell.rowid);
            let possible = aside.flatten();
            let extra = aside.is_some() && !found.mended.is_empty();
            let doubtful = aside == Some(None)
                || [odd, found.torn].contains(&Some(cell.at))
                || self.convicted.contains(&(number, cell.at));
            if cell.overflow == 0 {
                if record::read(cell.local, &mut fields) {
                    let damaged = record::has_reserved(cell.local, alias);
                    let reserved = damaged.then_some((cell.local, count));
                    on_record(&Record {
                        rowid,
                        fields: &fields,
                        doubtful,
                        extra,
                        possible,
                        reserved,
                    })?;
                } else {
                    lost += 1;
                }
                continue;
            }
            let mut fields = Vec::new();
            let chain = self.chains.payload(cell, owners, &mut self.payload);
            let stands = match chain {
                Payload::Whole => true,
                Payload::Odd => {
                    record::read(&self.payload, &mut fields)
                        && fields.iter().all(|field| self.is_plain(field))
                }
                Payload::Zeros(count) => record::ends_with_blobs(&self.payload, count as u64),
                Payload::Broken => false,
            };
            if stands && record::read(&self.payload, &mut fields) {
                let reserved = None;
                on_record(&Record { rowid, fields: &fields, doubtful, extra, possible, reserved })?;
            } else {
                lost += 1;
            }
        }
        rest.lost = lost;
        rest.sound = found.sound;
        let rowid = |cell: &Cell<'_>| page.kind.is_table().then_some(cell.rowid);
        let misfits = found.misfits.iter().map(|cell| (rowid(cell), cell.local.to_vec()));
        rest.misfits.extend(misfits);
        Ok(rest)
    }

    /// The offset of the only record of a damaged page that has invalid text.
    fn odd(&self, found: &Cells<'_>, shape: Option<&Shape>) -> Option<usize> {
        // The target computes generated columns again, so their stored values do not matter.
        let is_generated = |column: usize| {
            shape.and_then(|shape| shape.fields.get(column)).is_some_and(|field| field.generated)
        };
        let mut fields = Vec::new();
        let (mut odd, mut plain) = (None, 0);
        for cell in found.cells.iter().filter(|cell| cell.overflow == 0) {
            if !record::read(cell.local, &mut fields) {
                continue;
            }
            let mut stored = fields.iter().enumerate().filter(|(column, _)| !is_generated(*column));
            if stored.all(|(_, field)| self.is_plain(field)) {
                plain += usize::from(fields.iter().any(|it| matches!(it, Value::Text(_))));
            } else if odd.replace(cell.at).is_some() {
                return None;
            }
        }
        odd.filter(|_| plain >= FEWEST_PLAIN)
    }

    /// Whether a value is not invalid text: not UTF-8, or with a NUL. UTF-16 is not checked.
    fn is_plain(&self, field: &Value<'_>) -> bool {
        match field {
            Value::Text(text) if self.encoding <= 1 => {
                !text.contains(&0) && std::str::from_utf8(text).is_ok()
            }
            _ => true,
        }
    }

    /// Inserts a page's records into a table. Returns the number of rows.
    pub(super) fn put(
        &mut self,
        number: u32,
        root: u32,
        owners: &Owners,
        into: &mut Into<'_>,
        target: &mut Target,
    ) -> Result<u64> {
        let (place, shape, task) = (into.place, into.shape, into.task);
        let range = into.outlying.get(&number).copied();
        let account = &mut *into.account;
        let mut rows = 0;
        let rest = self.each(number, owners, Some(shape), &mut |record| {
            task.check_cancelled()?;
            let &Record { rowid, fields, doubtful, extra, possible, reserved } = record;
            let outlies = |(low, high): (i64, i64)| {
                possible.or(rowid).is_some_and(|it| it < low || it > high)
            };
            if doubtful || range.is_some_and(outlies) {
                account.records_lost += u64::from(!extra);
                return target.lost(root, number, rowid, fields, DOUBTFUL);
            }
            // The row as SQLite reads it from a mended record goes to lost_and_found.
            let mended = match (possible, reserved) {
                (Some(_), _) => {
                    fit::record_fits(fields, shape)
                        && target.insert(place, possible, fields)? == Inserted::Yes
                }
                (None, Some((bytes, count))) => mend(bytes, rowid, place, shape, count, target)?,
                (None, None) => false,
            };
            if mended {
                rows += 1;
                account.mended += 1;
                let reason = "this is the row as SQLite reads it, before it was corrected";
                return target.lost(root, number, rowid, fields, reason);
            }
            if possible.is_some() || !fit::record_fits(fields, shape) {
                account.records_lost += 1;
                return target.lost(root, number, rowid, fields, DOUBTFUL);
            }
            match target.insert(place, rowid, fields)? {
                Inserted::Yes => rows += 1,
                Inserted::Duplicate { same: true } => {}
                Inserted::Duplicate { same: false } => {
                    account.duplicates += 1;
                    let reason = "the table has another row of this rowid or key";
                    target.lost(root, number, rowid, fields, reason)?;
                }
                Inserted::Refused(reason) => {
                    account.records_lost += 1;
                    target.lost(root, number, rowid, fields, &reason)?;
                }
            }
            Ok(())
        })?;
        let mut lost = rest.lost;
        for (rowid, record) in &rest.misfits {
            if !range.is_some_and(|(low, high)| rowid.is_some_and(|it| it < low || it > high))
                && mend(record, *rowid, place, shape, rest.fields, target)?
            {
                rows += 1;
                account.mended += 1;
                lost = lost.saturating_sub(1);
            }
        }
        account.records_lost += lost;
        account.pages_lost += u64::from(!rest.sound);
        account.rows += rows;
        Ok(rows)
    }
}

/// The number of fields of each record, if all have the same number and few are damaged.
fn fields_of_all(found: &Cells<'_>) -> Option<usize> {
    if found.torn.is_some() || found.misfits.len() > found.cells.len() {
        return None;
    }
    let mut counts = found.cells.iter().filter_map(|cell| leaf::classes(cell, |_, _| {}));
    let first = counts.next()?;
    counts.all(|count| count == first).then_some(first)
}

/// Repairs a record that is not valid, and inserts it into its table. Returns whether it did. There
/// are two ways:
///
/// * The serial type of one field is damaged, and its value follows from the rest: a rowid alias,
///   which is stored as NULL, or a generated column, whose computed value must equal the stored
///   bytes.
/// * Exactly one bit of the header makes the record a row with `count` fields, like the page's
///   other records.
fn mend(
    record: &[u8],
    rowid: Option<i64>,
    place: usize,
    shape: &Shape,
    count: Option<usize>,
    target: &mut Target,
) -> Result<bool> {
    let mut fields = Vec::new();
    for (odd, field) in shape.fields.iter().enumerate() {
        if !field.rowid_alias && !field.generated {
            continue;
        }
        let Some(content) = record::read_but(record, odd, &mut fields) else { continue };
        if !record::has_reserved(record, Some(odd))
            && fit::record_fits(&fields, shape)
            && (field.generated || content.is_empty())
            && target.insert_mended(place, rowid, &fields, Some((odd, content)))? == Inserted::Yes
        {
            return Ok(true);
        }
    }
    let fits = |fields: &[Value<'_>]| fit::record_fits(fields, shape);
    let record = count.and_then(|count| record::with_one_bit(record, count, fits));
    let Some(record) = record else { return Ok(false) };
    let mut fields = Vec::new();
    Ok(record::read(&record, &mut fields)
        && target.insert_mended(place, rowid, &fields, None)? == Inserted::Yes)
}
