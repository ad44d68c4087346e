//! Whether the records of a page could be rows of a table, by their number of fields and types.

use super::leaf;
use super::pages::Pages;
use super::survey::Note;
use super::target::{Affinity, IndexShape, Part, Shape};
use crate::format::record::{self, Class};

/// On a page without structural damage, at most one record in this many may be damaged.
const FEW: usize = 8;

/// How well a page's records fit a table; a greater number fits better. `None` if one of the
/// records cannot be a row of the table.
pub(super) fn fit(note: &Note, shape: &Shape) -> Option<u32> {
    let (least, most) = (usize::from(note.fields.0), usize::from(note.fields.1));
    if most == 0 {
        // The records could not be read: their types are unknown.
        return Some(0);
    }
    if least < shape.least_fields || most > shape.fields.len() {
        return None;
    }
    // A record with fewer fields has to be older than the table's last column.
    let mut points = if least == shape.fields.len() { 4 } else { 0 };
    for (column, field) in shape.fields.iter().enumerate() {
        let seen = |class| note.types.seen(column, class);
        let others = [Class::Integer, Class::Real, Class::Text, Class::Blob];
        if field.rowid_alias {
            if others.into_iter().any(seen) {
                return None;
            }
            points += 8;
            continue;
        }
        if field.not_null && seen(Class::Null) {
            return None;
        }
        let numbers = seen(Class::Integer) || seen(Class::Real);
        let usual = match field.affinity {
            Affinity::Text if numbers => return None,
            Affinity::Text => seen(Class::Text) && !seen(Class::Blob),
            Affinity::Integer => seen(Class::Integer) && !seen(Class::Text) && !seen(Class::Blob),
            Affinity::Real | Affinity::Numeric => {
                numbers && !seen(Class::Text) && !seen(Class::Blob)
            }
            Affinity::Blob => seen(Class::Blob),
        };
        points += u32::from(usual);
    }
    Some(points)
}

/// Whether a page's records could be entries of an index. An entry has all of its fields.
pub(super) fn index_fits(note: &Note, index: &IndexShape, tables: &[Shape]) -> bool {
    let count = u16::try_from(index.parts.len()).unwrap_or(u16::MAX);
    if note.fields.1 == 0 {
        return true;
    }
    let table = tables.get(index.table);
    note.fields == (count, count)
        && index.parts.iter().enumerate().all(|(column, part)| {
            let seen = |class| note.types.seen(column, class);
            let text_or_blob = || seen(Class::Text) || seen(Class::Blob);
            match part {
                Part::Computed => true,
                Part::Rowid => !seen(Class::Null) && !seen(Class::Real) && !text_or_blob(),
                Part::Field(field) => {
                    let field = table.and_then(|table| table.fields.get(*field));
                    field.is_none_or(|field| {
                        let numbers = seen(Class::Integer) || seen(Class::Real);
                        let refuses = field.not_null && seen(Class::Null);
                        !(refuses || field.affinity == Affinity::Text && numbers)
                    })
                }
            }
        })
}

/// Whether a record can be a row of a table.
pub(super) fn record_fits(fields: &[crate::format::Value<'_>], shape: &Shape) -> bool {
    use crate::format::Value;
    if fields.len() < shape.least_fields || fields.len() > shape.fields.len() {
        return false;
    }
    fields.iter().zip(&shape.fields).all(|(value, field)| match value {
        Value::Null => field.rowid_alias || !field.not_null,
        // SQLite never reads the stored value of a rowid alias. 0 and 1 have no content, like NULL.
        _ if field.rowid_alias => matches!(value, Value::Integer(0 | 1)),
        Value::Integer(_) | Value::Real(_) => field.affinity != Affinity::Text,
        Value::Text(_) | Value::Blob(_) => true,
    })
}

/// Whether most of a page's records could be rows of a table: a damaged record does not disprove
/// that the page is the table's.
pub(super) fn most_fit(pages: &Pages<'_>, number: u32, shape: &Shape) -> bool {
    most(pages, number, |note| fit(note, shape).is_some())
}

/// Whether a page's records are in the order of a WITHOUT ROWID table, with unique keys. A few may
/// be damaged.
pub(super) fn is_sorted(pages: &Pages<'_>, number: u32, shape: &Shape) -> bool {
    let Some(bytes) = pages.read(number) else { return false };
    let Some(page) = leaf::open(&bytes, pages.layout.usable, number == 1) else { return false };
    let cells = leaf::cells(&page).cells;
    let keys = &shape.descending;
    let whole_key = keys.len() == shape.key_fields;
    let pairs = cells.iter().zip(cells.iter().skip(1));
    let wrong = pairs.filter(|(one, next)| {
        record::compare(one.local, next.local, keys)
            .is_some_and(|order| order.is_gt() || (whole_key && order.is_eq()))
    });
    wrong.count() * FEW <= cells.len()
}

/// Whether most of a page's records are what is looked for, each by a note of it alone: more than
/// half of a page that is damaged; of one on which everything is in its place all but one, or one
/// in [`FEW`], whose types a flipped bit may have changed and no length.
pub(super) fn most(pages: &Pages<'_>, number: u32, fits: impl Fn(&Note) -> bool) -> bool {
    let Some(bytes) = pages.read(number) else { return false };
    let Some(page) = leaf::open(&bytes, pages.layout.usable, number == 1) else { return false };
    let found = leaf::cells(&page);
    let cells = &found.cells;
    let fitting = cells.iter().filter(|cell| {
        let mut note = Note { cells: 1, ..Note::NOTHING };
        let types = &mut note.types;
        leaf::classes(cell, |column, class| types.see(column, class)).is_some_and(|count| {
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            note.fields = (count, count);
            fits(&note)
        })
    });
    let fitting = fitting.count();
    let others = cells.len() - fitting;
    fitting > others && (!found.sound || others == 1 || others * FEW <= cells.len())
}
