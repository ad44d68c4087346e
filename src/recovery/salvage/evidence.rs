//! What a table's indexes say of a page that could be the table's: an index has each row's rowid
//! and some of its values.
//!
//! Memory: a few rows of each page that is asked about.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::adopt::Verdict;
use super::leaf;
use super::pages::Pages;
use super::tree::Tree;
use crate::format::{Value, record};

/// Rows of a page that are looked up.
const ROWS: usize = 4;

/// Pages that could have a row of a table, each with the sums of the row's fields there.
type Places = Vec<(u32, Vec<u64>)>;

/// Asks `indexes`, each with its table's place, about pages, each with the place of the table that
/// it could be of.
pub(super) fn of(
    pages: &Pages<'_>,
    indexes: &[(usize, &Tree)],
    questions: &[(usize, u32)],
) -> HashMap<(usize, u32), Verdict> {
    let mut verdicts = HashMap::new();
    let mut rows: HashMap<(usize, i64), Places> = HashMap::new();
    for &(table, page) in questions {
        if !indexes.iter().any(|(of, _)| *of == table) {
            continue;
        }
        let mut row = |rowid, fields: &[Value<'_>]| {
            let sums = fields.iter().map(sum).collect();
            rows.entry((table, rowid)).or_default().push((page, sums));
        };
        each(pages, page, true, &mut row);
    }
    if rows.is_empty() {
        return verdicts;
    }
    for &(table, index) in indexes {
        let mut entry = |_, fields: &[Value<'_>]| {
            let Some((&Value::Integer(rowid), key)) = fields.split_last() else { return };
            for (page, sums) in rows.get(&(table, rowid)).into_iter().flatten() {
                let own = |value: &Value<'_>| {
                    *value == Value::Integer(rowid) || sums.contains(&sum(value))
                };
                if key.iter().all(own) {
                    verdicts.insert((table, *page), Verdict::Own);
                } else {
                    verdicts.entry((table, *page)).or_insert(Verdict::Others);
                }
            }
        };
        if rows.keys().any(|(of, _)| *of == table) {
            for &page in &index.pages {
                each(pages, page, false, &mut entry);
            }
        }
    }
    verdicts
}

/// Tells `row` the rowid and the fields of records that are all on `page`: of all, or of
/// [`ROWS`] of them.
fn each(pages: &Pages<'_>, page: u32, some: bool, row: &mut dyn FnMut(i64, &[Value<'_>])) {
    let Some(bytes) = pages.read(page) else { return };
    let Some(view) = leaf::open(&bytes, pages.layout.usable, page == 1) else { return };
    let cells = leaf::cells(&view).cells;
    let step = if some { cells.len().div_ceil(ROWS).max(1) } else { 1 };
    let mut fields = Vec::new();
    for cell in cells.iter().step_by(step) {
        if cell.overflow == 0 && record::read(cell.local, &mut fields) {
            row(cell.rowid, &fields);
        }
    }
}

/// Tells values apart well enough.
fn sum(value: &Value<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Integer(integer) => (1_u8, integer).hash(&mut hasher),
        // A column's whole numbers may be stored in either way.
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and then differs")]
        Value::Real(real) if *real == (*real as i64) as f64 => {
            (1_u8, *real as i64).hash(&mut hasher);
        }
        Value::Real(real) => (2_u8, real.to_bits()).hash(&mut hasher),
        Value::Text(text) => (3_u8, text).hash(&mut hasher),
        Value::Blob(blob) => (4_u8, blob).hash(&mut hasher),
    }
    hasher.finish()
}
